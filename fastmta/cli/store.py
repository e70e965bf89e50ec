"""`fastmta store`: the store as a whole."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastmta.cli.failures import EX_CANTCREAT, EX_DATAERR, EX_NOINPUT, CommandFailed
from fastmta.cli.opened import run
from fastmta.cli.output import config_option, json_option, plain, print_json, size
from fastmta.cli.owned import acting_as_owner
from fastmta.config.load import load
from fastmta.config.schema import Config
from fastmta.model.errors import StorageFailure, StoreDamaged, StoreUnreadable

if TYPE_CHECKING:
    from fastmta.store import MailStore


@click.group(
    epilog="\b\nExamples:\n  fastmta store check\n  fastmta store backup /backup/mail-today\n  fastmta store compact\n"
    "  fastmta store upgrade --dry-run"
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

    try:
        run(config_path, work)
    except (StoreUnreadable, StoreDamaged) as error:  # its pages can be looked at all the same
        from fastmta.store.check import check_pages

        report(str(error))
        check_pages(Path(load(config_path).data_directory), report)
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
    from fastmta.store.backup import named

    if (path / "data.mdb").exists():
        raise CommandFailed(f"{path} holds a store already", EX_CANTCREAT)

    is_open = False

    async def work(_: Config, opened: "MailStore") -> int:
        nonlocal is_open
        is_open = True
        with _progress("backup") as told:
            return copy_store(opened, path, told)

    try:
        written = run(config_path, work)
    except StorageFailure as error:
        raise error if is_open else named(Path(load(config_path).data_directory), error) from error
    print(f"{size(written)} written to {path}")


@store.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@json_option
def salvage(source: Path, target: Path, as_json: bool) -> int:
    """Copy all that can be read of the damaged store in SOURCE into a new one in TARGET. The server must not run.

    UIDs, flags and the queue are kept; counts, indexes and references are made anew. What is lost is named line by
    line. The new store then takes the place of the old one.
    """
    from fastmta.store.salvage import salvage as save

    if (target / "data.mdb").exists():
        raise CommandFailed(f"{target} holds a store already", EX_CANTCREAT)
    if not (source / "data.mdb").exists():
        raise CommandFailed(f"{source} holds no store", EX_NOINPUT)
    _make_target(target, source.stat())
    with acting_as_owner(source), _progress("salvage") as told:
        outcome = save(source, target, told)
    kept = outcome.kept
    if as_json:
        print_json({"kept": kept, "lost": outcome.lost})
    else:
        for line in outcome.lost:
            print(plain(line))
        print(
            ", ".join(f"{count} {what}" for what, count in kept.items()) + f" saved; {len(outcome.lost)} losses named"
        )
    return EX_DATAERR if outcome.lost else 0


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


def _make_target(target: Path, owner: os.stat_result) -> None:
    """Makes the directory for the owner of the old one. One that is there already, or a link, is nobody's to give."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.mkdir(mode=0o700)
    except FileExistsError:
        return
    if os.geteuid() == 0:
        fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fchown(fd, owner.st_uid, owner.st_gid)
        finally:
            os.close(fd)


@store.command()
@click.option("--dry-run", is_flag=True, help="Tell what would be done, and change nothing.")
@click.option("--finish", is_flag=True, help="Have this program's format written from now on. The server may run.")
@config_option
def upgrade(dry_run: bool, finish: bool, config_path: str | None) -> None:
    """Bring a store that an earlier FastMTA wrote to this one's format. The server must not run.

    Killed in the middle, it goes on when it is called again. Make a backup before: the earlier program can't read the
    store afterwards.

    Where this FastMTA serves the earlier format as it is, both may run on the store, and it stays in the earlier format
    until --finish, which is refused while the earlier one runs.
    """
    from fastmta.runtime.lock import lock_directory
    from fastmta.store.upgrade import finish as finish_upgrade
    from fastmta.store.upgrade import newest_level, plan, plan_finish
    from fastmta.store.upgrade import upgrade as upgrade_store

    directory = Path(load(config_path).data_directory)
    if not directory.is_dir():
        raise CommandFailed(f"{directory} is not there", EX_NOINPUT)
    with acting_as_owner(directory):
        if not (directory / "data.mdb").exists():
            raise CommandFailed(f"{directory} holds no store", EX_NOINPUT)
        if finish:
            found = plan_finish(directory) if dry_run else finish_upgrade(directory, _told)
        else:
            lock = lock_directory(directory)
            try:
                found = plan(directory) if dry_run else upgrade_store(directory, _told)
            finally:
                os.close(lock)
    if not found.is_needed and not any(found.records.values()):
        if found.target < newest_level():
            what = f"the store's format, {found.target}, is served as it is"
            print(f"{what}; --finish brings it to {newest_level()}")
        else:
            print(f"the store has this program's format, {found.target}; nothing to do")
        return
    what = ", ".join(f"{count} {name}" for name, count in found.records.items())
    verb = "would be rewritten" if dry_run else "rewritten"
    print(f"format {found.level} to {found.target}: {what} {verb}")


def _told(what: str, done: int, total: int) -> None:
    """A line of progress, one over the other on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{what}: {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)


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
