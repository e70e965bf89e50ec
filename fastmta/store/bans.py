"""Addresses and networks that nothing is heard from: banned by an administrator, or for their failures."""

from typing import Final

import msgspec

from fastmta.model.errors import Refused
from fastmta.model.limits import BANS
from fastmta.store.committing import Committer
from fastmta.store.kept_rows import PAGE, KeptRows

PREFIX: Final = b"ban\0"


class Ban(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`until_ms` and `since_ms` are wall-clock milliseconds; an `until_ms` of 0 is for ever. `by`: a user, or ""."""

    network: str
    since_ms: int
    until_ms: int
    reason: str
    by: str

    def is_over(self, now_ms: int) -> bool:
        return 0 < self.until_ms <= now_ms


class Bans(KeptRows[Ban]):
    """The bans of the whole store, at most BANS; those that are over stay until `forget_over`."""

    def __init__(self, store: Committer) -> None:
        super().__init__(store, Ban, PREFIX, b"bans")

    def get(self, network: str) -> Ban | None:
        return self._row(network.encode())

    async def add(self, network: str, until_ms: int, reason: str, by: str) -> Ban:
        """Bans a network, or changes its ban. Refused("limit") where there are BANS already."""
        if self.get(network) is None and len(self.all()) >= BANS:
            raise Refused("limit")
        ban = Ban(network, int(self._store.clock.now() * 1000), until_ms, reason, by)
        await self._put([(network.encode(), ban)])
        return ban

    async def add_many(self, bans: list[Ban]) -> int:
        """Keeps bans as they are, in one unit, as far as there is room for BANS; how many there was none for."""
        fresh = {ban.network: ban for ban in bans}
        room = BANS - self._count()
        kept = []
        for ban in fresh.values():
            is_new = self.get(ban.network) is None
            if is_new and room <= 0:
                continue
            room -= is_new
            kept.append((ban.network.encode(), ban))
        if kept:
            await self._put(kept)
        return len(fresh) - len(kept)

    async def remove(self, networks: list[str]) -> None:
        """Ends bans; one that is not there is no failure."""
        await self._drop(network.encode() for network in networks)

    async def forget_over(self) -> None:
        """Deletes those whose time is over."""
        now_ms = int(self._store.clock.now() * 1000)
        over = [ban.network for ban in self.all() if ban.is_over(now_ms)]
        if over:
            await self.remove(over[:PAGE])
