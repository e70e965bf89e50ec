"""Addresses and networks that nothing is heard from: banned by an administrator, or for their failures."""

from typing import Final

import msgspec

from fastmta._store import TABLE_COUNTER, TABLE_META
from fastmta.model.errors import Refused
from fastmta.model.limits import BANS
from fastmta.store.committing import Committer

PREFIX: Final = b"ban\0"
_COUNTER: Final = b"bans"
PAGE: Final = 1000


class Ban(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`until_ms` and `since_ms` are wall-clock milliseconds; an `until_ms` of 0 is for ever. `by`: a user, or ""."""

    network: str
    since_ms: int
    until_ms: int
    reason: str
    by: str

    def is_over(self, now_ms: int) -> bool:
        return 0 < self.until_ms <= now_ms


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Ban)


class Bans:
    """The bans of the whole store; those that are over stay until `forget_over`."""

    def __init__(self, store: Committer) -> None:
        self._store = store

    @property
    def version(self) -> int:
        """Changes with every change, by any process."""
        value = self._store.raw.get(TABLE_COUNTER, _COUNTER)
        return int.from_bytes(value, "little", signed=True) if value is not None else 0

    def all(self) -> list[Ban]:
        """All of them, in the order of their networks' text; at most BANS."""
        found: list[Ban] = []
        start = b""
        while True:
            page = self._store.raw.scan(TABLE_META, PREFIX, start, PAGE)
            found += [_decoder.decode(value) for _, value in page]
            if len(page) < PAGE:
                return found
            start = page[-1][0] + b"\0"

    def get(self, network: str) -> Ban | None:
        value = self._store.raw.get(TABLE_META, PREFIX + network.encode())
        return _decoder.decode(value) if value is not None else None

    async def add(self, network: str, until_ms: int, reason: str, by: str) -> Ban:
        """Bans a network, or changes its ban. Refused("limit") where there are BANS already."""
        if self.get(network) is None and len(self.all()) >= BANS:
            raise Refused("limit")
        ban = Ban(network, int(self._store.clock.now() * 1000), until_ms, reason, by)
        unit = self._store.raw.new_unit()
        unit.put(TABLE_META, PREFIX + network.encode(), _encoder.encode(ban))
        unit.count(_COUNTER, 1, -1)
        await self._store.commit(unit)
        return ban

    async def remove(self, networks: list[str]) -> None:
        """Ends bans; one that is not there is no failure."""
        unit = self._store.raw.new_unit()
        for network in networks:
            unit.delete(TABLE_META, PREFIX + network.encode())
        unit.count(_COUNTER, 1, -1)
        await self._store.commit(unit)

    async def forget_over(self) -> None:
        """Deletes those whose time is over."""
        now_ms = int(self._store.clock.now() * 1000)
        over = [ban.network for ban in self.all() if ban.is_over(now_ms)]
        if over:
            await self.remove(over[:PAGE])
