"""COPY and MOVE with their UID forms (RFC 3501 §6.4.7, RFC 6851), with COPYUID (RFC 4315 §3)."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from fastmta import _imap
from fastmta.imap import message_set
from fastmta.imap.commands.expunge import READ_ONLY

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session


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
    _seqs, uids = named.choose(view)
    name = session.name_of(raw_name)
    target = session.access.find(session.actor, name)
    if target is None:
        return b"NO [TRYCREATE] Mailbox does not exist"
    if move and view.read_only:
        return READ_ONLY
    done = b"OK %b completed" % (b"MOVE" if move else b"COPY")
    return _run(session, uids, target.id, move, done) if uids else done


async def _run(session: Session, uids: array[int], target_id: int, move: bool, done: bytes) -> bytes:
    validity, source, target = await session.mailboxes.copy(session.selected.mailbox_id, uids, target_id, move=move)
    if not source:
        return b"NO [EXPUNGEISSUED] The messages no longer exist"
    code = b"[COPYUID %d %b %b]" % (validity, _imap.uid_set(source), _imap.uid_set(target))
    if move:
        session.write(b"* OK %b Moved\r\n" % code)  # before the EXPUNGE responses, RFC 6851 §4.3
        return done
    return b"OK %b%b" % (code, done[2:])
