"""COPY and MOVE with their UID forms (RFC 3501 §6.4.7, RFC 6851), with COPYUID (RFC 4315 §3)."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from fastmta import _imap
from fastmta.imap import message_set
from fastmta.imap.commands.expunge import READ_ONLY
from fastmta.imap.session import REFUSALS
from fastmta.imap.upload import NO_MAILBOX
from fastmta.model import rights

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session
    from fastmta.store.mailbox_names import Mailbox


def copy(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    return _transfer(session, cursor, by_uid=False, move=False)


def uid_copy(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    return _transfer(session, cursor, by_uid=True, move=False)


def move(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    return _transfer(session, cursor, by_uid=False, move=True)


def uid_move(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    return _transfer(session, cursor, by_uid=True, move=True)


def _transfer(session: Session, cursor: Cursor, *, by_uid: bool, move: bool) -> Answer:
    cursor.sp()
    named = message_set.parse(session, cursor, by_uid=by_uid)
    cursor.sp()
    raw_name = cursor.astring()
    cursor.end()
    view = session.selected
    _seqs, uids = named.choose(view).all()
    box = session.box_named(session.name_of(raw_name), rights.INSERT, NO_MAILBOX)
    if isinstance(box, bytes):
        return box
    if move and view.read_only:
        return READ_ONLY
    if move and not session.rights & rights.EXPUNGE:
        return REFUSALS["forbidden"]
    done = b"OK %b completed" % (b"MOVE" if move else b"COPY")
    return _run(session, uids, box, move, done) if uids else done


async def _run(session: Session, uids: array[int], box: Mailbox, move: bool, done: bytes) -> bytes:
    validity, source, target = await session.mailboxes.copy(
        session.selected.mailbox_id, uids, box.id, move=move, lost=rights.kept_flags(box.rights)
    )
    if not source:
        return b"NO [EXPUNGEISSUED] The messages no longer exist"
    session.filed(box.id, target)
    code = b"[COPYUID %d %b %b]" % (validity, _imap.uid_set(source), _imap.uid_set(target))
    if move:
        session.write(b"* OK %b Moved\r\n" % code)  # before the EXPUNGE responses, RFC 6851 §4.3
        return done
    return b"OK %b%b" % (code, done[2:])
