"""The sections of a FETCH (RFC 3501 §6.4.5): where BODY[...] lies in a message, and its bytes as literals.

Invariants: nothing is announced before its first bytes have been read; once a literal is announced it is filled, or
the connection ends. At most IMAP_CHUNK_BYTES are read ahead of the socket.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from fastmta import _imap, _mime
from fastmta.imap.fetch_binary import Encodings, encodings_of, write_binary
from fastmta.imap.fetch_lines import NEVER_RECENT, NO_CAP, fetch_lines
from fastmta.imap.fetch_plan import PREVIEW, Plan, Section
from fastmta.imap.preview import preview_of
from fastmta.imap.session import State
from fastmta.model.errors import StorageFailure
from fastmta.model.limits import IMAP_CHUNK_BYTES, IMAP_HEADER_BYTES, IMAP_HEADER_PIECE_BYTES

if TYPE_CHECKING:
    from fastmta.imap.session import Session
    from fastmta.imap.view import View
    from fastmta.store.mailboxes import MessageRow


async def write_message(
    session: Session, view: View, plan: Plan, items: int, seq: int, uid: int, row: MessageRow
) -> bool:
    """One message's FETCH response with these items and the plan's sections; False where one could not be decoded.

    In state LOGOUT afterwards, it was cut off.
    """
    mailboxes = session.mailboxes
    known = True
    head = b""
    if items:
        recent_from = 0 if view.is_recent(uid) else NEVER_RECENT
        head, _ = fetch_lines(
            mailboxes,
            view.mailbox_id,
            array("I", (seq,)),
            array("I", (uid,)),
            items,
            0,
            IMAP_CHUNK_BYTES,
            recent_from=recent_from,
            modseq_cap=NO_CAP if plan.by_uid else view.modseq_cap,
            name=view.namer(session.write),
        )
        if not head:
            return True
        head = head[:-3]  # without ")\r\n"
    separator = b"" if not head or head.endswith(b"(") else b" "
    record: bytes | None = None
    encodings: Encodings | None = None  # of all parts, once for all sections
    write = session.write
    write(head or b"* %d FETCH (" % seq)
    for section in plan.sections:
        write(separator + section.label)
        separator = b" "
        try:
            if section.place and record is None:
                record = mailboxes.structure(view.mailbox_id, uid) or b""
            if section == PREVIEW:
                text = await preview_of(mailboxes, view.mailbox_id, uid, row)
                write(b" " + (_imap.quoted(text) if text.isascii() else b"{%d}\r\n%b" % (len(text), text)))
            elif section.decodes:
                if encodings is None and record:
                    encodings = encodings_of(record)
                known &= await write_binary(session, encodings or {}, row, section, _place(record, row, section))
            elif section.fields is not None:
                await _write_header_subset(session, record, row, section)
            else:
                await _span(session, view.mailbox_id, uid, record, row, section)
        except StorageFailure:
            write(b" NIL)\r\n")  # the response ends as it must, and the command with NO
            raise
        if session.wire.written() >= IMAP_CHUNK_BYTES:
            await session.wire.flush()
        else:
            await session.wire.pause()
        if session.state == State.LOGOUT:
            return known
    write(b")\r\n")
    return known


def without_nuls(data: bytes) -> bytes:
    """With 0x80 in the place of NUL, which no literal may hold (CHAR8, RFC 9051 §9); BINARY gives the octets."""
    return data.replace(b"\0", b"\x80")


async def _write_whole(session: Session, data: bytes) -> None:
    """Bytes that are all there, no faster than the peer takes them."""
    if len(data) <= IMAP_CHUNK_BYTES:
        session.write(data)
        return
    for start in range(0, len(data), IMAP_CHUNK_BYTES):
        if session.wire.written():
            await session.wire.flush()
        if session.state == State.LOGOUT:
            return
        session.write(data[start : start + IMAP_CHUNK_BYTES])


def _place(record: bytes | None, row: MessageRow, section: Section) -> tuple[int, int] | None:
    """Where the section lies in what Mailboxes.read gives, before its partial is cut out."""
    if not section.place:
        return 0, row.size
    if not record:
        return None
    return _mime.find_part(record, section.place, len(row.prefix))


async def _write_header_subset(session: Session, record: bytes | None, row: MessageRow, section: Section) -> None:
    """HEADER.FIELDS and HEADER.FIELDS.NOT; the header's last empty line is part of both (RFC 3501 §6.4.5)."""
    place = _place(record, row, section)
    data = None if place is None else await _header_subset(session, row, *place, section)
    if data is None:
        session.write(b" NIL")
    elif session.state != State.LOGOUT:
        session.write(b" {%d}\r\n" % len(data))
        await _write_whole(session, without_nuls(data))


async def _header_subset(session: Session, row: MessageRow, offset: int, length: int, section: Section) -> bytes | None:
    """What of the header at `offset`, up to IMAP_HEADER_BYTES of it, the section asks for; None where the message is
    gone. Others have their turn between two pieces."""
    picked = _mime.HeaderFields(section.fields or (), section.invert)
    needed = section.begin + section.length if section.length >= 0 else IMAP_HEADER_BYTES + 4
    ends_at = offset + min(length, IMAP_HEADER_BYTES)
    found: list[bytes] = []
    size = 0
    session.mailboxes.hold(row)
    try:
        while offset < ends_at and size < needed and not picked.done:
            length = min(ends_at - offset, IMAP_HEADER_PIECE_BYTES)
            waiting = session.mailboxes.need_on(row, offset, length)
            if waiting is not None:
                await waiting
                if session.state == State.LOGOUT:
                    return None
            piece = session.mailboxes.read_on(row, offset, length)
            if piece is None:
                return None
            if not piece:
                break
            offset += len(piece)
            found.append(picked.feed(piece))
            size += len(found[-1])
            if session.wire.turn_is_over():
                await session.wire.pause()
                if session.state == State.LOGOUT:
                    return None
    finally:
        session.mailboxes.release(row)
    found.append(picked.end())
    data = b"".join(found)
    return data if section.length < 0 else data[section.begin : needed]


async def _span(
    session: Session, mailbox_id: int, uid: int, record: bytes | None, row: MessageRow, section: Section
) -> None:
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
    waiting = session.mailboxes.need_on(row, offset, min(length, IMAP_CHUNK_BYTES))
    if waiting is not None:
        await waiting
    data = session.mailboxes.read(mailbox_id, uid, offset, min(length, IMAP_CHUNK_BYTES))
    if not data:
        session.write(b" NIL")
        return
    await _literal(session, row, offset, length, data)


async def write_octets(session: Session, row: MessageRow, offset: int, length: int) -> None:
    """Octets of a message as a literal, a piece at a time; NIL where the message is gone."""
    if length == 0:
        session.write(b' ""')
        return
    waiting = session.mailboxes.need_on(row, offset, min(length, IMAP_CHUNK_BYTES))
    if waiting is not None:
        await waiting
    data = session.mailboxes.read_on(row, offset, min(length, IMAP_CHUNK_BYTES))
    if not data:
        session.write(b" NIL")
        return
    await _literal(session, row, offset, length, data)


async def _literal(session: Session, row: MessageRow, offset: int, length: int, data: bytes) -> None:
    """A literal whose first octets are `data`."""
    session.write(b" {%d}\r\n" % length)
    session.write(without_nuls(data))
    sent = len(data)
    if sent == length:
        return
    session.mailboxes.hold(row)
    try:
        while sent < length:
            await session.wire.flush()
            if session.state == State.LOGOUT:
                break
            waiting = session.mailboxes.need_on(row, offset + sent, min(length - sent, IMAP_CHUNK_BYTES))
            if waiting is not None:
                await waiting
                if session.state == State.LOGOUT:
                    break
            # By its row: another session's EXPUNGE must not cost this one its connection.
            piece = session.mailboxes.read_on(row, offset + sent, min(length - sent, IMAP_CHUNK_BYTES))
            if not piece:
                break
            session.write(without_nuls(piece))
            sent += len(piece)
    finally:
        session.mailboxes.release(row)
        if sent < length:
            session.wire.abort()  # an announced literal that can't be filled ends the connection
