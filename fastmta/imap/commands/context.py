"""CONTEXT=SEARCH and CONTEXT=SORT (RFC 5267): a SEARCH or SORT whose result is kept up to date, and CANCELUPDATE.

A context is a search with the uids that it has found, of a SORT in their order too. When the view has told what
changed, the changed messages alone are searched again; a new one finds its place in a SORT by some comparisons. What
is expunged leaves the results before it loses its number.

Invariants: IMAP_CONTEXTS of a selected mailbox with IMAP_CONTEXT_MESSAGES of results each, else NOUPDATE; a context
ends with the selection. Searching draws from the budget as any SEARCH does.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from fastmta import _imap
from fastmta._imap import BadSyntax
from fastmta.imap import search_keys as keys
from fastmta.imap.commands.fetch import tell_new
from fastmta.imap.message_set import Chosen
from fastmta.imap.order import at_places, paused, sorted_places
from fastmta.imap.search import Search
from fastmta.imap.session import SessionEnded, State
from fastmta.model.limits import (
    IMAP_CHUNK_BYTES,
    IMAP_CONTEXT_CHANGES,
    IMAP_CONTEXT_COMPARED,
    IMAP_CONTEXT_MESSAGES,
    IMAP_CONTEXTS,
    SEARCH_BLOCK,
)

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.fetch_plan import Plan
    from fastmta.imap.order import SortKey
    from fastmta.imap.seams import Answer
    from fastmta.imap.search_keys import Key
    from fastmta.imap.session import Session
    from fastmta.imap.view import View, Write

_WITHOUT: Final = 2  # of mask_combine


class Context:
    """One SEARCH that is kept up to date."""

    __slots__ = ("by_uid", "fetch", "found", "key", "sorted", "tag")

    def __init__(self, tag: bytes, key: Key, found: array[int], fetch: Plan | None, *, by_uid: bool) -> None:
        self.tag = tag
        self.key = key
        self.found = found  # ascending uids
        self.fetch = fetch
        self.by_uid = by_uid
        self.sorted: Sorted | None = None  # of a SORT

    def _line(self, word: bytes, pairs: bytes) -> bytes:
        head = b"* ESEARCH (TAG %b)%b" % (_imap.quoted(self.tag), b" UID" if self.by_uid else b"")
        return b"%b %b (%b)\r\n" % (head, word, pairs)

    def _numbers(self, view: View, uids: array[int]) -> array[int]:
        return uids if self.by_uid else view.uids.by_uids(_imap.uid_pairs(uids))[0]

    def removed(self, view: View, uids: array[int]) -> bytes:
        """REMOVEFROM of uids that have a number (§4.3.4). Of a SORT each has the place that it had when those before it
        were gone."""
        if self.sorted is None:
            return self._line(b"REMOVEFROM", b"0 " + _imap.uid_set(self._numbers(view, uids)))
        numbers = dict(zip(uids, self._numbers(view, uids), strict=True))
        places = self.sorted.remove(uids)
        return self._line(b"REMOVEFROM", b" ".join(b"%d %d" % (place, numbers[uid]) for place, uid in places))

    async def added(self, session: Session, view: View, uids: array[int]) -> bytes:
        """ADDTO of uids that have a number (§4.3.3). The client puts a search's into mailbox order. SessionEnded."""
        if self.sorted is None:
            return self._line(b"ADDTO", b"0 " + _imap.uid_set(self._numbers(view, uids)))
        places = await self.sorted.insert(session, view, uids)
        numbers = dict(zip(uids, self._numbers(view, uids), strict=True))
        return self._line(b"ADDTO", b" ".join(b"%d %d" % (place, numbers[uid]) for place, uid in places))


class Sorted:
    """The results of a SORT in their order. What it sorts by never changes of a message, but of one that is expunged it
    is gone before the client may be told so: it keeps its place, and is not compared with.
    """

    __slots__ = ("_keys", "_uids")

    def __init__(self, keys: Sequence[SortKey], uids: array[int]) -> None:
        self._keys = keys
        self._uids = uids

    def remove(self, uids: array[int]) -> list[tuple[int, int]]:
        """Takes them out: (place, uid) of each, counted from 1, the last first, so that no place depends on others."""
        if len(uids) <= IMAP_CONTEXT_COMPARED:
            found = sorted(((self._place(uid), uid) for uid in uids), reverse=True)
            for place, _ in found:
                del self._uids[place - 1]
            return found
        gone = set(uids)
        places = [(place, uid) for place, uid in enumerate(self._uids, 1) if uid in gone]
        self._uids = array("I", [uid for uid in self._uids if uid not in gone])
        places.reverse()
        return places

    def _place(self, uid: int) -> int:
        raw, wanted = self._uids.tobytes(), array("I", [uid]).tobytes()
        at = raw.find(wanted)
        while at % len(wanted):  # where two others meet
            at = raw.find(wanted, at + 1)
        return at // len(wanted) + 1

    async def insert(self, session: Session, view: View, uids: array[int]) -> list[tuple[int, int]]:
        """Puts them where they belong: (place, uid) of each, in this order. SessionEnded."""
        if len(uids) > IMAP_CONTEXT_COMPARED:
            return await self._merge(session, view, uids)
        places: list[tuple[int, int]] = []
        for uid in uids:
            low, high = 0, len(self._uids)
            while low < high:
                at = middle = (low + high) // 2
                while at < high:
                    pair = array("I", sorted((uid, self._uids[at])))
                    first = pair[(await sorted_places(session, view, pair, self._keys))[0]]
                    if _there(session, view, self._uids[at : at + 1]):
                        low, high = (low, middle) if first == uid else (at + 1, high)
                        break
                    at = await self._first_there(session, view, at + 1, high)
                else:
                    high = middle
            self._uids.insert(low, uid)
            places.append((low + 1, uid))
        return places

    async def _first_there(self, session: Session, view: View, place: int, end: int) -> int:
        """The first place from this one on whose message is there; `end` where none is. SessionEnded."""
        for begin in range(place, end, SEARCH_BLOCK):
            some = self._uids[begin : min(begin + SEARCH_BLOCK, end)]
            there = _there(session, view, some)
            for at, uid in enumerate(some if there else (), begin):
                if uid in there:
                    return at
            await paused(session)
        return end

    async def _merge(self, session: Session, view: View, uids: array[int]) -> list[tuple[int, int]]:
        """Many: all is sorted again. In ascending places, so that each is right when those before it are there."""
        everything = array("I", sorted([*self._uids, *uids]))
        ordered = await at_places(session, everything, await sorted_places(session, view, everything, self._keys))
        new, last = set(uids), 0
        behind: dict[int, list[int]] = {}  # new ones, by what they follow, which was there while it was compared
        for begin in range(0, len(ordered), SEARCH_BLOCK):
            some = ordered[begin : begin + SEARCH_BLOCK]
            there = _there(session, view, some)
            for uid in some:
                if uid in new:
                    behind.setdefault(last, []).append(uid)
                elif uid in there:
                    last = uid
            await paused(session)
        placed = array("I", behind.get(0, ()))
        for count, uid in enumerate(self._uids):
            placed.append(uid)
            if uid in behind:
                placed.extend(behind[uid])
            if count % SEARCH_BLOCK == 0:
                await paused(session)
        self._uids = placed
        return [(place, uid) for place, uid in enumerate(self._uids, 1) if uid in new]


def _there(session: Session, view: View, uids: array[int]) -> set[int]:
    """Those that are not expunged."""
    ascending = array("I", sorted(uids))
    return set(_imap.mask_select(session.mailboxes.columns(view.mailbox_id, ascending).here, ascending))


class Contexts:
    """Those of one view, and the messages of it that have changed since they were told."""

    __slots__ = ("_all", "_changed", "_new_from")

    def __init__(self, uid_next: int) -> None:
        self._all: list[Context] = []
        self._changed = array("I")
        self._new_from = uid_next

    def __len__(self) -> int:
        return len(self._all)

    def names(self, tag: bytes) -> bool:
        return any(context.tag == tag for context in self._all)

    def add(self, context: Context) -> None:
        self._all.append(context)

    def cancel(self, tag: bytes) -> bool:
        kept = [context for context in self._all if context.tag != tag]
        found = len(kept) < len(self._all)
        self._all = kept
        return found

    # --- what the view calls ---

    @property
    def pending(self) -> bool:
        """Whether messages have changed that are to be searched again."""
        return bool(self._changed)

    def note(self, uids: Sequence[int]) -> None:
        """These messages are new, or have changed."""
        if self._all:
            self._changed.extend(uids)

    def gone(self, view: View, gone: array[int], write: Write) -> None:
        """These are about to be told as expunged."""
        uids = array("I", sorted(uid for uid in set(gone) if view.uids.seq_of(uid)))
        for context in self._all:
            left = _imap.mask_select(_imap.mask_members(uids, context.found), uids)
            if left:
                write(context.removed(view, left))
                context.found = _without(context.found, left)

    # --- what the session calls ---

    def end_numbered(self, write: Write) -> None:
        """Numbers are told no more (RFC 9586 §3), so results that were asked for by number are not kept up to date."""
        for context in self._all:
            if not context.by_uid:
                write(_no_update(context.tag))
        self._all = [context for context in self._all if context.by_uid]

    async def tell(self, session: Session, view: View) -> None:
        """Tells how the results have changed (§4.3). SessionEnded."""
        while self._changed and session.view is view:
            changed, self._changed = array("I", sorted(set(self._changed))), array("I")
            new_from, self._new_from = self._new_from, view.uid_next
            everything = len(changed) > IMAP_CONTEXT_CHANGES
            for context in list(self._all):
                search = Search(session, view, context.key)
                now = await search.run(by_uid=True, among=None if everything else changed)
                before = context.found
                if not everything:
                    before = _imap.mask_select(_imap.mask_members(changed, before), changed)
                added, left = _without(now, before), _without(before, now)
                if left:
                    session.write(context.removed(view, left))
                if added:
                    session.write(await context.added(session, view, added))
                if added or left:
                    context.found = array("I", sorted((set(context.found) - set(left)) | set(added)))
                fresh = added[bisect_left(added, new_from) :]
                if context.fetch is not None and fresh:
                    await tell_new(session, context.fetch, Chosen.of_uids(view, fresh))
                if session.wire.written() >= IMAP_CHUNK_BYTES:
                    await session.wire.flush()
                if len(context.found) > IMAP_CONTEXT_MESSAGES:
                    session.write(_no_update(context.tag))
                    self.cancel(context.tag)
                if session.state == State.LOGOUT:
                    raise SessionEnded


def _without(uids: array[int], others: array[int]) -> array[int]:
    """Ascending uids that are not among others."""
    mask = _imap.mask_combine(b"\1" * len(uids), _imap.mask_members(uids, others), _WITHOUT)
    return _imap.mask_select(mask, uids)


def _no_update(tag: bytes) -> bytes:
    return b"* NO [NOUPDATE %b] Its result is not kept up to date\r\n" % _imap.quoted(tag)


def require_new_tag(view: View, tag: bytes) -> None:
    """BadSyntax where a search of this tag is kept up to date (§4.3)."""
    if view.contexts is not None and view.contexts.names(tag):
        raise BadSyntax("Tag reuse")


def keep(
    session: Session,
    view: View,
    tag: bytes,
    key: Key,
    found: array[int],
    fetch: Plan | None = None,
    order: Sorted | None = None,
    *,
    by_uid: bool,
) -> None:
    """From now on the result of a search, or of a SORT with its `order`, is kept up to date, or the client is told that
    it is not (§4.3.1): where they are too many, and for searches by what may change without the messages.
    """
    contexts: Contexts = view.contexts or Contexts(view.uid_next)  # type: ignore[assignment]
    if _moves(key) or len(contexts) >= IMAP_CONTEXTS or len(found) > IMAP_CONTEXT_MESSAGES:
        session.write(_no_update(tag))
        return
    made = Context(tag, key, found, fetch, by_uid=by_uid)
    made.sorted = order
    contexts.add(made)
    view.contexts = contexts


def no_context(session: Session, tag: bytes) -> None:
    session.write(_no_update(tag))


def _moves(key: Key) -> bool:
    """Whether a message may come into the result though nothing happens to it: messages by number, which an expunge
    changes, and OLDER and YOUNGER, which the clock does."""
    if isinstance(key, keys.Not):
        return _moves(key.key)
    if isinstance(key, keys.Or):
        return _moves(key.first) or _moves(key.second)
    if isinstance(key, keys.And):
        return any(_moves(part) for part in key.keys)
    return isinstance(key, keys.Arrived) or (isinstance(key, keys.Numbers) and not key.by_uid)


def cancel_update(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    tags: list[bytes] = []
    while True:
        cursor.sp()
        tags.append(cursor.string())
        if cursor.at_end():
            break
    contexts = session.selected.contexts
    for each in tags:
        if contexts is None or not contexts.cancel(each):
            return b"NO [CANNOT] No search of this tag is kept up to date"
    return b"OK CANCELUPDATE completed"
