"""`fastmta store`: the store as a whole."""

from typing import TYPE_CHECKING

import click

from fastmta.cli.failures import EX_DATAERR
from fastmta.cli.opened import run
from fastmta.cli.output import config_option, json_option, plain, print_json
from fastmta.config.schema import Config

if TYPE_CHECKING:
    from fastmta.store import MailStore


@click.group(epilog="\b\nExamples:\n  fastmta store check")
def store() -> None:
    """The store."""


@store.command()
@json_option
@config_option
def check(as_json: bool, config_path: str | None) -> int:
    """Read the whole store and name every record that does not fit the others. Changes nothing."""
    from fastmta.store.check import check as check_store

    problems: list[str] = []

    def report(line: str) -> None:
        problems.append(line)
        if not as_json:
            print(plain(line))

    async def work(_: Config, opened: "MailStore") -> None:
        check_store(opened, report)

    run(config_path, work)
    if as_json:
        print_json({"ok": not problems, "problems": problems})
    elif not problems:
        print("no problem found")
    return EX_DATAERR if problems else 0
