"""What SORT and THREAD know of messages, and SORT's order (RFC 5256, RFC 5957).

Values come from the rows and the ENVELOPEs made at arrival, a block at a time; long lists are sorted in runs that are
merged, so that no step holds the loop.
"""

from __future__ import annotations

import heapq
from array import array
from collections.abc import Callable, MutableSequence, Sequence
from email.utils import mktime_tz, parsedate_tz
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fastmta import _imap, _mime
from fastmta._imap import BadSyntax
from fastmta.imap.fetch_lines import lines_in_memory
from fastmta.imap.fetch_plan import ENVELOPE
from fastmta.imap.session import SessionEnded, State
from fastmta.imap.subject import base_subject, collated
from fastmta.model.limits import IMAP_SORT_KEYS, IMAP_SORT_TEXT, SEARCH_BLOCK, SEARCH_LINES_BYTES

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.session import Session
    from fastmta.imap.view import View

RUN: Final = 1024  # values sorted in one go: under a millisecond
STEP: Final = 256  # values merged or read before the turn is asked for
SLICE: Final = 4096  # values copied in one go: a tenth of a millisecond
_ROWS: Final = frozenset({b"ARRIVAL", b"SIZE"})
RELEVANCY: Final = b"RELEVANCY"  # of FUZZY keys, the best first (RFC 6203 §5)
_KEYS: Final = _ROWS | {RELEVANCY, b"CC", b"DATE", b"FROM", b"SUBJECT", b"TO", b"DISPLAYFROM", b"DISPLAYTO"}
_PLACES: Final = {b"FROM": 4, b"TO": 5, b"CC": 6, b"DISPLAYFROM": 4, b"DISPLAYTO": 5}


class SortKey(msgspec.Struct, frozen=True):
    """One criterion."""

    name: bytes
    reverse: bool = False


def parse_keys(cursor: Cursor) -> tuple[SortKey, ...]:
    """A parenthesized list of criteria. BadSyntax."""
    keys: list[SortKey] = []
    cursor.open()
    while True:
        name = cursor.atom()
        reverse = name == b"REVERSE"
        if reverse:
            cursor.sp()
            name = cursor.atom()
        if name not in _KEYS:
            raise BadSyntax("Unknown sort key")
        keys.append(SortKey(name, reverse))
        if len(keys) > IMAP_SORT_KEYS:
            raise BadSyntax("Too many sort keys")
        if cursor.try_close():
            return tuple(keys)
        cursor.sp()


async def paused(session: Session) -> None:
    """Lets others have their turn. SessionEnded."""
    if session.wire.turn_is_over():
        await session.wire.pause()
        if session.state == State.LOGOUT:
            raise SessionEnded


async def envelopes(
    session: Session, view: View, uids: array[int], take: Callable[[int, tuple[Any, ...]], None]
) -> None:
    """Calls `take(index in uids, envelope_values' tuple)` for each message that is there."""
    for begin in range(0, len(uids), SEARCH_BLOCK):
        block = uids[begin : begin + SEARCH_BLOCK]
        places = array("I", range(1, len(block) + 1))
        start = 0
        while start < len(block):
            lines, start = await lines_in_memory(
                session.mailboxes, view.mailbox_id, places, block, ENVELOPE, start, SEARCH_LINES_BYTES
            )
            for values in _imap.envelope_values(lines):
                take(begin + values[0] - 1, values)  # of a message with many references, a millisecond's work
                if session.wire.turn_is_over():
                    await paused(session)
            await paused(session)


async def at_places(session: Session, values: Sequence[int], places: Sequence[int]) -> array[int]:
    """The values at these places. SessionEnded."""
    out = array("I")
    for begin in range(0, len(places), SLICE):
        out.extend(map(values.__getitem__, places[begin : begin + SLICE]))
        await paused(session)
    return out


def sent_at(values: tuple[Any, ...], arrived_s: int) -> int:
    """The Date field's instant; the internal date where it names none (RFC 5256 §2.2)."""
    instant: int | None = values[1]
    if instant is not None:
        return instant
    if not values[2]:
        return arrived_s
    try:
        parsed = parsedate_tz(values[2][:128].decode("latin-1"))
        return arrived_s if parsed is None else int(mktime_tz(parsed))
    except (ValueError, OverflowError, TypeError, IndexError):
        return arrived_s


async def dates_of(session: Session, view: View, uids: array[int]) -> array[int]:
    """Internal dates in seconds."""
    out = array("q")
    for begin in range(0, len(uids), SEARCH_BLOCK):
        out.extend(session.mailboxes.dates(view.mailbox_id, uids[begin : begin + SEARCH_BLOCK]))
        await paused(session)
    return out


def _text(raw: bytes) -> str:
    raw = raw[: 4 * IMAP_SORT_TEXT]
    text = _mime.decode_header(raw) if b"=?" in raw or not raw.isascii() else raw.decode("ascii")
    return collated(text)[:IMAP_SORT_TEXT]


def _value(name: bytes, values: tuple[Any, ...], arrived_s: int) -> int | str:
    if name == b"DATE":
        return sent_at(values, arrived_s)
    if name == b"SUBJECT":
        return base_subject(values[3])[0]
    address = values[_PLACES[name]]
    if address is None:
        return ""
    shown, mailbox, host = address
    if not name.startswith(b"DISPLAY"):
        return _text(mailbox)
    return _text(shown) if shown else _text(b"%b@%b" % (mailbox, host) if host else mailbox)


async def values_of(session: Session, view: View, uids: array[int], names: set[bytes]) -> dict[bytes, Sequence[Any]]:
    """Of each key its values, in the uids' order. SessionEnded."""
    out: dict[bytes, Sequence[Any]] = {}
    arrived = await dates_of(session, view, uids) if names & {b"ARRIVAL", b"DATE"} else array("q")
    if b"ARRIVAL" in names:
        out[b"ARRIVAL"] = arrived
    if b"SIZE" in names:
        sizes = array("I")
        for begin in range(0, len(uids), SEARCH_BLOCK):
            sizes.extend(session.mailboxes.columns(view.mailbox_id, uids[begin : begin + SEARCH_BLOCK]).sizes)
            await paused(session)
        out[b"SIZE"] = sizes
    wanted = names - _ROWS
    if wanted:
        lists: dict[bytes, MutableSequence[Any]] = {
            name: array("q", arrived) if name == b"DATE" else [""] * len(uids) for name in wanted
        }

        def take(at: int, values: tuple[Any, ...]) -> None:
            for name, column in lists.items():
                column[at] = _value(name, values, arrived[at] if arrived else 0)

        await envelopes(session, view, uids, take)
        out.update(lists)
    return out


async def sorted_places(
    session: Session, view: View, uids: array[int], keys: Sequence[SortKey], scores: Sequence[int] = ()
) -> Sequence[int]:
    """The places in `uids` in the order that the keys ask for; equal ones in their own. `scores`: of the uids, where a
    key is RELEVANCY. SessionEnded."""
    values = await values_of(session, view, uids, {key.name for key in keys} - {RELEVANCY})
    values[RELEVANCY] = [-score for score in scores]
    order: Sequence[int] = range(len(uids))
    for key in reversed(keys):
        order = await stable(session, order, values[key.name].__getitem__, key.reverse)
    return order


async def stable(
    session: Session, order: Sequence[int], value: Callable[[int], Any], reverse: bool = False
) -> Sequence[int]:
    """`order` by `value`, equal ones as they stood. SessionEnded."""
    if len(order) <= RUN:
        return sorted(order, key=value, reverse=reverse)
    runs: list[list[int]] = []
    for begin in range(0, len(order), RUN):
        runs.append(sorted(order[begin : begin + RUN], key=value, reverse=reverse))
        await paused(session)
    out = array("I")
    for count, place in enumerate(heapq.merge(*runs, key=value, reverse=reverse)):
        out.append(place)
        if count % STEP == 0:
            await paused(session)
    return out
