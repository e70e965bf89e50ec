"""`fastmta alias`: aliases in the store, which count beside the map files and need no file or reload."""

import click

from fastmta.cli.derived import add_missing, command
from fastmta.cli.output import print_table
from fastmta.cli.performing import perform
from fastmta.operations import aliases
from fastmta.operations.values import Subject


@click.group(
    epilog="\b\nExamples:\n  fastmta alias add sales@example.org bill@example.org ann@example.org\n"
    "  fastmta alias add @example.org bill@example.org\n  fastmta alias delete sales@example.org"
)
def alias() -> None:
    """Aliases kept in the store. `@domain` takes what nobody else in a domain has."""


def _show(found: list[aliases.Alias]) -> None:
    print_table(("ALIAS", "TARGETS"), [(each.address, ", ".join(each.targets)) for each in found])


def _question(config_path: str | None, asked: Subject) -> str:
    found = perform(config_path, aliases.show, asked)
    return f"Delete the alias {found.address} of {', '.join(found.targets)}?"


alias.add_command(command(aliases.list_, show=_show, key=lambda each: each.address))
alias.add_command(command(aliases.delete, question=_question))
add_missing(alias, "alias")
