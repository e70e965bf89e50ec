"""`fastmta ban`: addresses and networks that this server does not talk to."""

import click

from fastmta.cli.derived import add_missing


@click.group(
    epilog="\b\nExamples:\n  fastmta ban add 192.0.2.7 --time 1d --reason 'guesses passwords'\n"
    "  fastmta ban add 2001:db8::/32\n  fastmta ban list --json\n  fastmta ban remove 192.0.2.7"
)
def ban() -> None:
    """Addresses and networks that this server does not talk to, in any protocol."""


add_missing(ban, "ban")
