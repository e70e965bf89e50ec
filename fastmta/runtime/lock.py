"""The lock on the data directory: one server, or one offline command, at a time.

It is an flock(2) of an open file description, so the workers that inherit the descriptor keep it while they live: a
supervisor that is restarted at once waits until the last worker of its predecessor has left.
"""

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

from fastmta.model.errors import FastMTAError

POLL_INTERVAL_S = 0.05


class DirectoryBusy(FastMTAError):
    """Somebody else holds the data directory."""


def lock_directory(
    directory: Path, *, wait_s: float = 0.0, waiting: Callable[[str], None] = lambda holder: None
) -> int:
    """Takes the lock of `directory` and returns its descriptor, not inheritable; closing it gives the lock back.

    Blocks up to `wait_s`, after one call of `waiting` with what the holder wrote of itself; then DirectoryBusy.
    """
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + wait_s
    told = False
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 200, 0).decode("ascii", "replace").strip() or "unknown"
            if time.monotonic() >= deadline:
                os.close(fd)
                raise DirectoryBusy(f"{directory} is in use by process {holder}") from None
            if not told:
                told = True
                waiting(holder)
            time.sleep(POLL_INTERVAL_S)
        else:
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            return fd
