"""The exclusive lock on a maildrop (RFC 1939 §4): one POP3 session an account, over all workers.

An open-file-description lock on the byte *account id* of one file in the data directory, plus a set in the process,
since locks of one description don't exclude each other. The kernel releases what a dead worker held.
"""

import fcntl
import os
import struct
from pathlib import Path
from typing import Final

FILE_NAME: Final = "pop3.lock"
_FLOCK: Final = struct.Struct(
    "hhqqi4x"
)  # struct flock of 64-bit Linux: type, whence, start, length, pid (0 for OFD locks)


class MaildropLocks:
    """The locks that one process holds. Nothing here blocks."""

    __slots__ = ("_fd", "_held")

    def __init__(self, data_directory: str | Path) -> None:
        self._fd = os.open(Path(data_directory) / FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._held: set[int] = set()

    def acquire(self, account_id: int) -> bool:
        """False where another session has the maildrop, here or in another process."""
        if account_id in self._held:
            return False
        try:
            self._set(account_id, fcntl.F_WRLCK)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES, at the system's choice
            return False
        self._held.add(account_id)
        return True

    def release(self, account_id: int) -> None:
        self._held.discard(account_id)
        self._set(account_id, fcntl.F_UNLCK)

    def close(self) -> None:
        """Releases all of them."""
        self._held.clear()
        os.close(self._fd)

    def _set(self, account_id: int, kind: int) -> None:
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, account_id, 1, 0))
