"""Who may walk the queue's hops, across servers: a lock that every owning worker shares, by a descriptor of its own.

Within one server the supervisor knows who has released its hops. When it is killed, its workers still finish what
they are delivering, while the next supervisor has listeners up within a second. Its workers accept mail at once, and
own hops as soon as nobody of before holds this lock: then no recipient has two owners. The supervisor takes a
worker's share before it tells it to own, so there is no moment without; the kernel gives it back on death.
"""

import fcntl
import os
from pathlib import Path
from typing import Final

FILE_NAME: Final = "hops.lock"
POLL_S: Final = 0.05  # between looks while workers of a former server finish


class HopsLock:
    """The lock of one data directory, on the supervisor's side."""

    def __init__(self, directory: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(directory / FILE_NAME, flags, 0o600)

    def _again(self) -> int:
        return os.open(f"/proc/self/fd/{self._fd}", os.O_RDWR | os.O_CLOEXEC)

    def is_free(self) -> bool:
        """Whether no worker, of this server or one before, walks hops."""
        fd = self._again()
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(fd)
        return True

    def share(self) -> int:
        """One worker's share: a descriptor that stands for the right to own until its last copy is closed."""
        fd = self._again()
        fcntl.flock(fd, fcntl.LOCK_SH)
        return fd

    def close(self) -> None:
        os.close(self._fd)
