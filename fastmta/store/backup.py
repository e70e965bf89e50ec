"""`fastmta store backup` and `compact`: a consistent copy while the server runs, a smaller file while it does not.

A backup is one long reader: pages freed meanwhile can't be used again until it ends, so the file may grow by what is
written in that time. It is written beside its target and renamed when it is on the disk.
"""

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastmta._store import Store
from fastmta.model.errors import StorageFailure
from fastmta.store.guard import hold_alone

if TYPE_CHECKING:
    from fastmta.store.mailstore import MailStore

PROGRESS_INTERVAL_S: Final = 0.5

Progress = Callable[[int, int], None]  # bytes written, bytes in use at the beginning


def backup(store: "MailStore", target: Path, progress: Progress | None = None) -> int:
    """Copies an open store into directory `target`, which must not hold one; the copy's size in bytes."""
    if (target / "data.mdb").exists():
        raise StorageFailure(f"{target} holds a store already")
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    return _copy(store.raw, target, progress)


def compact(path: Path, progress: Progress | None = None) -> tuple[int, int]:
    """Rewrites the store in `path` without its free pages; its size before and after. StorageFailure where anybody has
    it open; who would open it meanwhile is refused, since what is written to the old file goes with it.
    """
    data = path / "data.mdb"
    before = data.stat().st_blocks * 512
    guard = hold_alone(path)
    try:
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
    total = store.stats()["map_used_bytes"] - store.stats()["free_bytes"]
    if shutil.disk_usage(folder).free < total:
        raise StorageFailure(f"{folder} has less than the {total} bytes that the copy needs")
    failure: list[StorageFailure] = []

    def work(fd: int) -> None:
        try:
            store.copy_to(fd)
            os.fsync(fd)
        except (StorageFailure, OSError) as error:
            failure.append(error if isinstance(error, StorageFailure) else StorageFailure(str(error)))

    thread = threading.Thread(target=lambda: work(fd), name="store-copy")
    part.unlink(missing_ok=True)  # of a copy that was killed; what is laid there instead is never written to
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        thread.start()
        while True:
            thread.join(PROGRESS_INTERVAL_S)
            if progress is not None:  # also of a copy that was done before anybody looked
                progress(os.fstat(fd).st_size, total)
            if not thread.is_alive():
                break
        size = os.fstat(fd).st_size
    except BaseException:  # interrupted: the next write of the thread fails, and the descriptor's number stays taken
        _make_unwritable(fd)
        thread.join()
        part.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    if failure:
        part.unlink(missing_ok=True)
        raise failure[0]
    os.replace(part, folder / name)
    _sync_directory(folder)
    return size


def _make_unwritable(fd: int) -> None:
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.dup2(null, fd, inheritable=False)
    finally:
        os.close(null)


def _sync_directory(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
