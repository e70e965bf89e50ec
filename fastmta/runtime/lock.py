"""The lock on the data directory: one server, or one offline command, at a time.

It is an flock(2) that the supervisor alone holds, so a supervisor that is started after one was killed has it at once,
whatever the workers of the dead one are still finishing. Who walks the queue is another lock (supervisor/owning.py),
and who has the store open a third (store/guard.py).
"""

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fastmta.model.errors import FastMTAError

POLL_INTERVAL_S: Final = 0.02
STEADY_S: Final = 0.5  # for a holder that does not say that it is leaving
LEAVING: Final = "leaving"


class DirectoryBusy(FastMTAError):
    """Somebody else holds the data directory."""


def lock_directory(
    directory: Path, *, wait_s: float = 0.0, waiting: Callable[[str], None] = lambda holder: None
) -> int:
    """Takes the lock of `directory` and returns its descriptor, not inheritable; closing it gives the lock back.

    Where the holder is leaving it blocks up to `wait_s`, after one call of `waiting` with the holder's process; then,
    or soon where the holder means to stay, DirectoryBusy.
    """
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    started = time.monotonic()
    told = False
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            written = os.pread(fd, 200, 0).decode("ascii", "replace").split() or ["unknown"]
            leaves = LEAVING in written or not _lives(written[0])
            if time.monotonic() - started >= (wait_s if leaves else min(wait_s, STEADY_S)):
                os.close(fd)
                raise DirectoryBusy(f"{directory} is in use by fastmta pid {written[0]}") from None
            if not told and leaves:
                told = True
                waiting(written[0])
            time.sleep(POLL_INTERVAL_S)
        else:
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            return fd


def tell_leaving(fd: int) -> None:
    """Says to whoever waits for the lock that its holder is on its way out."""
    os.pwrite(fd, f"{os.getpid()} {LEAVING}\n".encode(), 0)


def _lives(pid: str) -> bool:
    return pid.isdigit() and Path(f"/proc/{pid}").exists()
