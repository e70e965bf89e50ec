"""Care of the store as a whole: the acts `store.check`, `backup`, `compact`, `salvage` and `upgrade`.

They are done in the caller's process, since they write where he may write, and three of them want the store alone.
What is made in the data directory is its owner's.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from fastmta.model.errors import ActFailed, StorageFailure, StoreDamaged, StoreUnreadable
from fastmta.operations.acts import act
from fastmta.operations.desk import BareDesk
from fastmta.operations.values import Nothing
from fastmta.runtime.owned import acting_as_owner

if TYPE_CHECKING:
    from fastmta.store import MailStore


class Checked(msgspec.Struct):
    """What does not fit, a line each; empty for a sound store."""

    ok: bool
    problems: list[str]


@act("store.check")
async def check(desk: BareDesk, asked: Nothing) -> Checked:
    """Read the whole store and name every record that does not fit the others. Changes nothing."""
    from fastmta.store.check import check as check_store
    from fastmta.store.check import check_pages

    problems: list[str] = []
    directory = Path(desk.config.data_directory)
    try:
        with _opened(directory) as store:
            check_store(store, problems.append)
    except (StoreUnreadable, StoreDamaged) as error:  # its pages can be looked at all the same
        problems.append(str(error))
        check_pages(directory, problems.append)
    return Checked(not problems, problems)


class BackUp(msgspec.Struct, forbid_unknown_fields=True):
    path: str


class Written(msgspec.Struct):
    """A copy of the store, and its size."""

    path: str
    bytes: int


@act("store.backup", changes=True)
async def backup(desk: BareDesk, asked: BackUp) -> Written:
    """Copy the store as it is at this moment into the directory PATH, while the server goes on.

    Queue, mailboxes and accounts are of one moment. To go back to it, stop the server and put the copy's data.mdb in
    the place of the data directory's.
    """
    from fastmta.store.backup import backup as copy_store
    from fastmta.store.backup import named

    target = Path(asked.path)
    if (target / "data.mdb").exists():
        raise ActFailed(f"{target} holds a store already", "cannot_create")
    directory = Path(desk.config.data_directory)
    is_open = False
    try:
        with _opened(directory) as store:
            is_open = True
            written = copy_store(store, target, desk.progress)
    except StorageFailure as error:
        raise error if is_open else named(directory, error) from error
    desk.note(path=asked.path, bytes=written)  # all mail and all keys are there too from now on
    return Written(asked.path, written)


class Compacted(msgspec.Struct):
    """The store's size in bytes."""

    before: int
    after: int


@act("store.compact", changes=True)
async def compact(desk: BareDesk, asked: Nothing) -> Compacted:
    """Give the store's free space back to the disk. The server must not run; what is mailed meanwhile is deferred."""
    from fastmta.store.backup import compact as compact_store

    directory = Path(desk.config.data_directory)
    with _alone(directory):
        found = Compacted(*compact_store(directory, desk.progress))
    desk.note(before=found.before, after=found.after)
    return found


class Salvage(msgspec.Struct, forbid_unknown_fields=True):
    source: str
    target: str


class Salvaged(msgspec.Struct):
    """How much of each kind was saved, and what was not, a line each."""

    kept: dict[str, int]
    lost: list[str]


@act("store.salvage")
async def salvage(desk: BareDesk, asked: Salvage) -> Salvaged:
    """Copy all that can be read of the damaged store in SOURCE into a new one in TARGET. The server must not run.

    UIDs, flags and the queue are kept; counts, indexes and references are made anew. What is lost is named line by
    line. The new store then takes the place of the old one.
    """
    from fastmta.store.salvage import salvage as save

    source, target = Path(asked.source), Path(asked.target)
    if (target / "data.mdb").exists():
        raise ActFailed(f"{target} holds a store already", "cannot_create")
    if not (source / "data.mdb").exists():
        raise ActFailed(f"{source} holds no store", "no_input")
    _make_target(target, os.stat(source))
    with acting_as_owner(source):
        outcome = save(source, target, desk.progress)
    return Salvaged(outcome.kept, outcome.lost)


class Upgrade(msgspec.Struct, forbid_unknown_fields=True):
    dry_run: Annotated[bool, msgspec.Meta(description="Tell what would be done, and change nothing.")] = False
    finish: Annotated[
        bool,
        msgspec.Meta(description="Have this program's format written from now on. The server may run."),
    ] = False


class Upgraded(msgspec.Struct):
    """From which format to which one, and how many records of each kind were rewritten, or would be; `newest` is the
    format that --finish brings the store to.
    """

    level: int
    target: int
    newest: int
    records: dict[str, int]


@act("store.upgrade", changes=True)
async def upgrade(desk: BareDesk, asked: Upgrade) -> Upgraded:
    """Bring a store that an earlier FastMTA wrote to this one's format. The server must not run.

    Killed in the middle, it goes on when it is called again. Make a backup before: the earlier program can't read the
    store afterwards.

    Where this FastMTA serves the earlier format as it is, both may run on the store, and it stays in the earlier format
    until --finish, which is refused while the earlier one runs.
    """
    from fastmta.store.upgrade import finish, newest_level, plan, plan_finish
    from fastmta.store.upgrade import upgrade as upgrade_store

    directory = Path(desk.config.data_directory)

    def told(what: str, done: int, total: int) -> None:
        desk.progress(done, total, what)

    if asked.finish:
        _require_store(directory)
        with acting_as_owner(directory):
            found = plan_finish(directory) if asked.dry_run else finish(directory, told)
    else:
        with _alone(directory):
            found = plan(directory) if asked.dry_run else upgrade_store(directory, told)
    if not asked.dry_run and (found.is_needed or any(found.records.values())):
        desk.note(level=found.level, target=found.target, **found.records)
    return Upgraded(found.level, found.target, newest_level(), found.records)


@contextmanager
def _opened(directory: Path) -> "Iterator[MailStore]":
    """The store of a data directory, as another process of its owner's beside a server that may run."""
    from fastmta.store import MailStore

    _require_store(directory)
    with acting_as_owner(directory):
        if not os.access(directory, os.W_OK | os.X_OK, effective_ids=True):
            raise PermissionError(13, "Permission denied", str(directory))
        store = MailStore.open(directory, gives_way=True)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """For as long as it lasts no server starts here, and what is made is the owner's, as the store was."""
    from fastmta.runtime.lock import lock_directory

    _require_store(directory)
    with acting_as_owner(directory):
        lock = lock_directory(directory)
        try:
            yield
        finally:
            os.close(lock)


def _require_store(directory: Path) -> None:
    if not directory.is_dir():
        raise ActFailed(f"{directory} is not there", "no_input")
    with acting_as_owner(directory):
        if not (directory / "data.mdb").exists():
            raise ActFailed(f"{directory} holds no store", "no_input")


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
