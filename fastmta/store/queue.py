"""The durable queue: envelopes, recipients with their states, and the schedule by which owners find work.

The states and legal moves stand in fastmta/queue/README.md; the operation inside the transaction refuses any other.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from fastmta._store import (
    TABLE_COUNTER,
    TABLE_HOP_STATE,
    TABLE_QUEUE,
    TABLE_QUEUE_BY_AGE,
    TABLE_QUEUE_BY_DOMAIN,
    TABLE_QUEUE_BY_SENDER,
    active_rows,
    active_scan,
    blob_read,
    hop_due,
    hop_fields,
    hops_due,
    hops_next_due,
    queue_fields,
    queue_load,
    queue_load_many,
    recipient_fields,
    schedule_token,
)
from fastmta._unit import Blob
from fastmta.model.envelope import Envelope, RecipientState, RecipientTail
from fastmta.model.errors import Refused, StoreDamaged
from fastmta.store.accounts import id_key
from fastmta.store.committing import GUARDED_RUNS, Committer

_envelope_encoder: Final = msgspec.msgpack.Encoder()
_envelope_decoder: Final = msgspec.msgpack.Decoder(Envelope)
_tail_decoder: Final = msgspec.msgpack.Decoder(RecipientTail)
PAGE: Final = 1000
WAITING_LOOKED: Final = 1000  # held recipients that are passed over for the oldest that is not, about 2 ms
MOVED: Final = 200  # recipients of one unit: a few milliseconds of the committer
SCANNED: Final = 300  # rows that one page of `walk` looks at, however few of them fit: 3 ms
ACTIVE_LOOKED: Final = 2000  # of them where each is sought by its key, about 3 ms
ACTIVE_SCANNED: Final = 20_000  # and where they are read in their order, about as long
SEEK_COSTS: Final = 16  # rows in their order
DUE_SLACK_MS: Final = 60_000  # what has just come is due now, whatever the clocks of processes say


class QueuedMessage(msgspec.Struct, gc=False):
    """A message in the queue; `live` of its recipients are still owed a result."""

    queue_id: int
    blob_id: int
    live: int
    envelope: Envelope


class QueuedRecipient(msgspec.Struct, gc=False):
    """A recipient that is owed a result."""

    queue_id: int
    n: int
    hop: bytes
    lane: int
    state: int
    attempts: int
    due_ms: int
    last_reply: bytes
    tail: RecipientTail


class Outcome(msgspec.Struct, gc=False):
    """What became of a recipient: its move. `from_state` 0 stands for any state."""

    queue_id: int
    n: int
    from_state: int
    to_state: int
    attempts: int
    due_ms: int
    reply: bytes = b""


class Selection(msgspec.Struct, frozen=True, gc=False):
    """Which recipients `walk` gives; what is None does not select. `error`: what their last reply has in it.

    Letters of either case are the same, but for those of a hop.
    """

    state: int | None = None
    sender: bytes | None = None
    recipient: bytes | None = None
    domain: bytes | None = None
    received_before_ms: int | None = None
    hop: bytes | None = None
    error: bytes | None = None

    @property
    def in_domain(self) -> bytes | None:
        """The domain that all of them have."""
        return self.domain if self.domain is not None or self.recipient is None else self.recipient.rpartition(b"@")[2]

    @property
    def has_index(self) -> bool:
        """Whether an index finds those that were deferred or held."""
        return self.sender is not None or self.in_domain is not None or self.received_before_ms is not None


def _message(queue_id: int, fields: tuple[int, int, bytes]) -> QueuedMessage:
    return QueuedMessage(queue_id, fields[0], fields[1], _envelope_decoder.decode(fields[2]))


def _recipient(fields: tuple[int, int, bytes, int, int, int, int, bytes, bytes]) -> QueuedRecipient:
    return QueuedRecipient(*fields[:8], _tail_decoder.decode(fields[8]))


class Queue:
    """The queue of all workers."""

    def __init__(self, store: Committer) -> None:
        self._store = store
        self._raw = store.raw

    def new_id(self) -> int:
        """An identifier for a message that will be queued."""
        return self._raw.new_id()

    # --- reading ---

    def message(self, queue_id: int) -> QueuedMessage | None:
        """The message without its recipients, or None."""
        key = id_key(queue_id)
        value = self._raw.get(TABLE_QUEUE, key)
        return self._read_message(key, value) if value is not None else None

    def recipient(self, queue_id: int, n: int) -> QueuedRecipient | None:
        """One recipient, or None where it has left."""
        key = id_key(queue_id) + n.to_bytes(4, "big")
        value = self._raw.get(TABLE_QUEUE, key)
        return self._read_recipient(key, value) if value is not None else None

    def recipients(self, queue_id: int, numbers: Collection[int] | None = None) -> Sequence[QueuedRecipient]:
        """A message's recipients that are owed a result, in order of n; or those of these numbers, in their order."""
        loaded = queue_load(self._raw, queue_id, None if numbers is None else list(numbers))
        return [] if loaded is None else self._decoded(queue_id, loaded)[1]

    def due(self, hop: bytes, now_ms: int, limit: int, after: bytes = b"") -> list[tuple[int, int, int, int]]:
        """[(due_ms, lane, queue_id, n)] of a hop's recipients that are due, lanes in weighted turns, at most `limit`.

        `after` is a token of `position`: only what lies behind it in each lane.
        """
        return hop_due(self._raw, hop, now_ms, limit, after)

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

    def _read_message(self, key: bytes, value: bytes) -> QueuedMessage:
        try:
            return _message(int.from_bytes(key, "big"), queue_fields(value))
        except (ValueError, RecursionError) as error:
            raise self._raw.damaged("queue", key, "the record cannot be decoded") from error

    def _read_recipient(self, key: bytes, value: bytes) -> QueuedRecipient:
        queue_id, n = int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big")
        try:
            return _recipient(recipient_fields(queue_id, n, value))
        except (ValueError, RecursionError) as error:
            raise self._raw.damaged("queue", key, "the record cannot be decoded") from error

    def hops(self, partitions: Iterable[int], now_ms: int, limit: int = 10_000) -> list[tuple[int, bytes]]:
        """[(earliest due_ms, hop)] of the hops of these partitions that have work now, in order of due."""
        return hops_due(self._raw, partitions, now_ms, limit)

    def next_due(self, partitions: Iterable[int]) -> int | None:
        """When the earliest recipient of these partitions is due; None where there is none."""
        return hops_next_due(self._raw, partitions)

    def read(self, blob_id: int, offset: int, length: int) -> bytes | None:
        """Bytes of a queued message, a copy; b"" at the end, None where it is gone. At most 256 KB a call."""
        return blob_read(self._raw, blob_id, offset, length)

    def counts(self) -> dict[str, int]:
        """Recipients by state, of all workers; three reads."""
        out = {}
        for state in ("active", "deferred", "held"):
            value = self._raw.get(TABLE_COUNTER, state.encode())
            out[state] = int.from_bytes(value, "little", signed=True) if value is not None else 0
        return out

    def hop_counts(self) -> Iterator[tuple[bytes, int, int, int]]:
        """(hop, active, deferred, held) of every hop that has recipients, as the store keeps count of them."""
        start = b""
        while True:
            page = self._raw.scan(TABLE_HOP_STATE, b"", start, PAGE)
            for hop, record in page:
                active, deferred, held, _ = hop_fields(record)
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
        due is the time of its arrival, and that stands in the index of hops.
        """
        first = self._raw.scan(TABLE_QUEUE_BY_AGE, b"", b"", 1)
        by_age = int.from_bytes(first[0][0][:8], "big") if first else None
        due = self.next_due(range(256))
        return min((each for each in (by_age, due) if each is not None), default=None)

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
        return await self._move(queue_id, n, {RecipientState.ACTIVE, RecipientState.DEFERRED}, RecipientState.HELD)

    async def release(self, queue_id: int, n: int | Collection[int] | None = None, *, due_ms: int | None = None) -> int:
        """Lets held recipients be tried again, at once; how many that changed.

        `due_ms`, as in requeue and flush: when whoever wants many of them tried said so, by default now. A destination
        that has died since then has been tried for this wish (delivery/remote.py).
        """
        return await self._move(queue_id, n, {RecipientState.HELD}, RecipientState.ACTIVE, due_ms)

    async def requeue(self, queue_id: int, n: int | Collection[int] | None = None, *, due_ms: int | None = None) -> int:
        """Has deferred and held recipients tried at once; how many that changed."""
        waiting = {RecipientState.DEFERRED, RecipientState.HELD}
        return await self._move(queue_id, n, waiting, RecipientState.ACTIVE, due_ms)

    async def flush(self, queue_id: int, n: int | Collection[int] | None = None, *, due_ms: int | None = None) -> int:
        """Has deferred recipients tried at once, and leaves held ones; how many that changed."""
        return await self._move(queue_id, n, {RecipientState.DEFERRED}, RecipientState.ACTIVE, due_ms)

    async def delete(self, queue_id: int, n: int | Collection[int] | None = None) -> int:
        """Removes recipients without a DSN, and the message with its last one; how many that were."""
        every = {RecipientState.ACTIVE, RecipientState.DEFERRED, RecipientState.HELD}
        return await self._move(queue_id, n, every, RecipientState.BOUNCED)

    async def reroute(self, queue_id: int, n: int, hop: bytes, lane: int) -> None:
        """Gives a recipient another next hop, as after a change of routes."""
        unit = self._raw.new_unit()
        unit.reroute(queue_id, n, hop, lane)
        await self._store.commit(unit)

    async def _move(
        self,
        queue_id: int,
        n: int | Collection[int] | None,
        from_states: set[RecipientState],
        to_state: int,
        due_ms: int | None = None,
    ) -> int:
        """Moves the recipients of a message that are in one of the states, MOVED of them in one unit.

        `n` may be several of them, which cost what they are and not what the message has.
        """
        if n is None:
            numbers = [each.n for each in self.recipients(queue_id)]
        else:
            numbers = [n] if isinstance(n, int) else list(n)
        moved = 0
        for start in range(0, len(numbers), MOVED):
            moved += await self._move_these(queue_id, numbers[start : start + MOVED], from_states, to_state, due_ms)
        return moved

    async def _move_these(
        self, queue_id: int, numbers: list[int], from_states: set[RecipientState], to_state: int, due_ms: int | None
    ) -> int:
        """One unit; read anew where one of them moved meanwhile."""
        for run in range(GUARDED_RUNS):
            at_ms = int(self._store.clock.now() * 1000) if due_ms is None else due_ms
            unit = self._raw.new_unit()
            moved = 0
            for each in self.recipients(queue_id, numbers):
                if each.state in from_states:
                    unit.move_recipient(queue_id, each.n, each.state, to_state, each.attempts, at_ms, each.last_reply)
                    moved += 1
            if not moved:
                return 0
            try:
                await self._store.commit(unit)
            except Refused as refusal:
                if refusal.code not in ("state", "missing") or run == GUARDED_RUNS - 1:
                    raise
            else:
                return moved
        return 0

    # --- listing ---

    def walk(
        self, selection: Selection | None = None, after: bytes = b"", limit: int = 1000
    ) -> tuple[list[tuple[QueuedMessage, QueuedRecipient]], bytes]:
        """One page of the recipients that a selection gives, and the token of the next page (b"": that was the last).

        Deferred and held recipients are found through an index by sender, domain or age. Those that were never tried
        are in none: they are looked through by their hops, a bounded number a page, so a page may be empty while a
        token follows; they come first, so that whoever is tried meanwhile is met twice rather than never. Without any
        selection all of the queue is walked.
        """
        selection = selection if selection is not None else Selection()
        if selection.state == RecipientState.ACTIVE or (selection.state is None and selection.has_index):
            if after[:1] != b"i":
                page, position = self._walk_active(selection, after, limit)
                if position:
                    return page, position
                return page, b"" if selection.state == RecipientState.ACTIVE else b"i"
            page, position = self._walk_index(selection, after[1:], limit)
            return page, b"i" + position if position else b""
        if selection.state is None:
            return self._walk_queue(selection, after, limit)
        return self._walk_index(selection, after, limit)

    def _walk_active(
        self, selection: Selection, after: bytes, limit: int
    ) -> tuple[list[tuple[QueuedMessage, QueuedRecipient]], bytes]:
        """By their hops where few of the queue are active, else by reading all of it in its order."""
        domain, sender = selection.in_domain, selection.sender
        domain = domain.lower() if domain is not None else None
        sender = sender.lower() if sender is not None else None
        unindexed = selection.state is None
        if not after:
            counts = self.counts()
            if not counts["active"]:
                return [], b""
            chosen = domain is not None or sender is not None
            after = b"s" if chosen and counts["active"] * SEEK_COSTS > sum(counts.values()) else b"a"
        if after[:1] == b"s":
            pairs, following = active_scan(self._raw, after[1:], limit, ACTIVE_SCANNED, unindexed, domain, sender)
        else:
            due_ms = int(self._store.clock.now() * 1000) + DUE_SLACK_MS
            if selection.received_before_ms is not None and unindexed:
                due_ms = min(due_ms, selection.received_before_ms)  # who was never tried is due since he came
            pairs, following = active_rows(
                self._raw, after[1:], due_ms, limit, ACTIVE_LOOKED, unindexed, domain, sender
            )
        return self._selected(selection, pairs), after[:1] + following if following else b""

    def _walk_index(
        self, selection: Selection, after: bytes, limit: int
    ) -> tuple[list[tuple[QueuedMessage, QueuedRecipient]], bytes]:
        table, prefix, start = _index_of(selection)
        rows = self._raw.scan(table, prefix, max(start, after), limit + 1)
        rows = [(key, value) for key, value in rows if len(key) == len(prefix) + 12 or table == TABLE_QUEUE_BY_AGE]
        following = b""
        if len(rows) > limit:
            following = rows[limit][0]
            rows = rows[:limit]
        if table == TABLE_QUEUE_BY_AGE and selection.received_before_ms is not None:
            bound = id_key(selection.received_before_ms)
            kept = [row for row in rows if row[0] < bound]
            following = following if len(kept) == len(rows) else b""
            rows = kept
        pairs = [(int.from_bytes(key[-12:-4], "big"), int.from_bytes(key[-4:], "big")) for key, _ in rows]
        return self._selected(selection, pairs), following

    def _selected(
        self, selection: Selection, pairs: Iterable[tuple[int, int]]
    ) -> list[tuple[QueuedMessage, QueuedRecipient]]:
        out: list[tuple[QueuedMessage, QueuedRecipient]] = []
        for message, recipients in self.load(pairs):
            out += [(message, each) for each in recipients if selects(selection, message, each)]
        return out

    def _walk_queue(
        self, selection: Selection, after: bytes, limit: int
    ) -> tuple[list[tuple[QueuedMessage, QueuedRecipient]], bytes]:
        out: list[tuple[QueuedMessage, QueuedRecipient]] = []
        message: QueuedMessage | None = None
        scanned = 0
        while scanned < SCANNED:
            page = self._raw.scan(TABLE_QUEUE, b"", after, min(1000, SCANNED - scanned))
            if not page:
                return out, b""
            for key, value in page:
                if len(out) >= limit:
                    return out, key
                queue_id = int.from_bytes(key[:8], "big")
                if len(key) == 8:
                    message = self._read_message(key, value)
                    continue
                if message is None or message.queue_id != queue_id:
                    message = self.message(queue_id)
                    if message is None:
                        continue
                recipient = self._read_recipient(key, value)
                if selects(selection, message, recipient):
                    out.append((message, recipient))
            scanned += len(page)
            after = page[-1][0] + b"\0"
        return out, after


def _index_of(selection: Selection) -> tuple[int, bytes, bytes]:
    """(table, prefix, start) of the rows among which the selected ones are."""
    if selection.sender is not None:
        return TABLE_QUEUE_BY_SENDER, selection.sender.lower()[:400] + b"\0", b""
    domain = selection.in_domain
    if domain is not None:
        return TABLE_QUEUE_BY_DOMAIN, domain.lower()[:400] + b"\0", b""
    return TABLE_QUEUE_BY_AGE, b"", b""


def selects(selection: Selection, message: QueuedMessage, recipient: QueuedRecipient) -> bool:
    """Whether a selection means this recipient."""
    if selection.state is not None and recipient.state != selection.state:
        return False
    if selection.hop is not None and recipient.hop != selection.hop:
        return False
    if selection.sender is not None and message.envelope.reverse_path.lower() != selection.sender.lower():
        return False
    path = recipient.tail.forward_path.lower()
    if selection.recipient is not None and path != selection.recipient.lower():
        return False
    if selection.domain is not None and path.rpartition(b"@")[2] != selection.domain.lower():
        return False
    if selection.error is not None and selection.error.lower() not in recipient.last_reply.lower():
        return False
    bound = selection.received_before_ms
    return bound is None or message.envelope.received_at_ms < bound
