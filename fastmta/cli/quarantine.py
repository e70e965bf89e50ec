"""`fastmta quarantine`: mail that checks have put aside, in a mailbox of each user."""

import click

from fastmta.cli.derived import add_missing


@click.group(
    epilog="\b\nExamples:\n  fastmta quarantine list\n  fastmta quarantine list bill@example.org --json\n"
    "  fastmta quarantine release bill@example.org:17\n  fastmta quarantine delete bill@example.org:17"
)
def quarantine() -> None:
    """Mail that checks have put aside, in a mailbox of each user."""


add_missing(quarantine, "quarantine")
