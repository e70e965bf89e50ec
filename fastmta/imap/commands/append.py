"""APPEND (RFC 3501 §6.3.11) of one message or several (RFC 3502); imap/upload.py takes the messages in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastmta.imap.append_plan import argument
from fastmta.imap.upload import NO_MAILBOX, Target, whole
from fastmta.model import rights

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session


def target(session: Session, verb: bytes, cursor: Cursor) -> Target | bytes:
    """The arguments before the first message: where it goes, or why it can't. BadSyntax, BadName, Argument."""
    cursor.sp()
    raw_name = argument(cursor)
    cursor.sp()
    box = session.box_named(session.name_of(raw_name), rights.INSERT, NO_MAILBOX)
    return box if isinstance(box, bytes) else Target(verb, box.id, box.account_id, lost=rights.kept_flags(box.rights))


def run(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    """A whole command without a literal that is a message."""
    to = target(session, b"APPEND", cursor)
    return to if isinstance(to, bytes) else whole(session, tag, to, cursor)
