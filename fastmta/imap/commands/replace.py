"""REPLACE and UID REPLACE (RFC 8508): a new message comes and an old one goes, in one step."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from fastmta._imap import BadSyntax
from fastmta.imap import message_set
from fastmta.imap.commands import append
from fastmta.imap.commands.expunge import READ_ONLY
from fastmta.imap.session import GONE, REFUSALS
from fastmta.imap.upload import Target, whole
from fastmta.model import rights

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session


def target(session: Session, verb: bytes, cursor: Cursor) -> Target | bytes:
    """The old message's number or uid, and where the new one goes. BadSyntax, BadName, Argument."""
    cursor.sp()
    named = message_set.parse(session, cursor, by_uid=verb.startswith(b"UID"))
    if len(named.pairs) != 2 or named.pairs[0] != named.pairs[1]:
        raise BadSyntax("One message expected")
    to = append.target(session, verb, cursor)
    view = session.selected
    _seqs, uids = named.choose(view).all()
    if isinstance(to, bytes):
        return to
    if view.read_only:
        return READ_ONLY
    if not session.rights & rights.EXPUNGE:
        return REFUSALS["forbidden"]
    rows = session.mailboxes.rows(view.mailbox_id, array("I", uids))
    if not rows:
        return GONE if uids else b"NO No such message"
    return Target(verb, to.mailbox_id, to.owner_id, (view.mailbox_id, uids[0], rows[0].size), to.lost)


def replace(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    return _replace(session, tag, b"REPLACE", cursor)


def uid_replace(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    return _replace(session, tag, b"UID REPLACE", cursor)


def _replace(session: Session, tag: bytes, verb: bytes, cursor: Cursor) -> Answer:
    to = target(session, verb, cursor)
    return to if isinstance(to, bytes) else whole(session, tag, to, cursor)
