"""`fastmta verified`: what next hops have said of addresses that reject_unverified_* asks about."""

import click

from fastmta.cli.derived import add_missing


@click.group(
    epilog="\b\nExamples:\n  fastmta verified list --status bounced\n"
    "  fastmta verified list --domain example.org --json\n"
    "  fastmta verified clear bob@example.org\n  fastmta verified clear @example.org\n  fastmta verified clear ALL"
)
def verified() -> None:
    """What next hops have said of addresses that reject_unverified_* asks about."""


add_missing(verified, "verified")
