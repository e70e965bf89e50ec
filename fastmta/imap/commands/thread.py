"""THREAD and UID THREAD (RFC 5256): ORDEREDSUBJECT, REFERENCES and REFS."""

from __future__ import annotations

import re
from array import array
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from fastmta import _imap, _mime
from fastmta.imap import order, threads
from fastmta.imap.commands.search import BAD_CHARSET, parser_for, write_pieces
from fastmta.imap.commands.sort import TOO_MANY
from fastmta.imap.fetch_lines import lines_in_memory
from fastmta.imap.search import Search
from fastmta.imap.search_keys import BadCharset
from fastmta.imap.session import Feature
from fastmta.imap.subject import base_subject
from fastmta.model.limits import IMAP_SORT_MESSAGES, SEARCH_BLOCK, SEARCH_LINES_BYTES

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session
    from fastmta.imap.view import View

T = TypeVar("T")
_ALGORITHMS: Final = frozenset({b"ORDEREDSUBJECT", b"REFERENCES", b"REFS"})
_SECTION: Final = [(b"R", b"\x0areferences", False)]
_LINE: Final = re.compile(rb"\* (\d+) FETCH \(R \{(\d+)\}\r\n")
_HEADER_BYTES: Final = 65_536  # of a header that does not lie in one piece


def thread(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    return _thread(session, cursor, by_uid=False)


def uid_thread(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    return _thread(session, cursor, by_uid=True)


def _thread(session: Session, cursor: Cursor, *, by_uid: bool) -> Answer:
    cursor.sp()
    algorithm = cursor.atom()
    if algorithm not in _ALGORITHMS:
        raise _imap.BadSyntax("Unknown threading algorithm")
    parser = parser_for(session, cursor)
    try:
        key = parser.parse_with_charset()
    except BadCharset:
        return BAD_CHARSET
    if parser.asks_modseq:
        session.enable(Feature.CONDSTORE)
    return _run(session, algorithm, Search(session, session.selected, key), by_uid)


async def _run(session: Session, algorithm: bytes, search: Search, by_uid: bool) -> bytes:
    view = session.selected
    uids = await search.run(by_uid=True)
    if len(uids) > IMAP_SORT_MESSAGES:
        return TOO_MANY
    arrived = await order.dates_of(session, view, uids)
    if algorithm == b"ORDEREDSUBJECT":
        forest = await _ordered_subject(session, view, uids, arrived)
    else:
        forest = await _references(session, view, uids, arrived, algorithm)
    numbers = uids if by_uid else view.uids.by_uids(_imap.uid_pairs(uids))[0]
    session.write(b"* THREAD ")
    if not await write_pieces(session, forest.lines(numbers)):
        return b""
    session.write(b"\r\n")
    return b"OK UID THREAD completed" if by_uid else b"OK THREAD completed"


async def _ordered_subject(session: Session, view: View, uids: array[int], arrived: array[int]) -> threads.Forest:
    subjects = [""] * len(uids)
    dates = array("q", arrived)

    def take(at: int, values: tuple[Any, ...]) -> None:
        subjects[at] = base_subject(values[3])[0]
        dates[at] = order.sent_at(values, arrived[at])

    await order.envelopes(session, view, uids, take)
    places = await order.stable(session, range(len(uids)), dates.__getitem__)
    places = await order.stable(session, places, subjects.__getitem__)
    forest = await _draw(session, threads.by_subject(places, subjects))
    roots = await order.stable(session, forest.roots, lambda root: (dates[root], root))
    forest.roots = array("i", roots)
    return forest


async def _references(
    session: Session, view: View, uids: array[int], arrived: array[int], algorithm: bytes
) -> threads.Forest:
    built = threads.Threads(len(uids))
    places = array("I")

    def take(at: int, values: tuple[Any, ...]) -> None:
        subject, answers = base_subject(values[3])
        own, reply_to = threads.message_ids(values[8])[:1], threads.message_ids(values[7])[:1]
        date = order.sent_at(values, arrived[at])
        built.add(at, own[0] if own else None, reply_to[0] if reply_to else None, date, subject, answers)
        places.append(at)

    await order.envelopes(session, view, uids, take)
    await _refer(session, view, uids, built)
    by_date = await order.stable(session, places, built.dates.__getitem__)
    await _draw(session, built.link(by_date, by_subject=algorithm == b"REFERENCES"))
    forest = built.forest
    if algorithm == b"REFS":  # in the order of the threads' latest messages
        latest = array("q")
        for root in forest.roots:
            latest.append(await _draw(session, forest.latest(root, built.dates)))
            await order.paused(session)
        roots = await order.stable(session, range(len(latest)), latest.__getitem__)
        forest.roots = array("i", [forest.roots[at] for at in roots])
    return forest


async def _draw(session: Session, steps: Generator[None, None, T]) -> T:
    """The value of what is done in steps, with others' turns in between."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("T", end.value)
        await order.paused(session)


async def _refer(session: Session, view: View, uids: array[int], built: threads.Threads) -> None:
    """Tells the threads what each message's References field names."""
    for begin in range(0, len(uids), SEARCH_BLOCK):
        block = uids[begin : begin + SEARCH_BLOCK]
        places = array("I", range(1, len(block) + 1))
        start = 0
        while start < len(block):
            last = start
            lines, start = await lines_in_memory(
                session.mailboxes, view.mailbox_id, places, block, 0, start, SEARCH_LINES_BYTES, sections=_SECTION
            )
            named: dict[int, list[bytes]] = {}
            at = 0
            while found := _LINE.match(lines, at):
                end = found.end() + int(found[2])
                if int(found[2]) > 2:
                    named[int(found[1]) - 1] = threads.message_ids(lines[found.end() : end])
                at = end + 3
            if start == last:  # its header does not lie in one piece
                waiting = session.mailboxes.need(view.mailbox_id, block[start], 0, _HEADER_BYTES)
                if waiting is not None:
                    await waiting
                header = session.mailboxes.read(view.mailbox_id, block[start], 0, _HEADER_BYTES) or b""
                named[start] = threads.message_ids(_mime.header_fields(header, (b"references",)))
                start += 1
            for place in range(last, start):
                await _draw(session, built.refer(begin + place, named.get(place, ())))
            await order.paused(session)
