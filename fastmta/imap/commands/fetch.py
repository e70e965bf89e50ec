"""FETCH and UID FETCH (RFC 3501 §6.4.5, §6.4.8).

Items that were computed at arrival are written by the store's loop, in chunks, with other sessions served between
two. Bodies are read in pieces of at most 256 KB and handed over before more is read. A message that vanished
meanwhile gives no response or NIL; once a literal is announced it is filled, or the connection ends.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any, Final

from fastmta import _mime
from fastmta._imap import BadSyntax
from fastmta.imap import fetch_plan
from fastmta.imap.fetch_plan import Plan, Section
from fastmta.imap.flag_names import change_flags
from fastmta.imap.session import State
from fastmta.imap.view import NEVER_RECENT
from fastmta.model.flags import SEEN
from fastmta.model.limits import IMAP_CHUNK_BYTES, IMAP_HEADER_BYTES

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session
    from fastmta.imap.view import View

SLICE: Final = 64  # messages whose bodies are sent before the next are marked as seen


def fetch(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.sp()
    pairs = cursor.sequence_set()
    cursor.sp()
    plan = fetch_plan.parse(cursor, by_uid=False)
    chosen = session.selected.uids.by_seqs(pairs)
    if chosen is None:
        raise BadSyntax("Message number out of range")
    session.named = chosen[1]
    return _fetch(session, plan, *chosen, by_uid=False)


def uid_fetch(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.sp()
    pairs = cursor.sequence_set()
    cursor.sp()
    plan = fetch_plan.parse(cursor, by_uid=True)
    return _fetch(session, plan, *session.selected.uids.by_uids(pairs), by_uid=True)


def _fetch(session: Session, plan: Plan, seqs: array[int], uids: array[int], *, by_uid: bool) -> Answer:
    done = b"OK UID FETCH completed" if by_uid else b"OK FETCH completed"
    if not uids:
        return done
    view = session.selected
    before = _catch_up(session, view) if plan.items & fetch_plan.FLAGS else None
    if before is not None or plan.sections:
        return _fetch_later(session, view, plan, seqs, uids, done, before)
    # The first chunk is written at once; mostly it is the only one.
    segments = view.recent_segments(uids) if plan.items & fetch_plan.FLAGS else [(0, len(uids), NEVER_RECENT)]
    if len(segments) == 1:
        data, start = session.mailboxes.fetch(
            view.mailbox_id, seqs, uids, plan.items, 0, IMAP_CHUNK_BYTES, recent_from=segments[0][2]
        )
        session.write(data)
        if start >= len(uids):
            return done
        return _rest(session, view, plan, seqs, uids, done, start)
    return _rest(session, view, plan, seqs, uids, done, 0)


def _catch_up(session: Session, view: View) -> Awaitable[None] | None:
    """Flags are told with keywords that FLAGS has named: what others changed is told first (no EXPUNGE among it)."""
    return view.sync(session.mailboxes, session.write, expunge=False)


async def _rest(
    session: Session, view: View, plan: Plan, seqs: array[int], uids: array[int], done: bytes, start: int
) -> bytes:
    """The chunks behind the first, each after the one before it has been handed over."""
    if start:
        await session.wire.flush()
    for begin, end, recent_from in view.recent_segments(uids):
        if end <= start:
            continue
        piece_seqs, piece_uids = seqs[begin:end], uids[begin:end]
        position = max(0, start - begin)
        while position < len(piece_uids):
            if session.state == State.LOGOUT:
                return b""
            data, position = session.mailboxes.fetch(
                view.mailbox_id,
                piece_seqs,
                piece_uids,
                plan.items,
                position,
                IMAP_CHUNK_BYTES,
                recent_from=recent_from,
            )
            session.write(data)
            if session.wire.written() >= IMAP_CHUNK_BYTES:
                await session.wire.flush()
    return done


async def _fetch_later(
    session: Session,
    view: View,
    plan: Plan,
    seqs: array[int],
    uids: array[int],
    done: bytes,
    before: Awaitable[None] | None,
) -> bytes:
    if before is not None:
        await before
    if not plan.sections:
        return await _rest(session, view, plan, seqs, uids, done, 0)
    for begin in range(0, len(uids), SLICE):
        await _bodies(session, view, plan, seqs[begin : begin + SLICE], uids[begin : begin + SLICE])
        if session.state == State.LOGOUT:
            return b""
    return done


async def _bodies(session: Session, view: View, plan: Plan, seqs: array[int], uids: array[int]) -> None:
    """One slice of messages with their sections."""
    rows = {row.uid: row for row in session.mailboxes.rows(view.mailbox_id, uids)}
    newly_seen: set[int] = set()
    if plan.marks_seen and not view.read_only:
        unseen = array("I", [uid for uid, row in rows.items() if not row.flags & SEEN])
        if unseen:
            await change_flags(session, view, unseen, 1, SEEN, b"")
            newly_seen.update(unseen)
    for seq, uid in zip(seqs, uids, strict=True):
        row = rows.get(uid)
        if row is None:
            continue
        items = plan.items | (fetch_plan.FLAGS if uid in newly_seen else 0)
        await _message(session, view, plan, items, seq, uid, row)
        if session.wire.written() >= IMAP_CHUNK_BYTES:
            await session.wire.flush()
        if session.state == State.LOGOUT:
            return


async def _message(session: Session, view: View, plan: Plan, items: int, seq: int, uid: int, row: Any) -> None:
    mailboxes = session.mailboxes
    head = b""
    if items:
        recent_from = 0 if view.is_recent(uid) else NEVER_RECENT
        head, _ = mailboxes.fetch(
            view.mailbox_id,
            array("I", (seq,)),
            array("I", (uid,)),
            items,
            0,
            IMAP_CHUNK_BYTES,
            recent_from=recent_from,
        )
        if not head:
            return
        head = head[:-3]  # without ")\r\n"
    separator = b" " if items else b""
    record: bytes | None = None
    write = session.write
    write(head or b"* %d FETCH (" % seq)
    for section in plan.sections:
        if section.place and record is None:
            record = mailboxes.structure(view.mailbox_id, uid) or b""
        write(separator + section.label)
        separator = b" "
        if section.fields is not None:
            write(_header_subset(mailboxes, view.mailbox_id, uid, record, row, section))
        else:
            await _span(session, view.mailbox_id, uid, record, row, section)
            if session.state == State.LOGOUT:
                return
    write(b")\r\n")


def _place(record: bytes | None, row: Any, section: Section) -> tuple[int, int] | None:
    """Where the section lies in what Mailboxes.read gives, before its partial is cut out."""
    if not section.place:
        return 0, row.size
    if not record:
        return None
    return _mime.find_part(record, section.place, len(row.prefix))


def _header_subset(
    mailboxes: Any, mailbox_id: int, uid: int, record: bytes | None, row: Any, section: Section
) -> bytes:
    """HEADER.FIELDS and HEADER.FIELDS.NOT; the header's last empty line is part of both (RFC 3501 §6.4.5)."""
    place = _place(record, row, section)
    if place is None:
        return b" NIL"
    raw_header = read_all(mailboxes, mailbox_id, uid, place[0], min(place[1], IMAP_HEADER_BYTES))
    if raw_header is None:
        return b" NIL"
    data = _mime.header_fields(raw_header, section.fields or (), section.invert)
    if section.length >= 0:
        data = data[section.begin : section.begin + section.length]
    return b" {%d}\r\n%b" % (len(data), data)


def read_all(mailboxes: Any, mailbox_id: int, uid: int, offset: int, length: int) -> bytes | None:
    """Up to IMAP_HEADER_BYTES in one piece; None where the message is gone."""
    data: bytes | None = mailboxes.read(mailbox_id, uid, offset, min(length, IMAP_CHUNK_BYTES))
    if data is None or len(data) >= length:
        return data
    pieces = [data]
    got = len(data)
    while got < length:
        piece = mailboxes.read(mailbox_id, uid, offset + got, min(length - got, IMAP_CHUNK_BYTES))
        if piece is None:
            return None
        if not piece:
            break
        pieces.append(piece)
        got += len(piece)
    return b"".join(pieces)


async def _span(session: Session, mailbox_id: int, uid: int, record: bytes | None, row: Any, section: Section) -> None:
    """A run of the message's bytes as a literal, a piece at a time."""
    place = _place(record, row, section)
    if place is None:
        session.write(b" NIL")
        return
    offset, length = place
    if section.length >= 0:
        skipped = min(section.begin, length)
        offset += skipped
        length = min(length - skipped, section.length)
    if length == 0:
        session.write(b' ""')
        return
    data = session.mailboxes.read(mailbox_id, uid, offset, min(length, IMAP_CHUNK_BYTES))
    if not data:
        session.write(b" NIL")
        return
    session.write(b" {%d}\r\n" % length)
    session.write(data)
    sent = len(data)
    try:
        while sent < length:
            await session.wire.flush()
            if session.state == State.LOGOUT:
                break
            data = session.mailboxes.read(mailbox_id, uid, offset + sent, min(length - sent, IMAP_CHUNK_BYTES))
            if not data:
                break
            session.write(data)
            sent += len(data)
    finally:
        if sent < length:
            session.wire.abort()  # an announced literal that can't be filled ends the connection
