"""IMAP URLs (RFC 5092) of an account's own messages, as CATENATE takes them (RFC 4469): which octets they name."""

from __future__ import annotations

import re
from array import array
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

import msgspec

from fastmta import _mime
from fastmta._imap import BadSyntax, Cursor
from fastmta.imap import mailbox_name
from fastmta.imap.fetch_plan import Section, parse_section
from fastmta.imap.mailbox_name import BadName
from fastmta.model import rights
from fastmta.model.limits import IMAP_HEADER_BYTES, IMAP_URL_BYTES

if TYPE_CHECKING:
    from fastmta.imap.seams import Mailboxes
    from fastmta.imap.session import Session
    from fastmta.store.mailbox_names import Mailbox
    from fastmta.store.mailboxes import MessageRow

_ABSOLUTE: Final = re.compile(rb"imap://(?:([^@/;]*)(?:;AUTH=[^@/]*)?@)?([^/@:]*)(?::[0-9]*)?", re.IGNORECASE)
_PATH: Final = re.compile(
    rb"(?:/?([^;]*?)(?:;UIDVALIDITY=([0-9]{1,10}))?/?)"
    rb";UID=([0-9]{1,10})(?:/;SECTION=([^;]+?))?(?:/;PARTIAL=([0-9]{1,10})(?:\.([0-9]{1,10}))?)?",
    re.IGNORECASE,
)


class Url(msgspec.Struct, frozen=True):
    """`user` is empty in a relative one, and an address in any other: a bare name is one at the URL's host. An empty
    `mailbox` is the selected one. `section` is b"" for all.
    """

    user: str
    mailbox: str
    uid_validity: int
    uid: int
    section: bytes
    begin: int = 0
    length: int = -1  # -1: to the end


class Source(msgspec.Struct, frozen=True):
    """Octets of a message: of its row's from `offset` on, or `data` where they don't lie in one piece."""

    row: MessageRow
    offset: int
    length: int
    data: bytes | None = None


def parse(raw: bytes) -> Url | None:
    """None for what is not the URL of a message or of a part of one."""
    if len(raw) > IMAP_URL_BYTES:
        return None
    user, path = b"", raw
    absolute = _ABSOLUTE.match(raw)
    if absolute is not None:
        user, path = unquote_to_bytes(absolute[1] or b""), raw[absolute.end() :]
        if not user:
            return None
        if b"@" not in user:
            user += b"@" + absolute[2]
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    name, validity, uid, section, begin, length = match.groups()
    try:
        mailbox = mailbox_name.canonical(unquote_to_bytes(name).decode("utf-8")) if name else ""
        return Url(
            user.decode("utf-8"),
            mailbox,
            int(validity or 0),
            int(uid),
            unquote_to_bytes(section or b""),
            int(begin or 0),
            -1 if length is None else int(length),
        )
    except UnicodeDecodeError:
        return None


def resolve(session: Session, raw: bytes) -> Source | bytes:
    """The octets that a URL names, or the refusal of a command that wants them."""
    url = parse(raw)
    if url is None:
        return _bad(raw, b"Not the URL of a message")
    if url.user and url.user.lower() != session.address.lower():
        return _bad(raw, b"Only own messages can be named")
    try:
        section = _section(url.section)
        box = session.box_named(url.mailbox, rights.READ) if url.mailbox else _selected(session)
    except (BadSyntax, BadName):
        return _bad(raw, b"No such section")
    if box is None or isinstance(box, bytes):
        return _bad(raw, b"No such mailbox")
    found = _found(session.mailboxes, box, url, section)
    return found if isinstance(found, Source) else _bad(raw, found)


def resolve_in(mailboxes: Mailboxes, box: Mailbox, url: Url) -> Source | bytes:
    """The octets that a URL names in a mailbox that may be read, or why there are none."""
    try:
        return _found(mailboxes, box, url, _section(url.section))
    except BadSyntax:
        return b"No such section"


def unquoted(raw: bytes) -> str:
    """A user's name in a URL."""
    return unquote_to_bytes(raw).decode("utf-8", "replace")


def _found(mailboxes: Mailboxes, box: Mailbox, url: Url, section: Section) -> Source | bytes:
    if url.uid_validity and url.uid_validity != box.uid_validity:
        return b"No such mailbox"
    rows = mailboxes.rows(box.id, array("I", (url.uid,))) if 0 < url.uid < 2**32 else ()
    if not rows:
        return b"No such message"
    source = _source(mailboxes, box.id, rows[0], section)
    if source is None:
        return b"No such part"
    return _cut(source, url)


def _section(raw: bytes) -> Section:
    """BadSyntax."""
    if not raw:
        return Section(b"", b"")
    cursor = Cursor(raw + b"]")
    section = parse_section(cursor)
    cursor.end()
    return section


def _selected(session: Session) -> Mailbox | None:
    box = session.access.by_id(session.actor, session.view.mailbox_id) if session.view is not None else None
    return box if box is not None and box.rights & rights.READ else None


def _bad(raw: bytes, text: bytes) -> bytes:
    """RFC 4469 §4: the URL is told, as far as it can be."""
    shown = bytes(octet for octet in raw[:IMAP_URL_BYTES] if 0x20 < octet < 0x7F and octet not in b'"\\]')
    return b"NO [BADURL %b] %b" % (shown, text)


def _source(mailboxes: Mailboxes, mailbox_id: int, row: MessageRow, section: Section) -> Source | None:
    if not section.place:
        return Source(row, 0, row.size)
    record = mailboxes.structure(mailbox_id, row.uid)
    place = _mime.find_part(record, section.place, len(row.prefix)) if record else None
    if place is None:
        return None
    if section.fields is None:
        return Source(row, *place)
    raw_header = mailboxes.read(mailbox_id, row.uid, place[0], min(place[1], IMAP_HEADER_BYTES)) or b""
    data = _mime.header_fields(raw_header, section.fields, section.invert)
    return Source(row, 0, len(data), data)


def _cut(source: Source, url: Url) -> Source:
    begin = min(url.begin, source.length)
    length = source.length - begin if url.length < 0 else min(url.length, source.length - begin)
    data = None if source.data is None else source.data[begin : begin + length]
    return Source(source.row, source.offset + begin, length, data)
