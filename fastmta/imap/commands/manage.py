"""CREATE, DELETE, RENAME, SUBSCRIBE, UNSUBSCRIBE (RFC 3501 §6.3.3 to §6.3.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastmta._imap import BadSyntax
from fastmta.imap import mailbox_name
from fastmta.imap.commands.listing import write_list_line
from fastmta.imap.mailbox_name import SEPARATOR
from fastmta.imap.session import REFUSALS, Feature
from fastmta.model import rights

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session

# What CREATE can make a mailbox for; \\All and \\Flagged would be views over other mailboxes (RFC 6154 §2).
SPECIAL_USES: Final = {use.upper().encode(): use for use in ("\\Archive", "\\Drafts", "\\Junk", "\\Sent", "\\Trash")}


def _name(session: Session, cursor: Cursor) -> str:
    cursor.sp()
    return session.name_of(cursor.astring())


def create(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    name = _name(session, cursor)
    uses = _uses(cursor) if cursor.try_sp() else []
    cursor.end()
    # A separator at the end only says that children will follow (RFC 3501 §6.3.3).
    name = name.removesuffix(SEPARATOR)
    mailbox_name.require_creatable(name)
    if not all(use.upper() in SPECIAL_USES for use in uses):
        return b"NO [USEATTR] No mailbox can be made for this use"
    special_use = " ".join(sorted({SPECIAL_USES[use.upper()] for use in uses}))
    return _create(session, name, special_use)


async def _create(session: Session, name: str, special_use: str) -> bytes:
    session.renames(name)
    box = await session.access.create(session.actor, name, special_use)
    return b"OK [MAILBOXID (%b)] CREATE completed" % mailbox_name.object_id(box.id)


def _uses(cursor: Cursor) -> list[bytes]:
    """CREATE's parameters (RFC 4466 §2.2): of them, USE alone is known (RFC 6154 §3)."""
    cursor.open()
    if cursor.atom() != b"USE":
        raise BadSyntax("Unknown parameter")
    cursor.sp()
    uses = cursor.flag_list()
    cursor.close()
    return uses


def delete(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    name = _name(session, cursor)
    cursor.end()
    if name == "INBOX":
        return b"NO [CANNOT] INBOX can't be deleted"
    box = session.box_named(name, rights.DELETE)
    if isinstance(box, bytes):
        if box == REFUSALS["missing"] and session.access.has_inferiors(session.actor, name):
            return b"NO [CANNOT] Only a name with inferiors, no mailbox"  # RFC 3501 §6.3.4, \Noselect
        return box
    if session.view is not None and session.view.mailbox_id == box.id:
        session.unselect()
        session.write(b"* OK [CLOSED] The selected mailbox is being deleted\r\n")
    session.renames(box.name)
    return _delete(session, box.id)


async def _delete(session: Session, mailbox_id: int) -> bytes:
    await session.mailboxes.delete(mailbox_id)
    return b"OK DELETE completed"


def rename(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    old = _name(session, cursor)
    new = _name(session, cursor).removesuffix(SEPARATOR)
    cursor.end()
    mailbox_name.require_creatable(new)
    box = session.box_named(old, rights.DELETE)
    if isinstance(box, bytes) and not (box == REFUSALS["missing"] and session.access.has_inferiors(session.actor, old)):
        return box
    if new == "INBOX" or not isinstance(session.box_named(new, rights.ALL), bytes):
        return REFUSALS["exists"]
    if new == old or (old != "INBOX" and new.startswith(old + SEPARATOR)):
        return b"NO [CANNOT] A mailbox can't become its own inferior"
    return _rename(session, old, new)


async def _rename(session: Session, old: str, new: str) -> bytes:
    if old != "INBOX":
        for page in session.access.inferiors(session.actor, old):
            for box in page:
                mailbox_name.require_creatable(new + box.name[len(old) :])
            await session.wire.pause()
    session.renames(old, new)
    await session.access.rename(session.actor, old, new)
    renamed = session.box_named(new, rights.LOOKUP)
    if session.enabled & Feature.REV2 and not isinstance(renamed, bytes):
        write_list_line(session, renamed, old)
    return b"OK RENAME completed"


def subscribe(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    name = _name(session, cursor).removesuffix(SEPARATOR)
    cursor.end()
    box = session.box_named(name, rights.LOOKUP)
    if isinstance(box, bytes) and not session.access.has_inferiors(session.actor, name):
        return box
    return _subscribe(session, name if isinstance(box, bytes) else box.name)  # as LIST has it


async def _subscribe(session: Session, name: str) -> bytes:
    session.renames(name)
    await session.access.subscribe(session.actor, name)
    return b"OK SUBSCRIBE completed"


def unsubscribe(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    name = _name(session, cursor).removesuffix(SEPARATOR)
    cursor.end()
    if not session.access.is_subscribed(session.actor, name):
        box = session.box_named(name, rights.LOOKUP)
        if isinstance(box, bytes) or not session.access.is_subscribed(session.actor, box.name):
            return b"OK UNSUBSCRIBE completed"  # it is as the client wants it
        name = box.name
    return _unsubscribe(session, name)


async def _unsubscribe(session: Session, name: str) -> bytes:
    session.renames(name)
    await session.access.unsubscribe(session.actor, name)
    return b"OK UNSUBSCRIBE completed"
