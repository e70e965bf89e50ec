"""EXPUNGE, UID EXPUNGE (RFC 3501 §6.4.3, RFC 4315 §2.1): what went is told when the command ends."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from fastmta.imap import message_set
from fastmta.model import rights

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session

READ_ONLY = b"NO [READ-ONLY] The mailbox is read-only"
NOT_PERMITTED = b": permission denied"  # as Dovecot has it: clients that clean up unasked would show an error


def expunge(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.end()
    if session.selected.read_only:
        return READ_ONLY
    return _expunge(session, None) if session.rights & rights.EXPUNGE else b"OK EXPUNGE ignored" + NOT_PERMITTED


def uid_expunge(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.sp()
    named = message_set.parse(session, cursor, by_uid=True)
    cursor.end()
    if session.selected.read_only:
        return READ_ONLY
    if not session.rights & rights.EXPUNGE:
        return b"OK UID EXPUNGE ignored" + NOT_PERMITTED
    _seqs, uids = named.choose(session.selected).all()
    return _expunge(session, uids) if uids else b"OK UID EXPUNGE completed"


async def _expunge(session: Session, uids: array[int] | None) -> bytes:
    await session.mailboxes.expunge(session.selected.mailbox_id, uids, True)
    return b"OK EXPUNGE completed" if uids is None else b"OK UID EXPUNGE completed"
