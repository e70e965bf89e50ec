"""Hops that an administrator has suspended: their mail is queued and waits until he resumes them, over restarts too."""

from collections.abc import Iterable
from typing import Final

import msgspec

from fastmta._store import TABLE_COUNTER, TABLE_META
from fastmta.model.errors import Refused
from fastmta.model.limits import SUSPENDED_HOPS
from fastmta.store.committing import Committer

EVERY: Final = b"*"  # stands for every hop
PREFIX: Final = b"suspended\0"
_COUNTER: Final = b"suspensions"
PAGE: Final = 1000


class Suspension(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`name` is what was given: a domain, a hop, or "*" for all; `since_ms` is wall-clock milliseconds."""

    hop: bytes
    name: str
    since_ms: int
    by: str  # the user who said so


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Suspension)


class ByHop(dict[bytes, Suspension]):
    """What is suspended, by hop; EVERY stands for all hops."""

    def of(self, hop: bytes) -> Suspension | None:
        """What keeps a hop from delivering."""
        return self.get(EVERY) or self.get(hop)


class Suspensions:
    """The suspended hops of the whole store."""

    def __init__(self, store: Committer) -> None:
        self._store = store

    @property
    def version(self) -> int:
        """Changes with every change, by any process."""
        value = self._store.raw.get(TABLE_COUNTER, _COUNTER)
        return int.from_bytes(value, "little", signed=True) if value is not None else 0

    def all(self) -> list[Suspension]:
        """All of them, in the order of their hops; at most SUSPENDED_HOPS."""
        found: list[Suspension] = []
        start = b""
        while True:
            page = self._store.raw.scan(TABLE_META, PREFIX, start, PAGE)
            found += [_decoder.decode(value) for _, value in page]
            if len(page) < PAGE:
                return found
            start = page[-1][0] + b"\0"

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
        unit = self._store.raw.new_unit()
        for hop in added:
            unit.put(TABLE_META, PREFIX + hop, _encoder.encode(Suspension(hop, name, now_ms, by)))
        unit.count(_COUNTER, 1, -1)
        await self._store.commit(unit)
        return added

    async def remove(self, hops: Iterable[bytes]) -> None:
        """Resumes hops; one that is not suspended is no failure."""
        unit = self._store.raw.new_unit()
        for hop in hops:
            unit.delete(TABLE_META, PREFIX + hop)
        unit.count(_COUNTER, 1, -1)
        await self._store.commit(unit)
