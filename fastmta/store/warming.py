"""Bytes that are not in memory are read by a thread, and never by the loop.

Whoever is about to read a piece of a message on the loop asks `need` first. It looks the pages up in the page cache,
which costs about a microsecond, and gives None where all of them are there; else an awaitable, during which a thread of
a few has the kernel read them. What goes from memory between that and the read costs one wait for the disk, as it would
without. Reads that take `hot` need no question: what they cannot have is `Cold`, whose places `bring` has read.
Commands and tests without a loop wait for the disk themselves.
"""

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from fastmta.model.limits import COLD_READERS

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

Place = tuple[int, int]  # offset in the file, length
_PIECE_BYTES: Final = 262_144
_AHEAD_BYTES: Final = 65_536  # read at least: what is wanted next mostly lies behind it
_FEW: Final = 8  # places; who names more knows what is wanted next
_ROUNDS: Final = 8  # of which each finds what the one before could not see: pages of the tree, then those behind them


class Warming:
    """The threads of one store, made when something is cold for the first time."""

    def __init__(self, path: str) -> None:
        self._path = os.path.join(path, "data.mdb")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._threads: ThreadPoolExecutor | None = None
        self.reads = 0  # places that were read so

    def attach(self, loop: "asyncio.AbstractEventLoop | None") -> None:
        """Whom waiting would hold; None: nobody."""
        self._loop = loop

    @property
    def is_idle(self) -> bool:
        """Whether nobody would be held by a wait for the disk."""
        return self._loop is None

    def need(self, cold: Callable[[], list[Place]]) -> Awaitable[None] | None:
        """None where `cold` gives no place; else to be awaited before what it is about is read."""
        if self._loop is None:
            return None
        places = cold()
        return self._brought(places, cold) if places else None

    async def bring(self, places: list[Place]) -> None:
        """Returns when these places are in memory."""
        if self._loop is None:
            return
        if self._threads is None:
            from concurrent.futures import ThreadPoolExecutor

            self._threads = ThreadPoolExecutor(COLD_READERS, "cold")
        self.reads += len(places)
        await self._loop.run_in_executor(self._threads, _read, self._path, places)

    async def _brought(self, places: list[Place], cold: Callable[[], list[Place]]) -> None:
        for _ in range(_ROUNDS):
            await self.bring(places)
            places = cold()
            if not places:
                return

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
            self._threads = None


def _read(path: str, places: list[Place]) -> None:
    """Has the kernel read places of a file; what it cannot read is said by whoever wants it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        for offset, length in places:
            os.posix_fadvise(fd, offset, length, os.POSIX_FADV_WILLNEED)  # all of them side by side
        least = _AHEAD_BYTES if len(places) <= _FEW else 0
        for offset, length in places:
            end = offset + max(length, least)
            for at in range(offset, end, _PIECE_BYTES):
                os.pread(fd, min(_PIECE_BYTES, end - at), at)
    except OSError:
        return
    finally:
        os.close(fd)
