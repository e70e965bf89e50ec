"""`postmap` and `newaliases`: compile map files, so that a big one is searched instead of parsed, and query them."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import click

from fastmta.cli.failures import EX_DATAERR, EX_NOINPUT, EX_USAGE, CommandFailed
from fastmta.config.load import load
from fastmta.config.schema import Config
from fastmta.config.values import MAP_TYPES
from fastmta.local.maps import Parser, Table, compile_map, read_source
from fastmta.local.source import parse_aliases, parse_map
from fastmta.model.errors import ConfigError

T = TypeVar("T")

_NOT_FOUND = 1  # Postfix's


@click.command(
    "postmap",
    epilog="\b\nExamples:\n  postmap /etc/fastmta/virtual\n  postmap -q bill@example.org hash:/etc/fastmta/virtual",
)
@click.argument("files", nargs=-1, required=True, metavar="[TYPE:]FILE...")
@click.option("-q", "query", help='Print the value of a key instead; "-" reads keys from standard input.')
@click.option("-s", "sequence", is_flag=True, help="Print all keys and values instead.")
@click.option("-f", "no_fold", is_flag=True, hidden=True)
@click.option("-i", "-N", "-n", "-o", "-p", "-r", "-u", "-v", "-w", "ignored", is_flag=True, hidden=True)
@click.option("-c", "_directory", hidden=True, help="Postfix's configuration directory; not needed here.")
def command(
    files: tuple[str, ...], query: str | None, sequence: bool, no_fold: bool, ignored: bool, _directory: str | None
) -> int:
    """Compile map files (lines "key value"), or query them. A running server uses the new form at once."""
    if query is not None:
        return _query(files, query)
    for name in files:
        path = _path(name)
        if sequence:
            for key, value in _reading(read_source, path, parse_map).items():
                print(f"{key}\t{value}")
            continue
        _warn_of_duplicates(path, parse_map)
        _reading(compile_map, path, parse_map)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point of the program `postmap`."""
    from fastmta.cli.main import run

    return run(command, "postmap", argv)


def newaliases(argv: Sequence[str] | None = None) -> int:
    """The entry point of the program `newaliases`."""
    from fastmta.cli.main import run

    return run(newaliases_command, "newaliases", argv)


@click.command("newaliases")
@click.option("-c", "-C", "--config", "config_path", type=click.Path(), help="The configuration file.")
@click.pass_context
def newaliases_command(ctx: click.Context, config_path: str | None) -> int:
    """Compile the alias files of alias_database."""
    return compile_aliases(load(config_path or ctx.find_root().obj))


def compile_aliases(config: Config) -> int:
    """Compiles every file of alias_database and says how many aliases it holds."""
    for name in config.alias_database:
        path = _path(name)
        _warn_of_duplicates(path, parse_aliases)
        count = _reading(compile_map, path, parse_aliases)
        longest = max((len(value) for value in read_source(path, parse_aliases).values()), default=0)
        print(f"{path}: {count} aliases, longest {longest} bytes")
    return 0


def _query(files: tuple[str, ...], query: str) -> int:
    tables = [Table(name if name.partition(":")[0] in MAP_TYPES else f"hash:{name}") for name in files]
    for table in tables:
        if table.problem:
            raise CommandFailed(table.problem, EX_NOINPUT)
    keys = [line.rstrip("\n") for line in sys.stdin] if query == "-" else [query]
    found_any = False
    for key in keys:
        for table in tables:
            value = table.get(key.lower())
            if value is not None:
                found_any = True
                print(f"{key}\t{value}" if query == "-" else value)
                break
    return 0 if found_any else _NOT_FOUND


def _path(name: str) -> Path:
    kind, colon, path = name.partition(":")
    if colon and kind not in MAP_TYPES:
        raise CommandFailed(f"{name}: unknown map type {kind}; known: {', '.join(MAP_TYPES)}", EX_USAGE)
    found = Path(path if colon else name)
    if not found.is_file():
        raise CommandFailed(f"{found}: {os.strerror(2)}", EX_NOINPUT)
    return found


def _warn_of_duplicates(path: Path, parser: Parser) -> None:
    seen: set[str] = set()
    try:
        for entry in parser(path.read_text("utf-8", "surrogateescape"), str(path)):
            if entry.key in seen:
                print(f"postmap: warning: {path}:{entry.line}: duplicate entry: {entry.key!a}", file=sys.stderr)
            seen.add(entry.key)
    except (OSError, ConfigError):
        return  # told by what follows


def _reading(work: Callable[[Path, Parser], T], path: Path, parser: Parser) -> T:
    """Work on a file whose mistakes are the caller's data, not the configuration's."""
    try:
        return work(path, parser)
    except ConfigError as error:
        raise CommandFailed(str(error), EX_DATAERR) from error
