"""`fastmta check`: what is wrong with the configuration, before the server runs.

Exit code 78 for whatever would stop `serve`; warnings leave it 0.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from fastmta.cli.doubts import doubts
from fastmta.cli.failures import EX_CONFIG
from fastmta.cli.output import config_option, json_option, print_json
from fastmta.cli.startable import Problem, listen_problems, route_problems, start_problems
from fastmta.config.lines import key_lines
from fastmta.config.load import read
from fastmta.config.location import default_path
from fastmta.config.schema import Config, leaves
from fastmta.model.errors import StorageFailure
from fastmta.runtime.owned import acting_as_owner

FINDERS: Final = (start_problems, route_problems, listen_problems)
_STORE_FILE: Final = "data.mdb"


@click.command(epilog="\b\nExamples:\n  fastmta check\n  fastmta check --all | grep smtpd_")
@click.option("--all", "show_all", is_flag=True, help="Print every key with its value, as postconf does.")
@json_option
@config_option
def check(show_all: bool, as_json: bool, config_path: str | None) -> int:
    """Read the configuration and name everything that is wrong with it.

    What would stop `serve` is an error (exit code 78), what it would only regret is a warning (0).
    """
    where = config_path or str(default_path())
    config, wrong = read(where)
    errors = [{"line": p.line, "key": p.key, "text": p.text, "shown": str(p)} for p in wrong]
    warnings: list[dict[str, Any]] = []
    if config is not None:
        lines = key_lines(Path(where).read_text("utf-8"))
        errors += [_placed(where, lines, each) for find in FINDERS for each in find(config)]
        regrets, failure = _regrets(config)
        errors += [_placed(where, lines, each) for each in failure]
        warnings += [_placed(where, lines, each) for each in regrets]
    if as_json:
        told = [[{k: v for k, v in each.items() if k != "shown"} for each in group] for group in (errors, warnings)]
        keys = {"keys": dict(_values(config))} if config is not None and show_all else {}
        print_json({"file": where, "ok": not errors, "problems": told[0], "warnings": told[1]} | keys)
        return EX_CONFIG if errors else 0
    for each in errors:
        print(f"fastmta: {each['shown']}", file=sys.stderr)
    for each in warnings:
        print(f"fastmta: warning: {each['shown']}", file=sys.stderr)
    if config is not None and show_all:
        for key, value in _values(config):
            print(f"{key} = {_shown(value)}")
    elif not errors:
        count = len(warnings)
        print(f"{where}: " + (f"{count} warning{'' if count == 1 else 's'}, no error" if count else "no problem found"))
    return EX_CONFIG if errors else 0


def _regrets(config: Config) -> tuple[list[Problem], list[Problem]]:
    """The warnings; and why the store that is there cannot be opened."""
    directory = Path(config.data_directory)
    try:
        is_there = (directory / _STORE_FILE).exists()
    except PermissionError:
        return list(doubts(config, None)), []  # told already
    if not is_there:
        return list(doubts(config, None, none_yet=True)), []
    from fastmta.store import MailStore

    try:
        with acting_as_owner(directory):
            store = MailStore.open(directory, create=False)
    except PermissionError as error:
        return list(doubts(config, None)), [Problem("data_directory", f"{error.filename}: {error.strerror}")]
    except StorageFailure as error:
        return list(doubts(config, None)), [Problem("data_directory", str(error))]
    try:
        return list(doubts(config, store)), []
    finally:
        store.close()


def _placed(where: str, lines: dict[tuple[str, ...], int], problem: Problem) -> dict[str, Any]:
    path = tuple(problem.key.split(".", 1)) if problem.key else ()
    line = lines.get(path) or lines.get(path[:1]) or 0
    shown = f"{where}:{line}: {problem}" if line else f"{where}: {problem}"
    return {"line": line, "key": problem.key, "text": problem.text, "shown": shown}


def _values(config: Config) -> Iterator[tuple[str, object]]:
    for leaf in leaves():
        yield leaf.dotted, getattr(getattr(config, leaf.table) if leaf.table else config, leaf.attribute)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ", ".join(value)
    return f"{value:g}s" if isinstance(value, float) else str(value)
