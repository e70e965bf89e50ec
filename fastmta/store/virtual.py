"""A store with its records in memory whose commits happen at instants of a loop's clock, for simulations.

Operations, tables and reads are the store's own. Only the committer's signal is made: what is handed in lies for
`commit_s` and is carried out then, in its order and before anything else goes on, whatever the machine does meanwhile.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fastmta._store import Store
from fastmta._unit import Unit
from fastmta.runtime.clock import Clock
from fastmta.store.guard import hold_open
from fastmta.store.mailstore import MailStore, require_committed

COMMIT_S: Final = 0.002
_MAP_BYTES: Final = 1 << 34


class VirtualStore(MailStore):
    """Made by `made`, in a directory that nobody else uses; `close` forgets what it held."""

    def __init__(
        self, raw: Store, clock: Clock, guard: int, loop: asyncio.AbstractEventLoop, commit_s: float = COMMIT_S
    ) -> None:
        super().__init__(raw, clock, guard)
        self._virtual = loop
        self._commit_s = commit_s
        self._handed: list[tuple[Unit, Callable[[Unit], object] | None]] = []
        self._is_abandoned = False

    @classmethod
    def made(
        cls, directory: Path, loop: asyncio.AbstractEventLoop, clock: Clock, commit_s: float = COMMIT_S
    ) -> "VirtualStore":
        guard = hold_open(directory, create=True)
        raw = Store(str(directory), sync=False, map_size_bytes=_MAP_BYTES, trash_delay_ms=0, engine="memory")
        return cls(raw, clock, guard, loop, commit_s)

    def survivor(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> "VirtualStore":
        """The store as the process finds it that starts after this one was killed: what was not committed is lost."""
        assert self._guard is not None
        self._is_abandoned = True
        self._handed.clear()
        return VirtualStore(self.raw, clock, self._guard, loop, self._commit_s)

    def submit(self, unit: Unit, told: Callable[[Unit], object] | None, /) -> None:
        if self._is_abandoned:
            return
        self._handed.append((unit, told))
        if len(self._handed) == 1:
            self._virtual.call_later(self._commit_s, self._carry_out)

    def _carry_out(self) -> None:
        """Commits all that was handed in, in its order, and tells of it."""
        handed, self._handed = self._handed, []
        for unit, _ in handed:
            self.raw.commit_sync(unit)
        self.raw.dispatch()
        for unit, told in handed:
            if told is not None:
                told(unit)

    async def commit(self, unit: Unit) -> Unit:
        done: asyncio.Future[Unit] = asyncio.get_running_loop().create_future()
        self.submit(unit, done.set_result)
        return require_committed(await done)
