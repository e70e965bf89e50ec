"""`fastmta store`: the store as a whole."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastmta.cli.failures import EX_CANTCREAT, EX_DATAERR, EX_NOINPUT, CommandFailed
from fastmta.cli.opened import acting_as_owner, run
from fastmta.cli.output import config_option, json_option, plain, print_json, size
from fastmta.config.load import load
from fastmta.config.schema import Config

if TYPE_CHECKING:
    from fastmta.store import MailStore


@click.group(
    epilog="\b\nExamples:\n  fastmta store check\n  fastmta store backup /backup/mail-today\n  fastmta store compact"
)
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


@store.command()
@click.argument("path", type=click.Path(path_type=Path))
@config_option
def backup(path: Path, config_path: str | None) -> None:
    """Copy the store as it is at this moment into the directory PATH, while the server goes on.

    Queue, mailboxes and accounts are of one moment. To go back to it, stop the server and put the copy's data.mdb in
    the place of the data directory's.
    """
    from fastmta.store.backup import backup as copy_store

    if (path / "data.mdb").exists():
        raise CommandFailed(f"{path} holds a store already", EX_CANTCREAT)

    async def work(_: Config, opened: "MailStore") -> int:
        with _progress("backup") as told:
            return copy_store(opened, path, told)

    print(f"{size(run(config_path, work))} written to {path}")


@store.command()
@config_option
def compact(config_path: str | None) -> None:
    """Give the store's free space back to the disk. The server must not run; what is mailed meanwhile is deferred."""
    from fastmta.runtime.lock import lock_directory
    from fastmta.store.backup import compact as compact_store

    directory = Path(load(config_path).data_directory)
    if not directory.is_dir():
        raise CommandFailed(f"{directory} is not there", EX_NOINPUT)
    with acting_as_owner(directory):  # the new file has to be the server's, as the old one was
        if not (directory / "data.mdb").exists():
            raise CommandFailed(f"{directory} holds no store", EX_NOINPUT)
        lock = lock_directory(directory)
        try:
            with _progress("compact") as told:
                before, after = compact_store(directory, told)
        finally:
            os.close(lock)
    print(f"{size(before)} before, {size(after)} after")


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int], None] | None]:
    """What is told of the bytes done and their total: a bar where standard error is a terminal, else None."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(name, total=None)
        yield lambda done, total: shown.update(task, completed=min(done, total), total=total)
