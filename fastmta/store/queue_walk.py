"""Which index finds the recipients that a selection means, and its pages.

What was deferred or held, or has waited for a while, has rows by sender, by domain, by age and by last reply; the
schedule has everyone by hop, those held too. What came just now is in the schedule alone, and its hop keeps count
of it (`fresh`). A store of the format before lacks some of that: there the active are found by one pass (adr/0056),
and others by the indexes that it has.
"""

import struct
from collections.abc import Callable, Iterable
from typing import Final, Protocol, TypeVar

from fastmta._store import (
    ROWS_ANYONE,
    ROWS_FRESH,
    TABLE_META,
    TABLE_QUEUE,
    TABLE_QUEUE_BY_AGE,
    TABLE_QUEUE_BY_DOMAIN,
    TABLE_QUEUE_BY_SENDER,
    TABLE_QUEUE_BY_TENANT,
    active_rows,
    active_scan,
    error_rows,
    hop_rows,
    queue_movable,
)
from fastmta.model.envelope import RecipientState
from fastmta.model.limits import UNINDEXED_MS
from fastmta.store.committing import Committer
from fastmta.store.queue_records import Movable, QueuedMessage, QueuedRecipient, Selection, selects
from fastmta.store.record_keys import id_key

SCANNED: Final = 300  # rows that one page looks at, however few of them fit: 3 ms
ACTIVE_LOOKED: Final = 2000  # of them where each is sought by its key, about 3 ms
ACTIVE_SCANNED: Final = 20_000  # and where they are read in their order, about as long
SEEK_COSTS: Final = 16  # rows in their order
LOOKED: Final = 12_000  # what a page by hops or by replies may cost, about 3 ms
DUE_SLACK_MS: Final = 60_000  # what has just come is due now, whatever the clocks of processes say
FAR_MS: Final = 2**62
INDEXED_LEVEL: Final = 3
TENANT_LEVEL: Final = 4
FINISHED_KEY: Final = b"finished"
NAME_KEPT: Final = 400  # of an address or a domain in its index
_BY_HOP: Final = frozenset({"hop", "sender", "domain"})  # what a walk over hops looks at by itself
_place: Final = struct.Struct(">QI")

Rows = list[tuple[QueuedMessage, QueuedRecipient]]
Pairs = list[tuple[int, int]]
R = TypeVar("R")


class Loads(Protocol):
    """What a walk needs of the queue."""

    def message(self, queue_id: int) -> QueuedMessage | None: ...

    def load(self, pairs: Iterable[tuple[int, int]]) -> list[tuple[QueuedMessage, list[QueuedRecipient]]]: ...

    def counts(self) -> dict[str, int]: ...

    def decode_message(self, key: bytes, value: bytes) -> QueuedMessage: ...

    def decode_recipient(self, key: bytes, value: bytes) -> QueuedRecipient: ...


class QueueWalk:
    """Walks of one queue. The first octet of a token says which index the page after it is of."""

    def __init__(self, store: Committer, queue: Loads) -> None:
        self._raw = store.raw
        self._store = store
        self._queue = queue

    @property
    def has_indexes(self) -> bool:
        return self._finished >= INDEXED_LEVEL

    @property
    def has_tenants(self) -> bool:
        return self._finished >= TENANT_LEVEL

    @property
    def _finished(self) -> int:
        """The level that no record is older than."""
        return int(self._raw.get(TABLE_META, FINISHED_KEY) or b"0")

    def page(self, selection: Selection, after: bytes, limit: int) -> tuple[Rows, bytes]:
        return self._page(selection, after, limit, lambda pairs, _: self._selected(selection, pairs), lambda rows: rows)

    def movable(
        self, selection: Selection, states: frozenset[RecipientState], after: bytes, limit: int
    ) -> tuple[list[Movable], bytes]:
        """As `page`, of recipients in one of these states, with no more than a move needs to know of each."""
        mask = sum(1 << state for state in states if selection.state in (None, state))

        def of_rows(rows: Rows) -> list[Movable]:
            return [(m.queue_id, r.n, r.tail.forward_path) for m, r in rows if mask >> r.state & 1]

        def of_pairs(pairs: Pairs, found_by: frozenset[str]) -> list[Movable]:
            if _says_more(selection, found_by | {"state"}):
                return of_rows(self._selected(selection, pairs))
            return queue_movable(self._raw, pairs, mask)

        return self._page(selection, after, limit, of_pairs, of_rows)

    def _page(
        self,
        selection: Selection,
        after: bytes,
        limit: int,
        of_pairs: Callable[[Pairs, frozenset[str]], list[R]],
        of_rows: Callable[[Rows], list[R]],
    ) -> tuple[list[R], bytes]:
        """`of_pairs` looks at those that an index has found, by these fields of the selection."""
        kind = after[:1] or self._begin(selection)
        rest = after[1:]
        found_by = _BY_HOP
        if kind == b"f":
            pairs, token = self._by_hop(selection, ROWS_FRESH, rest, limit)
            if not token:
                return of_pairs(pairs, found_by), self._index_of_waiting(selection)
        elif kind == b"h":
            wanted = ROWS_ANYONE if selection.state is None else selection.state
            pairs, token = self._by_hop(selection, wanted, rest, limit)
        elif kind == b"e":
            pairs, token = error_rows(self._raw, (selection.error or b"").lower(), rest, limit, LOOKED)
            found_by = frozenset()
        elif kind == b"t":
            prefix = (selection.tenant or b"").lower()[:NAME_KEPT] + b"\0"
            pairs, token = self._by_rows(TABLE_QUEUE_BY_TENANT, prefix, rest, limit)
            found_by = frozenset()
        elif kind == b"i":
            pairs, token = self._by_index(selection, rest, limit)
            found_by = _index_finds(selection)
        elif kind in (b"a", b"s"):
            pairs, token = self._active(selection, kind, rest, limit)
            found_by = frozenset()
            if not token and selection.state != RecipientState.ACTIVE:
                return of_pairs(pairs, found_by), b"i"
        else:
            rows, token = self._in_order(selection, rest, limit)
            return of_rows(rows), kind + token if token else b""
        return of_pairs(pairs, found_by), kind + token if token else b""

    def _begin(self, selection: Selection) -> bytes:
        """What to walk: what is said to find fewest comes first."""
        if not self.has_indexes:
            return self._begin_before(selection)
        index = self._index_of_waiting(selection)
        if _is_keyed(selection):
            return b"f" if self._may_be_fresh(selection) else index
        if selection.hop is not None:
            return b"h"
        if index != b"i":
            return b"f" if self._may_be_fresh(selection) else index
        if selection.state is not None:
            counts = list(self._queue.counts().values())
            if selection.received_before_ms is None or counts[selection.state - 1] * 4 < sum(counts):
                return b"h"
        if selection.received_before_ms is not None:
            return b"f" if self._may_be_fresh(selection) else b"i"
        return b"q"

    def _index_of_waiting(self, selection: Selection) -> bytes:
        """The walk of those who are not fresh, as far as no hop or state finds fewer."""
        if _is_keyed(selection):
            return b"i"
        if selection.tenant and self.has_tenants:
            return b"t"
        return b"e" if selection.error else b"i"

    def _may_be_fresh(self, selection: Selection) -> bool:
        """Whether some of them may be as they were accepted, and in no index yet: never the deferred."""
        counts = self._queue.counts()
        states = {RecipientState.ACTIVE: "active", RecipientState.HELD: "held"}
        return any(counts[name] for state, name in states.items() if selection.state in (None, state))

    def _by_hop(self, selection: Selection, wanted: int, after: bytes, limit: int) -> tuple[Pairs, bytes]:
        domain, sender = selection.in_domain, selection.sender
        later_first = wanted != RecipientState.ACTIVE
        if after:
            pivot_ms = int.from_bytes(after[:8], "big")
        else:
            now_ms = int(self._store.clock.now() * 1000)
            pivots = {
                ROWS_FRESH: now_ms - 2 * UNINDEXED_MS,
                int(RecipientState.ACTIVE): now_ms + DUE_SLACK_MS,
                int(RecipientState.DEFERRED): now_ms,
            }
            pivot_ms = max(0, pivots.get(wanted, 0))
        pairs, token = hop_rows(
            self._raw,
            wanted,
            selection.hop,
            None,
            pivot_ms,
            later_first,
            FAR_MS,
            after[8:],
            limit,
            LOOKED,
            None if domain is None else domain.lower(),
            None if sender is None else sender.lower(),
        )
        return pairs, pivot_ms.to_bytes(8, "big") + token if token else b""

    def _by_index(self, selection: Selection, after: bytes, limit: int) -> tuple[Pairs, bytes]:
        table, prefix, start = _index_of(selection)
        if table != TABLE_QUEUE_BY_AGE:
            return self._by_rows(table, prefix, after, limit)
        rows = self._raw.scan(table, prefix, max(start, after), limit + 1)
        following = b""
        if len(rows) > limit:
            following = rows[limit][0]
            rows = rows[:limit]
        if selection.received_before_ms is not None:
            bound = id_key(selection.received_before_ms)
            kept = [row for row in rows if row[0] < bound]
            following = following if len(kept) == len(rows) else b""
            rows = kept
        return [_place.unpack_from(key, len(key) - _place.size) for key, _ in rows], following

    def _by_rows(self, table: int, prefix: bytes, after: bytes, limit: int) -> tuple[Pairs, bytes]:
        """A page of an index's rows of one name."""
        rows = self._raw.scan(table, prefix, after, limit + 1)
        following = rows[limit][0] if len(rows) > limit else b""
        return [
            _place.unpack_from(key, len(key) - 12) for key, _ in rows[:limit] if len(key) == len(prefix) + 12
        ], following

    def _selected(self, selection: Selection, pairs: Iterable[tuple[int, int]]) -> Rows:
        out: Rows = []
        for message, recipients in self._queue.load(pairs):
            out += [(message, each) for each in recipients if selects(selection, message, each)]
        return out

    def _in_order(self, selection: Selection, after: bytes, limit: int) -> tuple[Rows, bytes]:
        out: Rows = []
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
                    message = self._queue.decode_message(key, value)
                    continue
                if message is None or message.queue_id != queue_id:
                    message = self._queue.message(queue_id)
                    if message is None:
                        continue
                recipient = self._queue.decode_recipient(key, value)
                if selects(selection, message, recipient):
                    out.append((message, recipient))
            scanned += len(page)
            after = page[-1][0] + b"\0"
        return out, after

    # --- a store of the format before ---

    def _begin_before(self, selection: Selection) -> bytes:
        if selection.state == RecipientState.ACTIVE or (selection.state is None and selection.has_index):
            counts = self._queue.counts()
            chosen = selection.in_domain is not None or selection.sender is not None
            return b"s" if chosen and counts["active"] * SEEK_COSTS > sum(counts.values()) else b"a"
        return b"q" if selection.state is None else b"i"

    def _active(self, selection: Selection, kind: bytes, after: bytes, limit: int) -> tuple[Pairs, bytes]:
        """By their hops where few of the queue are active, else by reading all of it in its order."""
        domain, sender = selection.in_domain, selection.sender
        domain = domain.lower() if domain is not None else None
        sender = sender.lower() if sender is not None else None
        unindexed = selection.state is None
        if not after and not self._queue.counts()["active"]:
            return [], b""
        if kind == b"s":
            pairs, following = active_scan(self._raw, after, limit, ACTIVE_SCANNED, unindexed, domain, sender)
        else:
            due_ms = int(self._store.clock.now() * 1000) + DUE_SLACK_MS
            if selection.received_before_ms is not None and unindexed:
                due_ms = min(due_ms, selection.received_before_ms)  # who was never tried is due since he came
            pairs, following = active_rows(self._raw, after, due_ms, limit, ACTIVE_LOOKED, unindexed, domain, sender)
        return pairs, following


def _is_keyed(selection: Selection) -> bool:
    """Whether the index by sender or by domain finds what is selected."""
    return selection.sender is not None or selection.in_domain is not None


def _index_finds(selection: Selection) -> frozenset[str]:
    """The fields of a selection that the rows of its index answer for; of a very long name they have a part."""
    if selection.sender is not None:
        return frozenset({"sender"} if len(selection.sender) < NAME_KEPT else ())
    domain = selection.in_domain
    if domain is not None:
        return frozenset({"domain"} if len(domain) < NAME_KEPT else ())
    return frozenset({"received_before_ms"})


def _says_more(selection: Selection, known: frozenset[str]) -> bool:
    """Whether a selection asks for anything but these fields."""
    return any(getattr(selection, name) is not None for name in Selection.__struct_fields__ if name not in known)


def _index_of(selection: Selection) -> tuple[int, bytes, bytes]:
    """(table, prefix, start) of the rows among which the selected ones are."""
    if selection.sender is not None:
        return TABLE_QUEUE_BY_SENDER, selection.sender.lower()[:NAME_KEPT] + b"\0", b""
    domain = selection.in_domain
    if domain is not None:
        return TABLE_QUEUE_BY_DOMAIN, domain.lower()[:NAME_KEPT] + b"\0", b""
    return TABLE_QUEUE_BY_AGE, b"", b""
