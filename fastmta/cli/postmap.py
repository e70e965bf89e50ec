"""`postmap` and `newaliases`: compile map files, so that a big one is searched instead of parsed, and query them.

A line that cannot be read is told and skipped, as Postfix does: one slip must not take all the others away.
"""

import gc
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from fastmta.cli.failures import EX_DATAERR, EX_NOINPUT, EX_USAGE, CommandFailed, guarded
from fastmta.config.map_types import MAP_TYPES
from fastmta.directory.maps import Parser, Table, compile_map, read_source
from fastmta.directory.source import parse_aliases, parse_map
from fastmta.model.errors import ConfigError

if TYPE_CHECKING:
    from fastmta.config.schema import Config

T = TypeVar("T")

_COMPILED: Final = ("hash", "texthash")
_NOT_FOUND: Final = 1  # Postfix's
_IGNORED: Final = frozenset("Nfinopruvw")
USAGE: Final = "usage: postmap [-q KEY] [-s] [TYPE:]FILE..."
HELP: Final = f"""\
U{USAGE[1:]}

Compile map files (lines "key value"), or query them. A running server uses the new form at once.

  -q KEY   print the value of a key instead; "-" reads keys from standard input
  -s       print all keys and values instead

Examples:
  postmap /etc/fastmta/virtual
  postmap -q bill@example.org hash:/etc/fastmta/virtual
"""
NEWALIASES_HELP: Final = "Usage: newaliases [-c FILE]\n\nCompile the alias files of alias_database.\n"


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point of the program `postmap`."""
    if argv is None:
        gc.disable()  # what goes round in circles goes with the process, which is short
    return guarded("postmap", lambda: run(list(sys.argv[1:] if argv is None else argv)))


def newaliases(argv: Sequence[str] | None = None) -> int:
    """The entry point of the program `newaliases`."""
    return guarded("newaliases", lambda: run_newaliases(list(sys.argv[1:] if argv is None else argv)))


def run(arguments: list[str]) -> int:
    """What `postmap` does."""
    query: str | None = None
    sequence = False
    files: list[str] = []
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if argument == "--help":
            print(HELP, end="")
            return 0
        if argument == "--":
            files += left
            break
        if not argument.startswith("-") or argument == "-":
            files.append(argument)
            continue
        for at, letter in enumerate(argument[1:], 1):
            if letter in "qc":  # -c is Postfix's configuration directory, which is not needed here
                value = argument[at + 1 :] or (left.pop(0) if left else "")
                if not value:
                    raise CommandFailed(f"-{letter} needs a value; {USAGE}", EX_USAGE)
                query = value if letter == "q" else query
                break
            if letter == "s":
                sequence = True
            elif letter not in _IGNORED:
                raise CommandFailed(f"unknown option {argument!a}; {USAGE}", EX_USAGE)
    if not files:
        raise CommandFailed(f"no file given; {USAGE}", EX_USAGE)
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


def run_newaliases(arguments: list[str], config_path: str | None = None) -> int:
    """What `newaliases` does."""
    from fastmta.config.load import load

    left = list(arguments)
    while left:
        argument = left.pop(0)
        if argument == "--help":
            print(NEWALIASES_HELP, end="")
            return 0
        if argument not in ("-c", "-C", "--config") or not left:
            raise CommandFailed(f"unknown argument {argument!a}; usage: newaliases [-c FILE]", EX_USAGE)
        config_path = left.pop(0)
    return compile_aliases(load(config_path))


def compile_aliases(config: "Config") -> int:
    """Compiles every file of alias_database and says how many aliases it holds."""
    for name in config.alias_database:
        path = _path(name)
        _warn_of_duplicates(path, parse_aliases)
        count = _reading(compile_map, path, parse_aliases)
        longest = max((len(value) for value in read_source(path, parse_aliases, _told).values()), default=0)
        print(f"{path}: {count} aliases, longest {longest} bytes")
    return 0


def _query(files: list[str], query: str) -> int:
    tables = [Table(name if name.partition(":")[0] in MAP_TYPES else f"hash:{name}", bad=_skipped) for name in files]
    for table in tables:
        if table.problem:
            raise CommandFailed(table.problem, EX_NOINPUT)
    keys = [line.rstrip("\n") for line in sys.stdin] if query == "-" else [query]
    found_any = False
    for key in keys:
        for table in tables:
            value = table.get(key if table.is_of_patterns else key.lower())
            if value is not None:
                found_any = True
                print(f"{key}\t{value}" if query == "-" else value)
                break
    return 0 if found_any else _NOT_FOUND


def _path(name: str) -> Path:
    kind, colon, path = name.partition(":")
    if colon and kind in MAP_TYPES and kind not in _COMPILED:
        raise CommandFailed(f"{name}: a {kind}: table is read as it is; only hash: is compiled", EX_USAGE)
    if colon and kind not in MAP_TYPES:
        raise CommandFailed(f"{name}: unknown map type {kind}; known: {', '.join(MAP_TYPES)}", EX_USAGE)
    found = Path(path if colon else name)
    if not found.is_file():
        raise CommandFailed(f"{found}: {os.strerror(2)}", EX_NOINPUT)
    return found


def _warn_of_duplicates(path: Path, parser: Parser) -> None:
    seen: set[str] = set()
    try:
        for entry in parser(path.read_text("utf-8", "surrogateescape"), str(path), _told):
            if entry.key in seen:
                _warn(f"{path}:{entry.line}: duplicate entry: {entry.key!a}")
            seen.add(entry.key)
    except (OSError, ConfigError):
        return  # told by what follows


def _warn(text: str) -> None:
    line = "".join(c if c.isprintable() else "?" for c in text)
    print(f"postmap: warning: {line}", file=sys.stderr)


def _skipped(text: str) -> None:
    _warn(f"{text}; the line is skipped")


def _told(_: str) -> None:
    """For a second reading of lines whose faults have been told, or will be."""


def _reading(work: Callable[..., T], path: Path, parser: Parser) -> T:
    """Work on a file whose mistakes are the caller's data, not the configuration's."""
    try:
        return work(path, parser, _skipped)
    except ConfigError as error:
        raise CommandFailed(str(error), EX_DATAERR) from error
