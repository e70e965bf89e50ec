"""GETMETADATA and SETMETADATA (RFC 5464): annotations of mailboxes and, under the empty name, of the account.

Entries under /shared are the mailbox owner's, those under /private of whoever sets them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastmta._imap import BadSyntax
from fastmta.imap import metadata_entries
from fastmta.imap.commands.listing import listed
from fastmta.imap.metadata_entries import SHARED, Place
from fastmta.model import rights
from fastmta.model.errors import Refused
from fastmta.model.limits import (
    IMAP_METADATA_BYTES,
    IMAP_METADATA_ENTRIES,
    IMAP_METADATA_NAMED,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session

DONE: Final = b"OK GETMETADATA completed"
SERVER: Final = 0  # in place of a mailbox's id
_DEPTHS: Final = {b"0": 0, b"1": 1, b"INFINITY": metadata_entries.ANY_DEPTH}


def get_metadata(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.sp()
    options = metadata_entries.Options()
    if cursor.at(0x28):
        options = _options(cursor)
        cursor.sp()
    raw_name = cursor.astring()
    cursor.sp()
    wanted = metadata_entries.entries(cursor)
    cursor.end()
    place = _place(session, raw_name, rights.READ)
    if isinstance(place, bytes):
        return place
    name = session.name_of(raw_name) if raw_name else ""
    lines = metadata_entries.metadata_lines(session, name, place, wanted, options)
    return _told(options, listed(session, lines, DONE))


def _told(options: metadata_entries.Options, answer: Answer) -> Answer:
    """The tagged text, with the length of the longest value that was left out."""
    if isinstance(answer, bytes):
        if answer and options.longest:
            return b"OK [METADATA LONGENTRIES %d]%b" % (options.longest, answer[2:])
        return answer
    return _told_later(options, answer) if answer is not None else None


async def _told_later(options: metadata_entries.Options, answer: Awaitable[bytes]) -> bytes:
    text = _told(options, await answer)
    return text if isinstance(text, bytes) else b""


def _place(session: Session, raw_name: bytes, right: int) -> Place | bytes:
    if not raw_name:
        return Place(session.account_id, SERVER)
    box = session.box_named(session.name_of(raw_name), right)
    return box if isinstance(box, bytes) else Place(box.account_id, box.id)


def _options(cursor: Cursor) -> metadata_entries.Options:
    options = metadata_entries.Options()
    cursor.open()
    while True:
        name = cursor.atom()
        cursor.sp()
        if name == b"MAXSIZE":
            options.max_size = cursor.number()
        elif name == b"DEPTH":
            depth = _DEPTHS.get(cursor.atom())
            if depth is None:
                raise BadSyntax("DEPTH is 0, 1 or infinity")
            options.depth = depth
        else:
            raise BadSyntax("Unknown option")
        if cursor.try_close():
            return options
        cursor.sp()


def set_metadata(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.sp()
    raw_name = cursor.astring()
    cursor.sp()
    changes: list[tuple[bytes, bytes | None]] = []
    cursor.open()
    while True:
        entry = metadata_entries.entry(cursor)
        cursor.sp()
        cursor.take(0x7E)  # a literal8
        changes.append((entry, cursor.nstring()))
        if len(changes) > IMAP_METADATA_NAMED:
            raise BadSyntax("Too many entries")
        if cursor.try_close():
            break
        cursor.sp()
    cursor.end()
    shares = any(entry.startswith(SHARED) for entry, _ in changes)
    place = _place(session, raw_name, rights.WRITE if shares else rights.READ)
    if isinstance(place, bytes):
        return place
    if any(entry.count(b"/") < 2 for entry, _ in changes):
        raise BadSyntax("Entry name expected")
    if place.mailbox_id == SERVER and shares:
        return b"NO [NOPERM] The server's shared entries are set by the administrator"
    if any(value is not None and len(value) > IMAP_METADATA_BYTES for _, value in changes):
        return b"NO [METADATA MAXSIZE %d] Value is too long" % IMAP_METADATA_BYTES
    return _set(session, place, changes)


async def _set(session: Session, place: Place, changes: list[tuple[bytes, bytes | None]]) -> bytes:
    annotations = session.services.store.annotations
    try:
        for holder in dict.fromkeys((place.owner_id, session.account_id)):
            held = [change for change in changes if place.holder(session.account_id, change[0]) == holder]
            if held:
                await annotations.set(holder, place.mailbox_id, held, IMAP_METADATA_ENTRIES)
    except Refused as refusal:
        if refusal.code != "limit":
            raise
        return b"NO [METADATA TOOMANY] Too many entries"
    return b"OK SETMETADATA completed"
