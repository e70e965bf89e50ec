"""GETACL, SETACL, DELETEACL, LISTRIGHTS, MYRIGHTS (RFC 4314): what others may do in a mailbox.

Its owner has all rights, and nobody can take one from him. Letters and answers are Dovecot's, RFC 2086's "c" and "d"
among them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastmta import _imap
from fastmta._imap import BadSyntax
from fastmta.imap.commands.listing import my_rights_line
from fastmta.imap.session import REFUSALS
from fastmta.model import rights
from fastmta.model.errors import Refused

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session
    from fastmta.store.mailbox_names import Mailbox

_HOW: Final = {"+": 1, "-": 2}  # store/acl.py: ADD, TAKE; else SET
_EVERYBODY: Final = frozenset(("anyone", "authenticated"))
_NO_ADMIN: Final = b"NO [NOPERM] The right to administer this mailbox is not given to you"
_REFUSALS: Final = {
    "unknown": b"NO [CANNOT] Nobody here is called so",
    "owner": b"NO [CANNOT] The owner has all rights",
    "limit": b"NO [LIMIT] Too many entries",
}


def get_acl(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.sp()
    name = session.name_of(cursor.astring())
    cursor.end()
    box = _administered(session, name)
    if isinstance(box, bytes):
        return box
    owner = session.access.owner_address(box)
    entries = [
        (owner, rights.ALL),
        *((each.identifier, each.rights) for each in session.access.list(session.actor, name)),
    ]
    told = b"".join(b" %b %b" % (_text(identifier), _letters(held)) for identifier, held in entries)
    session.write(b"* ACL %b%b\r\n" % (session.written_name(name), told))
    return b"OK GETACL completed"


def set_acl(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    name, identifier = _subject(session, cursor)
    cursor.sp()
    text = cursor.astring().decode("ascii", "replace")
    cursor.end()
    how = _HOW.get(text[:1], 0)
    given = rights.parse(text[1:] if how else text)
    if given is None:
        raise BadSyntax("Unknown right")
    box = _administered(session, name)
    if isinstance(box, bytes):
        return box
    if identifier.removeprefix("-").lower() in _EVERYBODY and session.services.config.acl_anyone != "allow":
        return b"NO [NOPERM] Mailboxes are not shared with everybody here"
    return _set(session, name, identifier, given, how)


async def _set(session: Session, name: str, identifier: str, given: int, how: int) -> bytes:
    try:
        await session.access.give(session.actor, name, identifier, given, how)
    except Refused as refusal:
        return _REFUSALS.get(refusal.code) or REFUSALS.get(refusal.code, b"NO Refused")
    _note(session, name, identifier, "+-"[how - 1] * (how > 0) + rights.letters(given))
    return b"OK SETACL completed"


def delete_acl(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    name, identifier = _subject(session, cursor)
    cursor.end()
    box = _administered(session, name)
    return box if isinstance(box, bytes) else _delete(session, name, identifier)


async def _delete(session: Session, name: str, identifier: str) -> bytes:
    try:
        if await session.access.take(session.actor, name, identifier):
            _note(session, name, identifier, "")
    except Refused as refusal:
        if refusal.code != "unknown":  # whoever is not known has no rights: it is as the client wants it
            return REFUSALS.get(refusal.code, b"NO Refused")
    return b"OK DELETEACL completed"


def list_rights(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    name, identifier = _subject(session, cursor)
    cursor.end()
    box = _administered(session, name)
    if isinstance(box, bytes):
        return box
    if identifier.lower() == session.access.owner_address(box):
        granted = rights.letters(rights.ALL).encode()  # always, and nothing else can be
    else:
        granted = b'"" ' + " ".join(rights.with_virtual(rights.ALL)).encode()
    session.write(b"* LISTRIGHTS %b %b %b\r\n" % (session.written_name(name), _text(identifier), granted))
    return b"OK LISTRIGHTS completed"


def my_rights(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.sp()
    name = session.name_of(cursor.astring())
    cursor.end()
    box = session.box_named(name, rights.ALL)
    if isinstance(box, bytes):
        return box
    session.write(my_rights_line(session, name, box.rights))
    return b"OK MYRIGHTS completed"


def _administered(session: Session, name: str) -> Mailbox | bytes:
    box = session.box_named(name, rights.ADMIN)
    return _NO_ADMIN if box == REFUSALS["forbidden"] else box


def _subject(session: Session, cursor: Cursor) -> tuple[str, str]:
    """A mailbox's name, and an identifier. BadSyntax, BadName."""
    cursor.sp()
    name = session.name_of(cursor.astring())
    cursor.sp()
    try:
        return name, cursor.astring().decode("utf-8")
    except UnicodeDecodeError:
        raise BadSyntax("Identifier is not UTF-8") from None


def _text(identifier: str) -> bytes:
    return _imap.astring(identifier.encode()) if identifier.isascii() else _imap.quoted(identifier.encode())


def _letters(held: int) -> bytes:
    return _imap.astring(rights.with_virtual(held).encode())


def _note(session: Session, name: str, identifier: str, given: str) -> None:
    """Who may read whose mail is told in the log."""
    log = session.services.log
    log.info("imap.acl", account=session.address, mailbox=name, identifier=identifier, rights=given or "-")
