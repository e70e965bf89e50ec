"""Hops that an administrator has suspended: their mail is queued and waits until he resumes them, over restarts too."""

from collections.abc import Iterable
from typing import Final

import msgspec

from fastmta.model.errors import Refused
from fastmta.model.limits import SUSPENDED_HOPS
from fastmta.store.committing import Committer
from fastmta.store.kept_rows import KeptRows

EVERY: Final = b"*"  # stands for every hop
PREFIX: Final = b"suspended\0"


class Suspension(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`name` is what was given: a domain, a hop, or "*" for all; `since_ms` is wall-clock milliseconds."""

    hop: bytes
    name: str
    since_ms: int
    by: str  # the user who said so


class ByHop(dict[bytes, Suspension]):
    """What is suspended, by hop; EVERY stands for all hops."""

    def of(self, hop: bytes) -> Suspension | None:
        """What keeps a hop from delivering."""
        return self.get(EVERY) or self.get(hop)


class Suspensions(KeptRows[Suspension]):
    """The suspended hops of the whole store, at most SUSPENDED_HOPS."""

    def __init__(self, store: Committer) -> None:
        super().__init__(store, Suspension, PREFIX, b"suspensions")

    def by_hop(self) -> ByHop:
        """The same by hop."""
        return ByHop((each.hop, each) for each in self.all())

    async def add(self, hops: Iterable[bytes], name: str, by: str) -> list[bytes]:
        """Suspends hops; those that were not yet. Refused("limit") where that would be more than SUSPENDED_HOPS."""
        now_ms = int(self._store.clock.now() * 1000)
        known = {each.hop for each in self.all()}
        added = [hop for hop in dict.fromkeys(hops) if hop not in known]
        if len(known) + len(added) > SUSPENDED_HOPS:
            raise Refused("limit")
        await self._put((hop, Suspension(hop, name, now_ms, by)) for hop in added)
        return added

    async def remove(self, hops: Iterable[bytes]) -> None:
        """Resumes hops; one that is not suspended is no failure."""
        await self._drop(hops)
