"""Annotations on the wire (RFC 5464): names of entries, and the METADATA response, for LIST too (RFC 9590)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import msgspec

from fastmta import _imap
from fastmta._imap import BadSyntax
from fastmta.model.limits import IMAP_METADATA_ENTRIES, IMAP_METADATA_ENTRY_BYTES, IMAP_METADATA_NAMED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastmta._imap import Cursor
    from fastmta.imap.session import Session

_ENTRY: Final = re.compile(rb"/(?:private|shared)(?:/[^/*%\x00-\x19\x7f-\xff]+)*")
SHARED: Final = b"/shared/"
ANY_DEPTH: Final = 1_000
RESPONSE_BYTES: Final = 65_536  # of a METADATA response, and one value more


class Place(msgspec.Struct, frozen=True):
    """A mailbox, or an account where `mailbox_id` is 0, and whose it is."""

    owner_id: int
    mailbox_id: int

    def holder(self, account_id: int, entry: bytes) -> int:
        """The account that an entry is kept with: what is shared with the owner, what is private with its maker."""
        return self.owner_id if entry.startswith(SHARED) else account_id


class Options(msgspec.Struct):
    """What GETMETADATA is to leave out: values longer than `max_size` (-1: none), entries deeper than `depth`."""

    max_size: int = -1
    depth: int = 0
    longest: int = 0  # of the values that were left out


def entries(cursor: Cursor) -> list[bytes]:
    """One entry's name, or several in parentheses, in lower case. BadSyntax."""
    if not cursor.try_open():
        return [entry(cursor)]
    out: list[bytes] = []
    while True:
        out.append(entry(cursor))
        if len(out) > IMAP_METADATA_NAMED:
            raise BadSyntax("Too many entries")
        if cursor.try_close():
            return out
        cursor.sp()


def entry(cursor: Cursor) -> bytes:
    """The name of an entry, in lower case. BadSyntax."""
    name = cursor.astring().lower()
    if _ENTRY.fullmatch(name) is None or len(name) > IMAP_METADATA_ENTRY_BYTES:
        raise BadSyntax("Entry name expected")
    return name


def metadata_lines(
    session: Session, name: str, place: Place, wanted: Sequence[bytes], options: Options
) -> Iterator[bytes]:
    """METADATA responses, each of a bounded length; notes in the options what was left out."""
    found: list[bytes] = []
    size = 0
    for entry, value in _found(session, place, wanted, options.depth):
        if value is not None and 0 <= options.max_size < len(value):
            options.longest = max(options.longest, len(value))
            continue
        found.append(_imap.astring(entry) + b" " + (b"NIL" if value is None else _imap.quoted(value)))
        size += len(found[-1])
        if size >= RESPONSE_BYTES:
            yield _response(session, name, found)
            found, size = [], 0
    if found:
        yield _response(session, name, found)


def _response(session: Session, name: str, found: Sequence[bytes]) -> bytes:
    return b"* METADATA %b (%b)\r\n" % (session.written_name(name), b" ".join(found))


def _found(session: Session, place: Place, wanted: Sequence[bytes], depth: int) -> Iterator[tuple[bytes, bytes | None]]:
    """(entry, value), None for one that was named and is not there."""
    annotations = session.services.store.annotations
    if depth == 0:
        for entry in dict.fromkeys(wanted):
            yield entry, annotations.get(place.holder(session.account_id, entry), place.mailbox_id, entry)
        return
    for holder in dict.fromkeys((session.account_id, place.owner_id)):
        for entry, value in annotations.list(holder, place.mailbox_id, IMAP_METADATA_ENTRIES):
            if place.holder(session.account_id, entry) != holder:
                continue
            levels = (entry[len(above) :].count(b"/") for above in wanted if (entry + b"/").startswith(above + b"/"))
            if min(levels, default=depth + 1) <= depth:
                yield entry, value
