"""`fastmta index`: the full-text indexes."""

import click

from fastmta.cli.derived import add_missing, command
from fastmta.cli.output import print_table, size
from fastmta.operations import indexes


@click.group(
    epilog="\b\nExamples:\n  fastmta index status\n  fastmta index status bill@example.org --json\n"
    "  fastmta index rebuild bill@example.org"
)
def index() -> None:
    """Full-text indexes, which SEARCH goes by."""


def _show(found: list[indexes.Indexed]) -> None:
    rows = [(each.address, each.messages, each.indexed, f"{each.percent} %", size(each.size_bytes)) for each in found]
    print_table(("ADDRESS", "MESSAGES", "INDEXED", "", "SIZE"), rows, right=(1, 2, 3, 4))


index.add_command(command(indexes.status, show=_show))
index.add_command(
    command(
        indexes.rebuild,
        show=lambda done: print(
            f"{done.messages} message{'' if done.messages == 1 else 's'} of {done.accounts} "
            f"account{'' if done.accounts == 1 else 's'} indexed"
        ),
    )
)
add_missing(index, "index")
