"""Aliases kept in the store, beside the map files: one address stands for several."""

from collections.abc import Collection, Iterable
from typing import Final

import msgspec

from fastmta._store import TABLE_ALIAS
from fastmta._unit import Unit
from fastmta.model.errors import Refused
from fastmta.store.accounts import canonical_address
from fastmta.store.committing import Committer, commit_guarded
from fastmta.store.record_keys import DIRECTORY_COUNTER

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(tuple[str, ...])
PAGE: Final = 1000


class Aliases:
    """The aliases of all domains."""

    def __init__(self, store: Committer) -> None:
        self._store = store

    def lookup(self, address: str) -> tuple[str, ...] | None:
        """What an address stands for, or None."""
        key = canonical_address(address).encode()
        if len(key) > 500:
            return None
        value = self._store.raw.get(TABLE_ALIAS, key)
        return self._decoded(key, value) if value is not None else None

    def _decoded(self, key: bytes, value: bytes) -> tuple[str, ...]:
        try:
            return _decoder.decode(value)
        except (ValueError, RecursionError) as error:
            raise self._store.raw.damaged("alias", key, "the record cannot be decoded") from error

    def page(self, after: bytes = b"", limit: int = PAGE) -> tuple[list[tuple[str, tuple[str, ...]]], bytes]:
        """Some aliases in order of address, and the token of the next page (b"": that was the last)."""
        rows = self._store.raw.scan(TABLE_ALIAS, b"", after, limit)
        found = [(key.decode(errors="replace"), self._decoded(key, value)) for key, value in rows]
        return found, rows[-1][0] + b"\0" if len(rows) == limit else b""

    def naming(self, target: str, after: bytes = b"", limit: int = PAGE) -> tuple[list[str], bytes]:
        """Those of a page (as `page` reads it) that have this target, and the token of the next page."""
        found, token = self.page(after, limit)
        return [name for name, targets in found if target in targets], token

    def list(self) -> list[tuple[str, tuple[str, ...]]]:
        """Every alias with its targets, in order of address."""
        out: list[tuple[str, tuple[str, ...]]] = []
        after = b""
        while True:
            page, after = self.page(after)
            out += page
            if not after:
                return out

    async def add(self, address: str, targets: tuple[str, ...]) -> None:
        """Makes an alias, or gives one that exists these targets instead."""
        if not targets:
            raise ValueError("an alias needs a target")
        unit = self._store.raw.new_unit()
        unit.put(TABLE_ALIAS, canonical_address(address).encode(), _encoder.encode(tuple(targets)))
        unit.count(DIRECTORY_COUNTER, 1, -1)
        await self._store.commit(unit)

    def retarget(self, unit: Unit, names: Iterable[str], old: str, new: str) -> None:
        """Adds to `unit` that these aliases name `new` where they name `old`, as they are now."""
        for name in names:
            key = name.encode()
            before = self._store.raw.get(TABLE_ALIAS, key)
            targets = self._decoded(key, before) if before is not None else ()
            if before is not None and old in targets:
                unit.guard(TABLE_ALIAS, key, before)
                unit.put(TABLE_ALIAS, key, self._retargeted(targets, old, new))

    async def retarget_some(self, names: Collection[str], old: str, new: str) -> None:
        """The same as a unit of its own."""

        def compose() -> Unit:
            unit = self._store.raw.new_unit()
            self.retarget(unit, names, old, new)
            unit.count(DIRECTORY_COUNTER, 1, -1)
            return unit

        await commit_guarded(self._store, compose)

    def stand_in(self, unit: Unit, old: str, new: str) -> None:
        """Adds to `unit` an alias that carries mail from `old` to `new` for a while, where `old` is none yet."""
        key = canonical_address(old).encode()
        if self._store.raw.get(TABLE_ALIAS, key) is None:
            unit.put_new(TABLE_ALIAS, key, _encoder.encode((new,)))

    def is_stand_in(self, old: str, new: str) -> bool:
        """Whether the alias `old` says no more than what `stand_in` makes."""
        return self.lookup(old) == (new,)

    @staticmethod
    def _retargeted(targets: tuple[str, ...], old: str, new: str) -> bytes:
        return _encoder.encode(tuple(dict.fromkeys(new if target == old else target for target in targets)))

    async def delete(self, address: str) -> None:
        """Removes an alias; Refused("missing") where there is none."""
        key = canonical_address(address).encode()

        def compose() -> Unit:
            value = self._store.raw.get(TABLE_ALIAS, key) if len(key) <= 500 else None
            if value is None:
                raise Refused("missing", address)
            unit = self._store.raw.new_unit()
            unit.guard(TABLE_ALIAS, key, value)
            unit.delete(TABLE_ALIAS, key)
            unit.count(DIRECTORY_COUNTER, 1, -1)
            return unit

        await commit_guarded(self._store, compose)
