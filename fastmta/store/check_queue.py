"""What the queue's records ask of its indexes and counts, gathered by `store check` and compared with what is there."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from fastmta._store import (
    TABLE_COUNTER,
    TABLE_META,
    TABLE_NAMES,
    TABLE_QUEUE_BY_AGE,
    TABLE_QUEUE_BY_DOMAIN,
    TABLE_QUEUE_BY_ERROR,
    TABLE_QUEUE_BY_SENDER,
    TABLE_QUEUE_BY_TENANT,
    TABLE_QUEUE_COUNT,
    Snapshot,
)
from fastmta.model.envelope import Envelope, RecipientState, RecipientTail, tenant_of
from fastmta.store.pages import PageSnapshot
from fastmta.store.queue_records import FRESH, HAS_ROWS, INDEXED, INDEXED_BY_TENANT, RECORD_COUNTED, RECORD_INDEXED
from fastmta.store.queue_walk import FINISHED_KEY, INDEXED_LEVEL, TENANT_LEVEL

_TEXT: Final = 400  # of a key, as _store cuts
_BY_RECIPIENT: Final = 1
_BY_SENDER: Final = 2
_BY_TENANT: Final = 3
_INDEXES: Final = (
    TABLE_QUEUE_BY_SENDER,
    TABLE_QUEUE_BY_DOMAIN,
    TABLE_QUEUE_BY_AGE,
    TABLE_QUEUE_BY_ERROR,
    TABLE_QUEUE_BY_TENANT,
)
_envelopes: Final = msgspec.msgpack.Decoder(Envelope)
_tails: Final = msgspec.msgpack.Decoder(RecipientTail)

Rows = Callable[[int], Iterator[tuple[bytes, bytes]]]


def _folded(text: bytes) -> bytes:
    return text[:_TEXT].lower() + b"\0"


def _domain(path: bytes) -> bytes:
    return _folded(path.rpartition(b"@")[2])


class QueueIndexes:
    """What should be there. An index is compared by the number of its rows and a sum of what they are."""

    def __init__(self, snapshot: Snapshot | PageSnapshot, found: Callable[[str], None]) -> None:
        self._snapshot = snapshot
        self._found = found
        finished = int(snapshot.get(TABLE_META, FINISHED_KEY) or b"0")
        self._is_whole = finished >= INDEXED_LEVEL
        self._has_tenants = finished >= TENANT_LEVEL
        self._rows: Counter[int] = Counter()
        self._sums: Counter[int] = Counter()
        self._counts: dict[bytes, list[int]] = defaultdict(lambda: [0, 0, 0])
        self._totals = [0, 0, 0, 0, 0]
        self._envelope: Envelope | None = None

    def message(self, queue_id: int, record: bytes, raw_envelope: bytes) -> None:
        """The recipients that follow are this message's."""
        try:
            self._envelope = _envelopes.decode(raw_envelope)
        except (ValueError, RecursionError):
            self._envelope = None
            self._found(f"the envelope of message {queue_id} in the queue cannot be decoded")
            return
        if record[RECORD_COUNTED]:
            self._totals[3] += 1
            self._totals[4] += self._envelope.size_bytes
        elif self._is_whole:
            self._found(f"message {queue_id} in the queue is not counted")

    def recipient(self, key: bytes, record: bytes, state: int, raw_tail: bytes, reply: bytes) -> None:
        """A recipient in one of the stored states."""
        self._totals[state - 1] += 1
        indexed = record[RECORD_INDEXED]
        name = f"recipient {int.from_bytes(key[:8], 'big')}/{int.from_bytes(key[8:], 'big')}"
        is_left = (self._is_whole and indexed < FRESH) or (self._has_tenants and indexed == INDEXED)
        if is_left or (indexed == FRESH and state == RecipientState.DEFERRED):
            self._found(f"{name} is not in the indexes")
        envelope = self._envelope
        if not indexed & HAS_ROWS or envelope is None:
            return
        try:
            tail = _tails.decode(raw_tail)
        except (ValueError, RecursionError):
            self._found(f"the address of {name} cannot be decoded")
            return
        path = tail.forward_path
        self._expect(TABLE_QUEUE_BY_SENDER, _folded(envelope.reverse_path) + key)
        self._expect(TABLE_QUEUE_BY_DOMAIN, _domain(path) + key)
        self._expect(TABLE_QUEUE_BY_AGE, envelope.received_at_ms.to_bytes(8, "big") + key)
        if indexed < INDEXED:
            return
        if reply:
            self._expect(TABLE_QUEUE_BY_ERROR, _folded(reply) + key)
        minute = (envelope.received_at_ms // 60_000).to_bytes(4, "big")
        for kind, address in ((_BY_RECIPIENT, path), (_BY_SENDER, envelope.reverse_path)):
            self._counts[bytes((kind,)) + _domain(address) + minute][state - 1] += 1
        tenant = tenant_of(envelope, tail).encode()
        if tenant and indexed == INDEXED_BY_TENANT:
            self._expect(TABLE_QUEUE_BY_TENANT, _folded(tenant) + key)
            self._counts[bytes((_BY_TENANT,)) + _folded(tenant) + minute][state - 1] += 1

    def compare(self, rows: Rows) -> None:
        """Tells where the store has something else."""
        for table in _INDEXES:
            count = total = 0
            for key, _ in rows(table):
                count += 1
                total += hash(key)
            if (count, total) != (self._rows[table], self._sums[table]):
                name = TABLE_NAMES[table]
                self._found(f"the index {name} differs: it has {count} rows, {self._rows[table]} are right")
        self._compare_totals()
        left = dict(self._counts)
        for key, value in rows(TABLE_QUEUE_COUNT):
            if key:
                kept = [int.from_bytes(value[at : at + 4], "little") for at in (4, 8, 12)]
                if kept != left.pop(key, None):
                    self._found(f"the counts of {_shown(key)} are {kept}, counted {self._counts.get(key)}")
        for key, counted in left.items():
            self._found(f"the counts of {_shown(key)} are not there, counted {counted}")

    def _compare_totals(self) -> None:
        record = self._snapshot.get(TABLE_QUEUE_COUNT, b"")
        names = ("active", "deferred", "held", "messages", "bytes")
        if record is not None:
            kept = [int.from_bytes(record[at : at + 8], "little", signed=True) for at in range(8, 48, 8)]
        else:
            counters = [self._snapshot.get(TABLE_COUNTER, name.encode()) for name in names[:3]]
            kept = [int.from_bytes(each or b"", "little", signed=True) for each in counters] + [0, 0]
        for name, number, counted in zip(names, kept, self._totals, strict=True):
            if number != counted:
                self._found(f"counter of {name} in the queue: the record says {number}, counted {counted}")

    def _expect(self, table: int, key: bytes) -> None:
        self._rows[table] += 1
        self._sums[table] += hash(key)


def _shown(key: bytes) -> str:
    what = {_BY_SENDER: "senders in", _BY_TENANT: "recipients of"}.get(key[0], "recipients in")
    return f"{what} {key[1:-5].decode(errors='replace')!r} of minute {int.from_bytes(key[-4:], 'big')}"
