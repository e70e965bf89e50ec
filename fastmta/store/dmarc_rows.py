"""What strangers' mail came to under DMARC, collected for the aggregate reports that its domains ask for (RFC 9990).

A worker adds up in memory what it has seen, and writes a record a domain and day once a minute: nothing is read and
nothing waits for it while mail comes. What a power cut loses is a minute of counts. All is bounded: what is
beyond that is not counted.
"""

from collections.abc import Iterator
from typing import Final

import msgspec

from fastmta._store import TABLE_META
from fastmta.model.limits import DMARC_BATCHES, DMARC_DOMAINS, DMARC_ROWS
from fastmta.store.committing import Committer

PREFIX: Final = b"dmarc\0"
PAGE: Final = 100


class Published(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The policy that was found."""

    p: str
    sp: str
    np: str
    adkim: str
    aspf: str
    testing: str


class Row(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What is counted together: results are (domain, selector, result) and (domain, scope, result)."""

    source_ip: str
    disposition: str
    dkim: str
    spf: str
    header_from: str
    envelope_from: str
    dkim_auth: tuple[tuple[str, str, str], ...]
    spf_auth: tuple[tuple[str, str, str], ...]
    reasons: tuple[tuple[str, str], ...]


class Batch(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one worker saw of one domain in a minute."""

    published: Published
    rows: tuple[tuple[Row, int], ...]


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Batch)


class DmarcRows:
    """The rows of all domains; what `note` has taken is in the store after `flush`."""

    def __init__(self, store: Committer) -> None:
        self._store = store
        self._seen: dict[tuple[str, str], tuple[Published, dict[Row, int]]] = {}

    def note(self, day: str, domain: str, published: Published, row: Row) -> None:
        """Counts one message. `day` is of UTC, as 20261127."""
        key = (day, domain)
        known = self._seen.get(key)
        if known is None:
            if len(self._seen) >= DMARC_DOMAINS or len(domain) > 253:
                return
            known = self._seen[key] = (published, {})
        rows = known[1]
        if row in rows or len(rows) < DMARC_ROWS:
            rows[row] = rows.get(row, 0) + 1

    async def flush(self) -> None:
        """Writes what was counted since the last time."""
        seen, self._seen = self._seen, {}
        items = list(seen.items())
        for start in range(0, len(items), PAGE):
            unit = self._store.raw.new_unit()
            for (day, domain), (published, rows) in items[start : start + PAGE]:
                key = PREFIX + f"{day}\0{domain}\0{self._store.raw.new_id():016x}".encode()
                unit.put(TABLE_META, key, _encoder.encode(Batch(published, tuple(rows.items()))))
            await self._store.commit(unit)

    def pending(self) -> list[tuple[str, str]]:
        """(day, domain) of all that is kept, in order."""
        found: dict[tuple[str, str], None] = {}
        for key, _ in self._scan(PREFIX):
            _, day, domain, _ = key.decode().split("\0")
            found[day, domain] = None
        return list(found)

    def of(self, day: str, domain: str) -> tuple[Published, dict[Row, int], list[bytes]]:
        """The policy that was found last, the counts, and the keys to `forget` them by."""
        counts: dict[Row, int] = {}
        keys: list[bytes] = []
        published = Published("", "", "", "", "", "")
        for key, value in self._scan(PREFIX + f"{day}\0{domain}\0".encode()):
            batch = _decoder.decode(value)
            published = batch.published
            keys.append(key)
            for row, count in batch.rows:
                if row in counts or len(counts) < DMARC_ROWS:
                    counts[row] = counts.get(row, 0) + count
        return published, counts, keys

    async def forget(self, keys: list[bytes]) -> None:
        for start in range(0, len(keys), PAGE):
            unit = self._store.raw.new_unit()
            for key in keys[start : start + PAGE]:
                unit.delete(TABLE_META, key)
            await self._store.commit(unit)

    def _scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        start = b""
        for _ in range(DMARC_BATCHES // PAGE):
            page = self._store.raw.scan(TABLE_META, prefix, start, PAGE)
            yield from page
            if len(page) < PAGE:
                return
            start = page[-1][0] + b"\0"
