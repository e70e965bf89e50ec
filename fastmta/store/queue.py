"""The durable queue: envelopes, recipients with their states, and the schedule by which owners find work.

The states and legal moves stand in fastmta/queue/README.md; the operation inside the transaction refuses any other.
"""

import struct
from collections.abc import Awaitable, Collection, Iterable, Iterator, Sequence
from itertools import compress
from typing import Any, Final, Literal, NamedTuple

import msgspec

from fastmta._store import (
    COUNTS_BY_RECIPIENT,
    COUNTS_BY_SENDER,
    COUNTS_BY_TENANT,
    ROWS_FRESH,
    TABLE_HOP_STATE,
    TABLE_QUEUE,
    TABLE_QUEUE_BY_AGE,
    blob_read,
    cold_bytes,
    domain_counts,
    hop_due,
    hop_fields,
    hop_rows,
    hop_take,
    hops_due,
    hops_next_due,
    queue_counts,
    queue_fields,
    queue_load,
    queue_load_many,
    recipient_fields,
    schedule_token,
)
from fastmta._unit import Blob
from fastmta.model.envelope import Envelope, RecipientState, RecipientTail, tenant_of
from fastmta.model.errors import StoreDamaged
from fastmta.model.limits import UNINDEXED_MS
from fastmta.store.committing import Committer
from fastmta.store.queue_records import Movable, QueuedMessage, QueuedRecipient, Selection, selects
from fastmta.store.queue_walk import FAR_MS, QueueWalk
from fastmta.store.record_keys import id_key

__all__ = ["Movable", "Outcome", "Queue", "QueueTotals", "QueuedMessage", "QueuedRecipient", "Selection", "selects"]

_envelope_encoder: Final = msgspec.msgpack.Encoder()
_envelope_decoder: Final = msgspec.msgpack.Decoder(Envelope)
_tail_decoder: Final = msgspec.msgpack.Decoder(RecipientTail)
PAGE: Final = 1000
WAITING_LOOKED: Final = 1000  # held recipients that are passed over for the oldest that is not, about 2 ms
MOVED: Final = 200  # recipients of one unit: a few milliseconds of the committer
FRESH_LOOKED: Final = 12_000  # what one page of `fresh` may cost, about 3 ms
COUNTS_AT_ONCE: Final = 10_000  # about 2 ms
FRESH_AT_ONCE: Final = 200  # recipients that are loaded, about 2 ms
INDEXED_AT_ONCE: Final = 100  # recipients of one unit, each some ten rows


class QueueTotals(NamedTuple):
    """Kept counts of the whole queue. Those of messages are None in a store of the format before that is not empty."""

    active: int
    deferred: int
    held: int
    messages: int | None
    size_bytes: int | None


_place: Final = struct.Struct(">QI").pack
MoveName = Literal["hold", "release", "requeue", "flush", "delete"]
_WAITS: Final = frozenset({RecipientState.ACTIVE, RecipientState.DEFERRED})
MOVES: Final[dict[MoveName, tuple[frozenset[RecipientState], RecipientState]]] = {
    # what an administrator may do: from which states, to which; recipients in others stay as they are
    "hold": (_WAITS, RecipientState.HELD),
    "release": (frozenset({RecipientState.HELD}), RecipientState.ACTIVE),
    "requeue": (frozenset({RecipientState.DEFERRED, RecipientState.HELD}), RecipientState.ACTIVE),
    "flush": (frozenset({RecipientState.DEFERRED}), RecipientState.ACTIVE),
    "delete": (_WAITS | {RecipientState.HELD}, RecipientState.BOUNCED),
}


Key = tuple[int, int]  # queue_id, n
CountedBy = Literal["recipient", "sender", "tenant"]
_COUNTS: Final = {"recipient": COUNTS_BY_RECIPIENT, "sender": COUNTS_BY_SENDER, "tenant": COUNTS_BY_TENANT}


def counted_by(by: CountedBy, message: QueuedMessage, recipient: QueuedRecipient) -> bytes | None:
    """The domain, or the tenant, that a recipient counts for, in lower case; None: no tenant."""
    if by == "tenant":
        return tenant_of(message.envelope, recipient.tail).encode().lower() or None
    path = message.envelope.reverse_path if by == "sender" else recipient.tail.forward_path
    return path.lower().rpartition(b"@")[2]


class Outcome(msgspec.Struct, gc=False):
    """What became of a recipient: its move. `from_state` 0 stands for any state."""

    queue_id: int
    n: int
    from_state: int
    to_state: int
    attempts: int
    due_ms: int
    reply: bytes = b""


def _message(queue_id: int, fields: tuple[int, int, bytes]) -> QueuedMessage:
    return QueuedMessage(queue_id, fields[0], fields[1], _envelope_decoder.decode(fields[2]))


def _recipient(fields: tuple[int, int, bytes, int, int, int, int, bytes, bytes]) -> QueuedRecipient:
    return QueuedRecipient(*fields[:8], _tail_decoder.decode(fields[8]))


class Queue:
    """The queue of all workers."""

    def __init__(self, store: Committer) -> None:
        self._store = store
        self._raw = store.raw
        self._walk = QueueWalk(store, self)

    def new_id(self) -> int:
        """An identifier for a message that will be queued."""
        return self._raw.new_id()

    # --- reading ---

    def message(self, queue_id: int) -> QueuedMessage | None:
        """The message without its recipients, or None."""
        key = id_key(queue_id)
        value = self._raw.get(TABLE_QUEUE, key)
        return self.decode_message(key, value) if value is not None else None

    def recipient(self, queue_id: int, n: int) -> QueuedRecipient | None:
        """One recipient, or None where it has left."""
        key = id_key(queue_id) + n.to_bytes(4, "big")
        value = self._raw.get(TABLE_QUEUE, key)
        return self.decode_recipient(key, value) if value is not None else None

    def recipients(self, queue_id: int, numbers: Collection[int] | None = None) -> Sequence[QueuedRecipient]:
        """A message's recipients that are owed a result, in order of n; or those of these numbers, in their order."""
        loaded = queue_load(self._raw, queue_id, None if numbers is None else list(numbers))
        return [] if loaded is None else self._decoded(queue_id, loaded)[1]

    def due(self, hop: bytes, now_ms: int, limit: int, after: bytes = b"") -> list[tuple[int, int, int, int]]:
        """[(due_ms, lane, queue_id, n)] of a hop's recipients that are due, lanes in weighted turns, at most `limit`.

        `after` is a token of `position`: only what lies behind it in each lane.
        """
        return hop_due(self._raw, hop, now_ms, limit, after)

    def take(
        self, hop: bytes, now_ms: int, limit: int, in_flight: set[Key], withheld: dict[Key, float]
    ) -> tuple[int, list[tuple[QueuedMessage, list[QueuedRecipient]]], list[Key]]:
        """What of a hop is due and in neither collection, by message, from one moment.

        Gives how many rows `due` has, `limit` at most, and what `load_readable` gives of those.
        """
        try:
            found, wanted = hop_take(self._raw, hop, now_ms, limit, in_flight, withheld)
            return found, [self._decoded(queue_id, each) for queue_id, each in wanted if each and each[1]], []
        except StoreDamaged:
            rows = self.due(hop, now_ms, limit)
            keys = [(queue_id, n) for _, _, queue_id, n in rows]
            return len(rows), *self.load_readable([key for key in keys if key not in in_flight and key not in withheld])

    def position(self, rows: Iterable[tuple[int, int, int, int]], previous: bytes = b"") -> bytes:
        """The token for `due` behind these rows of it (and behind `previous`)."""
        return schedule_token(rows, previous)

    def load(self, pairs: Iterable[tuple[int, int]]) -> list[tuple[QueuedMessage, list[QueuedRecipient]]]:
        """The recipients (queue_id, n) by message, in the order in which each message comes first, from one moment."""
        wanted: dict[int, list[int]] = {}
        for queue_id, n in pairs:
            wanted.setdefault(queue_id, []).append(n)
        out = []
        for (queue_id, _), loaded in zip(wanted.items(), queue_load_many(self._raw, list(wanted.items())), strict=True):
            if loaded is not None and loaded[1]:
                out.append(self._decoded(queue_id, loaded))
        return out

    def load_readable(
        self, pairs: Iterable[tuple[int, int]]
    ) -> tuple[list[tuple[QueuedMessage, list[QueuedRecipient]]], list[tuple[int, int]]]:
        """As `load`, one by one where some cannot be read; and those, for whoever must not take them for gone."""
        try:
            return self.load(pairs), []
        except StoreDamaged:
            loaded, damaged = [], []
            for pair in pairs:
                try:
                    loaded += self.load([pair])
                except StoreDamaged:
                    damaged.append(pair)
            return loaded, damaged

    def _decoded(self, queue_id: int, loaded: Any) -> tuple[QueuedMessage, list[QueuedRecipient]]:
        try:
            return _message(queue_id, loaded[0]), [_recipient(fields) for fields in loaded[1]]
        except (ValueError, RecursionError) as error:
            raise self._raw.damaged("queue", id_key(queue_id), "the record cannot be decoded") from error

    def hops(self, partitions: Iterable[int], now_ms: int, limit: int = 10_000) -> list[tuple[int, bytes]]:
        """[(earliest due_ms, hop)] of the hops of these partitions that have work now, in order of due."""
        return hops_due(self._raw, partitions, now_ms, limit)

    def next_due(self, partitions: Iterable[int]) -> int | None:
        """When the earliest recipient of these partitions is due; None where there is none."""
        return hops_next_due(self._raw, partitions)

    def read(self, blob_id: int, offset: int, length: int, fresh: bool = False) -> bytes | None:
        """Bytes of a queued message, a copy; b"" at the end, None where it is gone. At most 256 KB a call.

        `fresh`: it came seconds ago, and what is in memory of it is what was written: no digest is made of it.
        """
        return blob_read(self._raw, blob_id, offset, length, False, fresh)

    def need(self, blob_id: int, offset: int, length: int) -> Awaitable[None] | None:
        """None where `read` of these bytes will not wait for the disk; else to be awaited before it."""
        return self._store.warming.need(lambda: cold_bytes(self._raw, 0, 0, blob_id, offset, length))

    def counts(self) -> dict[str, int]:
        """Recipients by state, of all workers; one read."""
        return dict(zip(("active", "deferred", "held"), queue_counts(self._raw)[:3], strict=True))

    def totals(self) -> QueueTotals:
        """The same, with messages and their bytes."""
        return QueueTotals(*queue_counts(self._raw))

    @property
    def has_tenants(self) -> bool:
        """Whether those by tenant are kept too."""
        return self._walk.has_tenants

    @property
    def has_counts(self) -> bool:
        """Whether all indexes and counts are kept, as they are once no record of an earlier format is left."""
        return self._walk.has_indexes

    def domain_counts(
        self, before_ms: Sequence[int] = (), *, by: "CountedBy" = "recipient"
    ) -> Iterator[dict[bytes, list[int]]]:
        """{domain, or tenant, in lower case: [counts]} of recipients, in pages to add up. None is of nobody.

        For each state in turn (active, deferred, held) stand as many numbers as `before_ms` has moments, falling, and
        one: who came (to a minute) before none of the moments, before the first, before the first two, and so on.
        """
        after, more = b"", True
        while more:
            counts, after = domain_counts(self._raw, _COUNTS[by], list(before_ms), after, COUNTS_AT_ONCE)
            more = bool(after)
            yield counts
        columns = len(before_ms) + 1
        more = True
        while more:
            pairs, after = self.fresh(after=after, limit=FRESH_AT_ONCE)
            more = bool(after)
            counts = {}
            for message, recipients in self.load(pairs):
                for each in recipients:
                    name = counted_by(by, message, each)
                    if name is None:
                        continue
                    row = counts.setdefault(name, [0] * 3 * columns)
                    column = sum(message.envelope.received_at_ms < moment for moment in before_ms)
                    row[(each.state - 1) * columns + column] += 1
            yield counts

    def fresh(
        self, partitions: bytes | None = None, before_ms: int = FAR_MS, after: bytes = b"", limit: int = PAGE
    ) -> tuple[list[tuple[int, int]], bytes]:
        """(queue_id, n) of recipients that are as they were accepted and in no index yet, due before a moment; a token.

        `partitions`: 256 octets, not 0 where a partition's hops are looked at. What is accepted and relayed at once
        never is in an index; what waits for some time is given to `index`.
        """
        now_ms = int(self._store.clock.now() * 1000)
        pivot_ms = int.from_bytes(after[:8], "big") if after else max(0, now_ms - 2 * UNINDEXED_MS)
        pairs, following = hop_rows(
            self._raw, ROWS_FRESH, None, partitions, pivot_ms, True, before_ms, after[8:], limit, FRESH_LOOKED
        )
        return pairs, pivot_ms.to_bytes(8, "big") + following if following else b""

    async def index(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Brings recipients into all indexes and counts; who is in them, or has gone, is no failure."""
        for start in range(0, len(pairs), INDEXED_AT_ONCE):
            unit = self._raw.new_unit()
            for queue_id, n in pairs[start : start + INDEXED_AT_ONCE]:
                unit.index_recipient(queue_id, n)
            await self._store.commit(unit)

    def hop_counts(self) -> Iterator[tuple[bytes, int, int, int]]:
        """(hop, active, deferred, held) of every hop that has recipients, as the store keeps count of them."""
        start = b""
        while True:
            page = self._raw.scan(TABLE_HOP_STATE, b"", start, PAGE)
            for hop, record in page:
                active, deferred, held, _, _ = hop_fields(record)
                if active or deferred or held:
                    yield hop, active, deferred, held
            if len(page) < PAGE:
                return
            start = page[-1][0] + b"\0"

    def oldest_waiting_ms(self) -> int | None:
        """As `oldest_ms`, without those held; behind WAITING_LOOKED of them, the arrival of the last of these."""
        counts = self.counts()
        if not counts["active"] and not counts["deferred"]:
            return None
        if not counts["held"]:
            return self.oldest_ms()
        by_age = None
        start = b""
        for _ in range(WAITING_LOOKED // 100):
            page = self._raw.scan(TABLE_QUEUE_BY_AGE, b"", start, 100)
            for key, _ in page:
                record = self._raw.get(TABLE_QUEUE, key[8:20])
                if record is not None and recipient_fields(0, 0, record)[4] != RecipientState.HELD:
                    by_age = int.from_bytes(key[:8], "big")
                    break
            if by_age is not None or len(page) < 100:
                break
            start = page[-1][0] + b"\0"
        else:
            by_age = int.from_bytes(start[:8], "big")
        due = self.next_due(range(256))
        return min((each for each in (by_age, due) if each is not None), default=None)

    def oldest_ms(self) -> int | None:
        """When the message of the longest waiting recipient was received; None with an empty queue.

        Exact for recipients that were deferred or held. One that was never tried is not in the index by age, but its
        due is the time of its arrival, and that stands in the index of hops, or at its hop where it is held.
        """
        first = self._raw.scan(TABLE_QUEUE_BY_AGE, b"", b"", 1)
        by_age = int.from_bytes(first[0][0][:8], "big") if first else None
        due = self.next_due(range(256))
        held = self._fresh_held_ms() if self.counts()["held"] else None
        return min((each for each in (by_age, due, held) if each is not None), default=None)

    def _fresh_held_ms(self) -> int | None:
        """When the oldest was received of those that were accepted to be held a moment ago, of one page."""
        loaded = self.load(self.fresh()[0])
        held = [m.envelope.received_at_ms for m, rows in loaded for r in rows if r.state == RecipientState.HELD]
        return min(held, default=None)

    def decode_message(self, key: bytes, value: bytes) -> QueuedMessage:
        """The message of a row; StoreDamaged where it makes no sense."""
        try:
            return _message(int.from_bytes(key, "big"), queue_fields(value))
        except (ValueError, RecursionError) as error:
            raise self._raw.damaged("queue", key, "the record cannot be decoded") from error

    def decode_recipient(self, key: bytes, value: bytes) -> QueuedRecipient:
        """The recipient of a row; StoreDamaged where it makes no sense."""
        queue_id, n = int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big")
        try:
            return _recipient(recipient_fields(queue_id, n, value))
        except (ValueError, RecursionError) as error:
            raise self._raw.damaged("queue", key, "the record cannot be decoded") from error

    # --- writing ---

    async def add(
        self,
        envelope: Envelope,
        recipients: Sequence[tuple[bytes, int, int, int, RecipientTail]],
        blob: Blob,
    ) -> int:
        """Queues a message for [(hop, lane, state, due_ms, tail)]; its queue id."""
        queue_id = self._raw.new_id()
        unit = self._raw.new_unit()
        unit.blob(blob)
        unit.enqueue(queue_id, blob.blob_id, _envelope_encoder.encode(envelope))
        for n, (hop, lane, state, due_ms, tail) in enumerate(recipients):
            unit.recipient(queue_id, n, hop, lane, state, due_ms, _envelope_encoder.encode(tail))
        await self._store.commit(unit)
        return queue_id

    async def finish(
        self,
        outcomes: Iterable[Outcome],
        dsn: tuple[Envelope, Sequence[tuple[bytes, int, int, int, RecipientTail]], Blob] | None = None,
    ) -> int | None:
        """Records outcomes, and queues the DSN that they owe, in one unit; the DSN's queue id."""
        unit = self._raw.new_unit()
        for each in outcomes:
            unit.move_recipient(
                each.queue_id, each.n, each.from_state, each.to_state, each.attempts, each.due_ms, each.reply
            )
        queue_id = None
        if dsn is not None:
            envelope, recipients, blob = dsn
            queue_id = self._raw.new_id()
            unit.blob(blob)
            unit.enqueue(queue_id, blob.blob_id, _envelope_encoder.encode(envelope))
            for n, (hop, lane, state, due_ms, tail) in enumerate(recipients):
                unit.recipient(queue_id, n, hop, lane, state, due_ms, _envelope_encoder.encode(tail))
        await self._store.commit(unit)
        return queue_id

    async def hold(self, queue_id: int, n: int | Collection[int] | None = None) -> int:
        """Stops trying these recipients until they are released; how many that changed."""
        return await self._move(queue_id, n, "hold")

    async def release(self, queue_id: int, n: int | Collection[int] | None = None, *, due_ms: int | None = None) -> int:
        """Lets held recipients be tried again, at once; how many that changed.

        `due_ms`, as in requeue and flush: when whoever wants many of them tried said so, by default now. A destination
        that has died since then has been tried for this wish (delivery/remote.py).
        """
        return await self._move(queue_id, n, "release", due_ms)

    async def requeue(self, queue_id: int, n: int | Collection[int] | None = None, *, due_ms: int | None = None) -> int:
        """Has deferred and held recipients tried at once; how many that changed."""
        return await self._move(queue_id, n, "requeue", due_ms)

    async def flush(self, queue_id: int, n: int | Collection[int] | None = None, *, due_ms: int | None = None) -> int:
        """Has deferred recipients tried at once, and leaves held ones; how many that changed."""
        return await self._move(queue_id, n, "flush", due_ms)

    async def delete(self, queue_id: int, n: int | Collection[int] | None = None) -> int:
        """Removes recipients without a DSN, and the message with its last one; how many that were."""
        return await self._move(queue_id, n, "delete")

    async def reroute(self, queue_id: int, n: int, hop: bytes, lane: int) -> None:
        """Gives a recipient another next hop, as after a change of routes."""
        unit = self._raw.new_unit()
        unit.reroute(queue_id, n, hop, lane)
        await self._store.commit(unit)

    async def _move(
        self, queue_id: int, n: int | Collection[int] | None, move: MoveName, due_ms: int | None = None
    ) -> int:
        """`n` may be several recipients, which cost what they are and not what the message has."""
        if n is None:
            numbers = [each.n for each in self.recipients(queue_id)]
        else:
            numbers = [n] if isinstance(n, int) else list(n)
        return len(await self.move(move, [(queue_id, number) for number in numbers], due_ms))

    async def move(
        self, move: MoveName, pairs: Sequence[tuple[int, int]], due_ms: int | None = None
    ) -> list[tuple[int, int]]:
        """Moves those of the recipients (queue_id, n) that are in one of its states; those that moved. MOVED of them go
        in one unit, whatever messages they belong to. `due_ms` as in `release`.
        """
        from_states, to_state = MOVES[move]
        states = sum(1 << state for state in from_states)
        at_ms = int(self._store.clock.now() * 1000) if due_ms is None else due_ms
        moved: list[tuple[int, int]] = []
        for start in range(0, len(pairs), MOVED):
            some = pairs[start : start + MOVED]
            unit = self._raw.new_unit()
            unit.move_each(b"".join([_place(queue_id, n) for queue_id, n in some]), states, at_ms, to_state)
            await self._store.commit(unit)
            moved += compress(some, unit.results[0])
        return moved

    # --- listing ---

    def walk(
        self, selection: Selection | None = None, after: bytes = b"", limit: int = PAGE
    ) -> tuple[list[tuple[QueuedMessage, QueuedRecipient]], bytes]:
        """One page of the recipients that a selection gives, and the token of the next page (b"": that was the last).

        A bounded number of rows is looked at, so a page may be empty while a token follows. Without any selection all
        of the queue is walked, in its order. Who is tried or moved meanwhile is met twice rather than never.
        """
        return self._walk.page(selection if selection is not None else Selection(), after, limit)

    def movable(
        self, move: MoveName, selection: Selection, after: bytes = b"", limit: int = PAGE
    ) -> tuple[list[Movable], bytes]:
        """As `walk`, of those that are in one of the move's states, with no more than a move needs to know of each."""
        return self._walk.movable(selection, MOVES[move][0], after, limit)
