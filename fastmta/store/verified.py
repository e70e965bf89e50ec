"""What next hops have said of addresses that were asked about (address verification, as Postfix's verify(8) keeps it).

A cache: a row that is lost is asked for again. It is bounded; where it is full, nothing new is kept until the old is
forgotten.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec

from fastmta._store import TABLE_COUNTER, TABLE_META
from fastmta.model.limits import VERIFIED_ADDRESSES
from fastmta.store.committing import Committer

PREFIX: Final = b"verified\0"
_COUNTER: Final = b"verified"
_PAGE: Final = 500  # in one turn, under a millisecond


class Verified(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`status` is "ok", "deferred" or "bounced"; `enhanced` and `text` are of the answer; `at_ms` when it was given."""

    address: str
    status: str
    enhanced: str
    text: str
    at_ms: int


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Verified)


class VerifiedAddresses:
    """The rows of the whole store, at most VERIFIED_ADDRESSES. Addresses are in lower case."""

    def __init__(self, store: Committer) -> None:
        self._store = store

    def get(self, address: str) -> Verified | None:
        value = self._store.raw.get(TABLE_META, _key(address))
        row = _decoder.decode(value) if value is not None else None
        return row if row is not None and row.address == address else None

    async def put(self, row: Verified) -> None:
        """Keeps a row, in the place of the one of before; where there are too many, a new one is not kept."""
        unit = self._store.raw.new_unit()
        key = _key(row.address)
        if self._store.raw.get(TABLE_META, key) is None:
            if self.count >= VERIFIED_ADDRESSES:
                return
            unit.count(_COUNTER, 1, -1)
        unit.put(TABLE_META, key, _encoder.encode(row))
        await self._store.commit(unit)

    @property
    def count(self) -> int:
        value = self._store.raw.get(TABLE_COUNTER, _COUNTER)
        return int.from_bytes(value, "little", signed=True) if value is not None else 0

    async def forget_old(self, *, ok_before_ms: int, others_before_ms: int) -> int:
        """Deletes rows that nobody believes any more; how many."""
        return await self.forget(lambda row: row.at_ms < (ok_before_ms if row.status == "ok" else others_before_ms))

    async def pages(self) -> AsyncIterator[list[Verified]]:
        """All rows, in no order, some at a time; between two of them others have their turn."""
        start = b""
        while page := self._store.raw.scan(TABLE_META, PREFIX, start, _PAGE):
            yield [_decoder.decode(value) for _, value in page]
            start = page[-1][0] + b"\0"
            await asyncio.sleep(0)

    async def forget(self, chosen: Callable[[Verified], bool]) -> int:
        """Deletes the rows that are chosen; how many."""
        gone = 0
        async for page in self.pages():
            keys = [_key(row.address) for row in page if chosen(row)]
            if keys:
                await self._delete(keys)
                gone += len(keys)
        return gone

    async def forget_one(self, address: str) -> int:
        """Deletes the row of an address; how many: 0 or 1."""
        if self.get(address) is None:
            return 0
        await self._delete([_key(address)])
        return 1

    async def _delete(self, keys: list[bytes]) -> None:
        unit = self._store.raw.new_unit()
        for key in keys:
            unit.delete(TABLE_META, key)
        unit.count(_COUNTER, -len(keys), -1)
        await self._store.commit(unit)


def _key(address: str) -> bytes:
    """A key of one length, however long the address is."""
    return PREFIX + hashlib.blake2b(address.encode("utf-8", "surrogateescape"), digest_size=16).digest()
