"""THREAD and UID THREAD (RFC 5256): ORDEREDSUBJECT, REFERENCES and REFS."""

from __future__ import annotations

import re
from array import array
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from fastmta import _imap, _mime
from fastmta.imap import order, threads
from fastmta.imap.commands.search import BAD_CHARSET, parser_for, write_pieces
from fastmta.imap.commands.sort import TOO_MANY
from fastmta.imap.fetch_lines import fetch_lines
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
        roots = await _ordered_subject(session, view, uids, arrived)
    else:
        roots = await _references(session, view, uids, arrived, by_subject=algorithm == b"REFERENCES")
        if algorithm == b"REFS":
            roots = await _by_latest(session, roots)
    numbers = uids if by_uid else view.uids.by_uids(_imap.uid_pairs(uids))[0]
    session.write(b"* THREAD ")
    if not await write_pieces(session, threads.lines(roots, numbers)):
        return b""
    session.write(b"\r\n")
    return b"OK UID THREAD completed" if by_uid else b"OK THREAD completed"


async def _ordered_subject(
    session: Session, view: View, uids: array[int], arrived: array[int]
) -> Sequence[threads.Node]:
    subjects = [""] * len(uids)
    dates = array("q", arrived)

    def take(at: int, values: tuple[Any, ...]) -> None:
        subjects[at] = base_subject(values[3])[0]
        dates[at] = order.sent_at(values, arrived[at])

    await order.envelopes(session, view, uids, take)
    places = await order.stable(session, range(len(uids)), dates.__getitem__)
    places = await order.stable(session, places, subjects.__getitem__)
    roots = await _draw(session, threads.by_subject(places, subjects, dates))
    return [roots[at] for at in await order.stable(session, range(len(roots)), lambda at: roots[at].date)]


async def _references(
    session: Session, view: View, uids: array[int], arrived: array[int], *, by_subject: bool
) -> Sequence[threads.Node]:
    references = await _read_references(session, view, uids)
    built = threads.Threads()

    def take(at: int, values: tuple[Any, ...]) -> None:
        named = threads.message_ids(references.get(at)) or threads.message_ids(values[7])[:1]
        own = threads.message_ids(values[8])
        subject, answers = base_subject(values[3])
        node = built.add(at, own[0] if own else None, named, order.sent_at(values, arrived[at]), subject)
        node.answers = answers

    await order.envelopes(session, view, uids, take)
    await _draw(session, built.link(by_subject=by_subject))
    return built.roots


async def _draw(session: Session, steps: Generator[None, None, T]) -> T:
    """The value of what is done in steps, with others' turns in between."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast("T", end.value)
        await order.paused(session)


async def _by_latest(session: Session, roots: Sequence[threads.Node]) -> Sequence[threads.Node]:
    """REFS: threads in the order of their latest messages."""
    latest = array("q")
    for root in roots:
        latest.append(await _draw(session, threads.latest(root)))
        await order.paused(session)
    return [roots[at] for at in await order.stable(session, range(len(roots)), latest.__getitem__)]


async def _read_references(session: Session, view: View, uids: array[int]) -> dict[int, bytes]:
    """The References fields, by place; of messages that have one."""
    out: dict[int, bytes] = {}
    for begin in range(0, len(uids), SEARCH_BLOCK):
        block = uids[begin : begin + SEARCH_BLOCK]
        places = array("I", range(1, len(block) + 1))
        start = 0
        while start < len(block):
            last = start
            lines, start = fetch_lines(
                session.mailboxes, view.mailbox_id, places, block, 0, start, SEARCH_LINES_BYTES, sections=_SECTION
            )
            at = 0
            while found := _LINE.match(lines, at):
                end = found.end() + int(found[2])
                if int(found[2]) > 2:
                    out[begin + int(found[1]) - 1] = lines[found.end() : end]
                at = end + 3
            if start == last:  # its header does not lie in one piece
                header = session.mailboxes.read(view.mailbox_id, block[start], 0, _HEADER_BYTES)
                if header is not None:
                    out[begin + start] = _mime.header_fields(header, (b"references",))
                start += 1
            await order.paused(session)
    return out
