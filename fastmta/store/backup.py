"""`fastmta store backup` and `compact`: a consistent copy while the server runs, a smaller file while it does not.

Every page is looked at first: of a damaged store there is no copy that looks whole.

A backup is one long reader: pages freed meanwhile can't be used again until it ends, so the file may grow by what is
written in that time. It rests while others commit (pace.py). It is written beside its target and renamed when it is on
the disk.
"""

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastmta._store import Snapshot, Store
from fastmta.model.errors import StorageFailure, StoreUnreadable
from fastmta.store.guard import hold_alone
from fastmta.store.pace import Pace
from fastmta.store.pages import Pages, describe

if TYPE_CHECKING:
    from fastmta.store.mailstore import MailStore

PROGRESS_INTERVAL_S: Final = 0.5
PIECE_BYTES: Final = 1 << 20  # written and brought to the disk at a time: some milliseconds

Progress = Callable[[int, int], None]  # bytes written, bytes in use at the beginning


def backup(store: "MailStore", target: Path, progress: Progress | None = None) -> int:
    """Copies an open store into directory `target`, which must not hold one; the copy's size in bytes."""
    if (target / "data.mdb").exists():
        raise StorageFailure(f"{target} holds a store already")
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    with Snapshot(store.raw):  # while it is held, the pages that the file's meta page leads to stay
        _require_sound(Path(store.raw.path))
    return _copy(store.raw, target, progress)


def compact(path: Path, progress: Progress | None = None) -> tuple[int, int]:
    """Rewrites the store in `path` without its free pages; its size before and after. StorageFailure where anybody has
    it open; who would open it meanwhile is refused, since what is written to the old file goes with it.
    """
    data = path / "data.mdb"
    before = data.stat().st_blocks * 512
    guard = hold_alone(path)
    try:
        _require_sound(path)
        store = Store(str(path), create=False)
        try:
            after = _copy(store, path, progress, name="data.mdb.compacted")
        finally:
            store.close()
        os.replace(path / "data.mdb.compacted", data)
        _sync_directory(path)
    finally:
        os.close(guard)
    return before, after


def _copy(store: Store, folder: Path, progress: Progress | None, name: str = "data.mdb") -> int:
    part = folder / (name + ".part")
    stats = store.stats()
    total = int(stats["map_used_bytes"] - stats["free_bytes"])
    if shutil.disk_usage(folder).free < total:
        raise StorageFailure(f"{folder} has less than the {total} bytes that the copy needs")
    part.unlink(missing_ok=True)  # of a copy that was killed; what is laid there instead is never written to
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        size = _write(store, fd, Pace(store.path), lambda done: progress(done, total) if progress else None)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    os.replace(part, folder / name)
    _sync_directory(folder)
    return size


def named(path: Path, error: StorageFailure) -> StorageFailure:
    """Why the store in `path` could not be opened, by the page and table that cannot be read; `error` where all can."""
    try:
        _require_sound(path)
    except StorageFailure as found:
        return found
    return error


def _require_sound(path: Path) -> None:
    """StoreUnreadable where a page cannot be read: LMDB would fault over it, or copy what is left and call it whole."""
    try:
        pages = Pages(path)
    except StoreUnreadable as error:
        raise StoreUnreadable(f"{error}; put the data.mdb of a backup in the place of {path / 'data.mdb'}") from error
    try:
        lost = pages.walk()
        first = describe(pages.holes[0]) if pages.holes else lost[0] if lost else ""
    finally:
        pages.close()
    if lost:
        more = f", and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise StoreUnreadable(
            f"{path / 'data.mdb'} is damaged, so nothing was copied: {first}{more}; `fastmta store check` names all of "
            "it, `fastmta store salvage` saves the rest"
        )


def _write(store: Store, fd: int, pace: Pace, told: Callable[[int], None]) -> int:
    """Copies the store into a file; its size. LMDB writes into a pipe, and what comes out is written at our pace.

    Each piece goes to the disk at once: else all of it would, at the end, and every commit of the server beside it
    would wait for that. It does not push the server's pages out of memory either.
    """
    failure: list[StorageFailure] = []
    source, sink = os.pipe2(os.O_CLOEXEC)

    def copy() -> None:
        try:
            store.copy_to(sink)
        except StorageFailure as error:
            failure.append(error)
        finally:
            os.close(sink)

    thread = threading.Thread(target=copy, name="store-copy")
    done = 0
    said_at = time.monotonic()
    thread.start()
    try:
        while piece := _piece(source):
            _write_all(fd, piece)
            os.fdatasync(fd)
            os.posix_fadvise(fd, done, len(piece), os.POSIX_FADV_DONTNEED)
            done += len(piece)
            if time.monotonic() - said_at >= PROGRESS_INTERVAL_S:
                told(done)
                said_at = time.monotonic()
            pace.rest()
        told(done)
    except OSError as error:
        raise StorageFailure(str(error)) from error
    finally:
        os.close(source)  # a thread that is not done yet fails at its next write
        thread.join()
    if failure:
        raise failure[0]
    os.fsync(fd)
    return done


def _piece(source: int) -> bytes:
    """The next PIECE_BYTES of a pipe, less at its end."""
    parts: list[bytes] = []
    size = 0
    while size < PIECE_BYTES and (data := os.read(source, PIECE_BYTES - size)):
        parts.append(data)
        size += len(data)
    return b"".join(parts)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _sync_directory(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
