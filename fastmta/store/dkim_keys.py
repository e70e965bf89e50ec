"""Private keys that sign a domain's mail, kept in the store: one record a domain and selector."""

from typing import Final, Literal

import msgspec

from fastmta._store import TABLE_DKIM_KEY
from fastmta._unit import Unit
from fastmta.model.errors import Refused
from fastmta.store.committing import Committer, commit_guarded
from fastmta.store.record_keys import DIRECTORY_COUNTER

State = Literal["new", "active", "old"]
PAGE: Final = 1000


class DkimKey(msgspec.Struct, frozen=True, gc=False):
    """A key. `new`: published but not signing yet; `active`: signs; `old`: published for what is still on its way."""

    domain: str
    selector: str
    algorithm: str  # "rsa" or "ed25519"
    state: State
    pem: bytes  # PKCS#8 without a passphrase
    created_at_s: int
    changed_at_s: int  # when its state last changed


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(DkimKey)


def _key(domain: str, selector: str) -> bytes:
    return domain.encode() + b"\0" + selector.encode()


class DkimKeys:
    """The keys of all domains. Domains and selectors are A-labels in lower case."""

    def __init__(self, store: Committer) -> None:
        self._store = store

    def list(self, domain: str = "") -> list[DkimKey]:
        """Every key, or those of a domain, by domain and selector."""
        prefix = domain.encode() + b"\0" if domain else b""
        found = []
        start = b""
        while True:
            page = self._store.raw.scan(TABLE_DKIM_KEY, prefix, start, PAGE)
            found += [_decoder.decode(value) for _, value in page]
            if len(page) < PAGE:
                return found
            start = page[-1][0] + b"\0"

    def exist(self) -> bool:
        """Whether there is any key at all."""
        return bool(self._store.raw.scan(TABLE_DKIM_KEY, b"", b"", 1))

    def lookup(self, domain: str, selector: str) -> DkimKey | None:
        key = _key(domain, selector)
        value = self._store.raw.get(TABLE_DKIM_KEY, key) if len(key) <= 500 else None
        return _decoder.decode(value) if value is not None else None

    async def add(self, *keys: DkimKey) -> None:
        """Keeps new keys, all or none; Refused("exists") where a selector is taken."""
        unit = self._store.raw.new_unit()
        for key in keys:
            unit.put_new(TABLE_DKIM_KEY, _key(key.domain, key.selector), _encoder.encode(key))
        unit.count(DIRECTORY_COUNTER, 1, -1)
        await self._store.commit(unit)

    async def move(self, domain: str, moves: dict[str, State]) -> None:
        """Gives keys of a domain, by selector, another state, all at once; Refused("missing") where one is gone."""
        now = int(self._store.clock.now())

        def compose() -> Unit:
            unit = self._store.raw.new_unit()
            for selector, state in moves.items():
                value = self._store.raw.get(TABLE_DKIM_KEY, _key(domain, selector))
                if value is None:
                    raise Refused("missing", selector)
                changed = msgspec.structs.replace(_decoder.decode(value), state=state, changed_at_s=now)
                unit.guard(TABLE_DKIM_KEY, _key(domain, selector), value)
                unit.put(TABLE_DKIM_KEY, _key(domain, selector), _encoder.encode(changed))
            unit.count(DIRECTORY_COUNTER, 1, -1)
            return unit

        await commit_guarded(self._store, compose)

    async def delete(self, domain: str, selector: str) -> None:
        """Forgets a key; Refused("missing") where there is none."""

        def compose() -> Unit:
            value = self._store.raw.get(TABLE_DKIM_KEY, _key(domain, selector))
            if value is None:
                raise Refused("missing", selector)
            unit = self._store.raw.new_unit()
            unit.guard(TABLE_DKIM_KEY, _key(domain, selector), value)
            unit.delete(TABLE_DKIM_KEY, _key(domain, selector))
            unit.count(DIRECTORY_COUNTER, 1, -1)
            return unit

        await commit_guarded(self._store, compose)
