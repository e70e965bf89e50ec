"""`fastmta store`: the store as a whole, as its acts tell of it (operations/care.py)."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
import msgspec

from fastmta.cli import derived
from fastmta.cli.failures import EX_DATAERR
from fastmta.cli.output import plain, print_json, size
from fastmta.cli.performing import perform
from fastmta.operations import care
from fastmta.operations.acts import Act
from fastmta.operations.desk import Progress

Q = TypeVar("Q", bound=msgspec.Struct)
R = TypeVar("R")


@click.group(
    epilog="\b\nExamples:\n  fastmta store check\n  fastmta store backup /backup/mail-today\n  fastmta store compact\n"
    "  fastmta store upgrade --dry-run"
)
def store() -> None:
    """The store."""


def _command(act: Act[Q, R], show: Callable[[Q, R], None], found_wrong: Callable[[R], bool] = lambda _: False) -> None:
    """Adds the command of an act that has a bar, and whose result may be bad news."""

    def whole(config_path: str | None, asked: Q, as_json: bool) -> int:
        with progress(act.name.partition(".")[2]) as told:
            found = perform(config_path, act, asked, told)
        if as_json:
            print_json(msgspec.to_builtins(found))
        else:
            show(asked, found)
        return EX_DATAERR if found_wrong(found) else 0

    store.add_command(derived.command(act, whole=whole))


def _checked(asked: msgspec.Struct, found: care.Checked) -> None:
    for line in found.problems or ["no problem found"]:
        print(plain(line))


def _written(asked: care.BackUp, found: care.Written) -> None:
    print(f"{size(found.bytes)} written to {asked.path}")


def _compacted(asked: msgspec.Struct, found: care.Compacted) -> None:
    print(f"{size(found.before)} before, {size(found.after)} after")


def _salvaged(asked: care.Salvage, found: care.Salvaged) -> None:
    for line in found.lost:
        print(plain(line))
    saved = ", ".join(f"{count} {what}" for what, count in found.kept.items())
    print(f"{saved} saved; {len(found.lost)} losses named")


def _upgraded(asked: care.Upgrade, found: care.Upgraded) -> None:
    if found.level == found.target and not any(found.records.values()):
        if found.target < found.newest:
            print(f"the store's format, {found.target}, is served as it is; --finish brings it to {found.newest}")
        else:
            print(f"the store has this program's format, {found.target}; nothing to do")
        return
    what = ", ".join(f"{count} {name}" for name, count in found.records.items())
    verb = "would be rewritten" if asked.dry_run else "rewritten"
    print(f"format {found.level} to {found.target}: {what} {verb}")


_command(care.check, _checked, lambda found: not found.ok)
_command(care.backup, _written)
_command(care.compact, _compacted)
_command(care.salvage, _salvaged, lambda found: bool(found.lost))
_command(care.upgrade, _upgraded)


@contextmanager
def progress(name: str) -> Iterator[Progress]:
    """A bar of bytes where standard error is a terminal; what is counted in records has a line."""
    if not sys.stderr.isatty():
        yield _silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(name, total=None, visible=False)

        def told(done: int, total: int, what: str = "", /) -> None:
            if what:
                print(f"\r{what}: {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)
            else:
                shown.update(task, completed=min(done, total), total=total, visible=True)

        yield told


def _silent(done: int, total: int, what: str = "", /) -> Any:
    return None
