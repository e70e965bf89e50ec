"""How long work on the whole store (backup, check, export) rests, so that the server beside it hardly notices."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

WORK_S: Final = 0.005  # of work between two rests
RESTS: Final = 3  # so many times as long as the work, while others commit
BUSY_S: Final = 1.0  # for so long somebody who has committed is taken to go on
REST_S: Final = 0.25  # the longest rest


class Pace:
    """Asked between two pieces of work. Every commit of any process changes the file's time: that is how it knows."""

    def __init__(
        self,
        path: str | Path,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`path`: the store's directory."""
        self._file = os.path.join(path, "data.mdb")
        self._clock = clock
        self._sleep = sleep
        self._since = clock()
        self._written = self._last_write()
        self._busy_until = float("-inf")

    def rest(self) -> None:
        """Waits a while, if there is somebody to wait for and enough has been done since the last time."""
        now = self._clock()
        worked = now - self._since
        if worked < WORK_S:
            return
        written = self._last_write()
        if written != self._written:
            self._written = written
            self._busy_until = now + BUSY_S
        if now < self._busy_until:
            self._sleep(min(worked * RESTS, REST_S))
        self._since = self._clock()

    def _last_write(self) -> int:
        try:
            return os.stat(self._file).st_mtime_ns
        except OSError:
            return 0


async def others_turn() -> None:
    """Lets the loop's other tasks have their turn. Commands that only read a store do not load asyncio."""
    import asyncio

    await asyncio.sleep(0)
