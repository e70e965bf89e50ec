"""Exclusive locks on accounts, over all processes of a server: of a maildrop, or of an account's text index.

An open-file-description lock on the byte *account id* of one file, plus a set in the process, since locks of one
description don't exclude each other. The kernel releases what a dead worker held.
"""

import fcntl
import os
import struct
from pathlib import Path
from typing import Final

_FLOCK: Final = struct.Struct(
    "hhqqi4x"
)  # struct flock of 64-bit Linux: type, whence, start, length, pid (0 for OFD locks)


class AccountLocks:
    """The locks that one process holds. Nothing here blocks."""

    __slots__ = ("_fd", "_held")

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._held: set[int] = set()

    def acquire(self, account_id: int) -> bool:
        """False where somebody else has it, here or in another process."""
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
