"""Which workers ended badly: each keeps a locked file while it runs, and removes it after it has closed the store.

A mark that nobody locks was left by a storage failure, a kill or a power cut; whoever takes it checks the store, once.
The kernel lets go of a lock on death, so that neither a process id nor the clock has to be trusted.
"""

import fcntl
import os
from pathlib import Path
from typing import Final

FOLDER: Final = "running"


class Mark:
    """This process's own; `remove` says that it ended well."""

    def __init__(self, path: Path, name: str) -> None:
        folder = path / FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        name = f"{name}-{os.urandom(8).hex()}"  # in a container a successor often has the dead one's process id
        self._path = folder / name
        begun = folder / f".{name}"  # named when it is locked: else it might be taken for a dead one
        self._fd = os.open(begun, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        begun.rename(self._path)
        _sync(folder)

    def remove(self) -> None:
        """The store was closed well."""
        self._path.unlink(missing_ok=True)
        os.close(self._fd)

    def leave(self) -> None:
        """It was not: the mark stays for another process to find, as it does when this one just ends."""
        os.close(self._fd)


class LeftMarks:
    """The marks of the dead, held so that no other process checks for the same ones; `remove` after the check."""

    def __init__(self, path: Path) -> None:
        self._held: list[tuple[Path, int]] = []
        folder = path / FOLDER
        for each in sorted(folder.glob("[!.]*")) if folder.is_dir() else ():
            try:
                fd = os.open(each, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # it lives
                os.close(fd)
                continue
            if os.fstat(fd).st_nlink == 0:  # it was ending well just now
                os.close(fd)
                continue
            self._held.append((each, fd))

    def __bool__(self) -> bool:
        return bool(self._held)

    def remove(self) -> None:
        """The check that they asked for has been made."""
        for each, fd in self._held:
            each.unlink(missing_ok=True)
            os.close(fd)
        self._held.clear()


def _sync(folder: Path) -> None:
    """The mark must outlive a power cut."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
