"""Who has the store open: every MailStore shares a lock that a compaction takes alone.

The data directory's lock (runtime/lock.py) keeps a second server away, yet commands open the store beside the server or
without one. What a command committed to a file that is about to be replaced would be lost: it is refused meanwhile.
"""

import fcntl
import os
from contextlib import suppress
from typing import Final

from fastmta.model.errors import StorageFailure

GUARD: Final = "open.lock"


def hold_open(path: "str | os.PathLike[str]", *, create: bool) -> int:
    """The descriptor to hold while the store in `path` is open; StorageFailure while it is compacted. Does not wait."""
    if create:
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
    return _lock(path, fcntl.LOCK_SH, "is being compacted")


def hold_alone(path: "str | os.PathLike[str]") -> int:
    """The descriptor to hold while nobody may open the store; StorageFailure where somebody has it open."""
    return _lock(path, fcntl.LOCK_EX, "is open elsewhere")


def _lock(path: "str | os.PathLike[str]", kind: int, refusal: str) -> int:
    fd = os.open(os.path.join(path, GUARD), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise StorageFailure(f"the store {path} {refusal}") from None
    return fd
