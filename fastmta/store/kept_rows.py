"""Rows that administrators make in the store's `meta` table: each kind has a prefix, and a counter of its changes."""

from collections.abc import Iterable, Iterator
from typing import Final, Generic, TypeVar

import msgspec

from fastmta._store import TABLE_COUNTER, TABLE_META
from fastmta._unit import Unit
from fastmta.store.committing import Committer

R = TypeVar("R", bound=msgspec.Struct)
PAGE: Final = 1000
_encoder: Final = msgspec.msgpack.Encoder()


class KeptRows(Generic[R]):
    """The rows of one kind. They are few: `all` reads them in one go."""

    def __init__(self, store: Committer, kind: type[R], prefix: bytes, counter: bytes) -> None:
        self._store = store
        self._prefix = prefix
        self._counter = counter
        self._decoder = msgspec.msgpack.Decoder(kind)

    @property
    def version(self) -> int:
        """Changes with every change, by any process."""
        value = self._store.raw.get(TABLE_COUNTER, self._counter)
        return int.from_bytes(value, "little", signed=True) if value is not None else 0

    def all(self) -> list[R]:
        """All of them, in the order of their keys."""
        return [row for page in self.pages() for row in page]

    def pages(self, rows: int = PAGE) -> Iterator[list[R]]:
        """All of them, so many at a time; between two of them others may write."""
        return ([self._decoder.decode(value) for _, value in page] for page in self._raw_pages(rows))

    def _raw_pages(self, rows: int) -> Iterator[list[tuple[bytes, bytes]]]:
        start = b""
        while True:
            page = self._store.raw.scan(TABLE_META, self._prefix, start, rows)
            yield page
            if len(page) < rows:
                return
            start = page[-1][0] + b"\0"

    def _count(self) -> int:
        return sum(map(len, self._raw_pages(PAGE)))

    def _row(self, key: bytes) -> R | None:
        value = self._store.raw.get(TABLE_META, self._prefix + key)
        return self._decoder.decode(value) if value is not None else None

    async def _put(self, rows: Iterable[tuple[bytes, R]]) -> None:
        unit = self._changing()
        for key, row in rows:
            unit.put(TABLE_META, self._prefix + key, _encoder.encode(row))
        await self._store.commit(unit)

    async def _drop(self, keys: Iterable[bytes]) -> None:
        """Deletes rows; one that is not there is no failure."""
        unit = self._changing()
        for key in keys:
            unit.delete(TABLE_META, self._prefix + key)
        await self._store.commit(unit)

    def _changing(self) -> Unit:
        unit = self._store.raw.new_unit()
        unit.count(self._counter, 1, -1)
        return unit
