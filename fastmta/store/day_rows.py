"""What workers count for the reports that domains ask for, by day of UTC and domain (RFC 9990: DMARC, RFC 8460: TLS).

A worker adds up in memory what it has seen, and writes a record a domain and day once a minute: nothing is read and
nothing waits for it while mail comes and goes. What a power cut loses is a minute of counts. All is bounded: what is
beyond that is not counted.
"""

from collections.abc import Iterator
from typing import Final, Generic, TypeVar

import msgspec

from fastmta._store import TABLE_META
from fastmta.model.limits import REPORT_BATCHES, REPORT_DOMAINS, REPORT_ROWS
from fastmta.store.committing import Committer

PAGE: Final = 100
P = TypeVar("P")
R = TypeVar("R", bound=msgspec.Struct)
_encoder: Final = msgspec.msgpack.Encoder()


class DayRows(Generic[P, R]):
    """The rows of one kind of report; what `note` has taken is in the store after `flush`.

    P is what is known of a domain, and the last word on it counts; R is what is counted together.
    """

    def __init__(self, store: Committer, prefix: bytes, nothing: P, row: type[R]) -> None:
        """`nothing`: the P of a domain of which nothing is kept."""
        self._store = store
        self._prefix = prefix
        self._nothing = nothing
        # What one worker saw of one domain in a minute: (P, ((R, count), ...)).
        self._decoder = msgspec.msgpack.Decoder(tuple[type(nothing), tuple[tuple[row, int], ...]])  # type: ignore[misc, valid-type]
        self._seen: dict[tuple[str, str], tuple[P, dict[R, int]]] = {}

    def note(self, day: str, domain: str, published: P, row: R, count: int = 1) -> None:
        """Counts messages, or sessions. `day` is of UTC, as 20261127."""
        key = (day, domain)
        known = self._seen.get(key)
        if known is None:
            if len(self._seen) >= REPORT_DOMAINS or len(domain) > 253:
                return
            known = self._seen[key] = (published, {})
        rows = known[1]
        if row in rows or len(rows) < REPORT_ROWS:
            rows[row] = rows.get(row, 0) + count

    async def flush(self) -> None:
        """Writes what was counted since the last time."""
        seen, self._seen = self._seen, {}
        items = list(seen.items())
        for start in range(0, len(items), PAGE):
            unit = self._store.raw.new_unit()
            for (day, domain), (published, rows) in items[start : start + PAGE]:
                key = self._prefix + f"{day}\0{domain}\0{self._store.raw.new_id():016x}".encode()
                unit.put(TABLE_META, key, _encoder.encode((published, tuple(rows.items()))))
            await self._store.commit(unit)

    def pending(self) -> list[tuple[str, str]]:
        """(day, domain) of all that is kept, in order."""
        found: dict[tuple[str, str], None] = {}
        for key, _ in self._scan(self._prefix):
            _, day, domain, _ = key.decode().split("\0")
            found[day, domain] = None
        return list(found)

    def of(self, day: str, domain: str) -> tuple[P, dict[R, int], list[bytes]]:
        """What was known of the domain last, the counts, and the keys to `forget` them by."""
        counts: dict[R, int] = {}
        keys: list[bytes] = []
        published = self._nothing
        for key, value in self._scan(self._prefix + f"{day}\0{domain}\0".encode()):
            published, rows = self._decoder.decode(value)
            keys.append(key)
            for row, count in rows:
                if row in counts or len(counts) < REPORT_ROWS:
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
        for _ in range(REPORT_BATCHES // PAGE):
            page = self._store.raw.scan(TABLE_META, prefix, start, PAGE)
            yield from page
            if len(page) < PAGE:
                return
            start = page[-1][0] + b"\0"
