"""What a FETCH asks for (RFC 3501 §6.4.5, §9 fetch-att): bits for the store's loop, sections for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from fastmta import _imap
from fastmta._imap import BadSyntax
from fastmta.imap.partial_range import parse_range
from fastmta.model.limits import IMAP_FETCH_SECTIONS

if TYPE_CHECKING:
    from fastmta._imap import Cursor

# The bits of Mailboxes.fetch.
UID: Final = 1
FLAGS: Final = 2
INTERNALDATE: Final = 4
SIZE: Final = 8
ENVELOPE: Final = 16
BODY: Final = 32
BODYSTRUCTURE: Final = 64
MODSEQ: Final = 128
SAVEDATE: Final = 512
EMAILID: Final = 1024
THREADID: Final = 2048
UIDONLY: Final = 4096  # the lines begin with the uid (RFC 9586)
MORE: Final = 8192  # behind an ENVELOPE, whether the header has more: for SEARCH alone
WHOLE: Final = 256  # BODY[] of a message that is not too large for one chunk

_BITS: Final = {
    b"UID": UID,
    b"FLAGS": FLAGS,
    b"INTERNALDATE": INTERNALDATE,
    b"RFC822.SIZE": SIZE,
    b"ENVELOPE": ENVELOPE,
    b"BODYSTRUCTURE": BODYSTRUCTURE,
    b"MODSEQ": MODSEQ,
    b"SAVEDATE": SAVEDATE,
    b"EMAILID": EMAILID,
    b"THREADID": THREADID,
}
_MACROS: Final = {
    b"FAST": FLAGS | INTERNALDATE | SIZE,
    b"ALL": FLAGS | INTERNALDATE | SIZE | ENVELOPE,
    b"FULL": FLAGS | INTERNALDATE | SIZE | ENVELOPE | BODY,
}
LOOP_SECTIONS: Final = 4  # of header fields that the store's loop writes
LOOP_NAMES: Final = 64  # of one such section: each is compared with each line
MAX_PARTS: Final = 32  # levels of a part number; a deeper one does not exist in any message we keep the structure of


class Section(msgspec.Struct, frozen=True):
    """One BODY[...] or RFC822 item. `place` is what _mime.find_part is asked for; `fields` filters a header."""

    label: bytes  # as the response names it
    place: bytes
    fields: tuple[bytes, ...] | None = None
    invert: bool = False
    begin: int = 0  # of a partial <begin.length>
    length: int = -1  # -1: all of it
    decodes: bool = False  # BINARY and BINARY.SIZE
    counts: bool = False  # BINARY.SIZE


PREVIEW: Final = Section(b"PREVIEW", b"")
WHOLE_MESSAGE: Final = (Section(b"BODY[]", b""),)


class Plan(msgspec.Struct, frozen=True):
    """`marks_seen`: some section is not a .PEEK. `changed_since`: only messages with a higher modseq, -1: all."""

    items: int
    sections: tuple[Section, ...] = ()
    marks_seen: bool = False
    changed_since: int = -1
    vanished: bool = False
    partial: tuple[int, int] | None = None
    by_uid: bool = False

    @property
    def whole(self) -> bool:
        """BODY[] and no other section: the store's loop writes it too."""
        return self.sections == WHOLE_MESSAGE

    def fields(self) -> list[tuple[bytes, bytes, bool]] | None:
        """The sections as the store's loop takes them, where all are fields of the message's own header, and few."""
        if not 0 < len(self.sections) <= LOOP_SECTIONS:
            return None
        out: list[tuple[bytes, bytes, bool]] = []
        for section in self.sections:
            names = section.fields
            if names is None or section.place != b"HEADER" or section.length >= 0 or len(names) > LOOP_NAMES:
                return None
            if any(len(name) > 255 for name in names):
                return None
            packed = b"".join(bytes((len(name),)) + name.lower() for name in names)
            out.append((section.label, packed, section.invert))
        return out


def parse(cursor: Cursor, *, by_uid: bool, uid_only: bool = False) -> Plan:
    """The items behind the sequence set, up to the command's end."""
    items = UIDONLY if uid_only else UID if by_uid else 0
    sections: list[Section] = []
    marks_seen = False
    if cursor.try_open():
        more, sections, marks_seen = _items(cursor)
        items |= more
    else:
        name = cursor.word()
        if name in _MACROS:
            items |= _MACROS[name]
        else:
            bits, section, marks_seen = _item(cursor, name)
            items |= bits
            if section is not None:
                sections.append(section)
    plan = Plan(items, tuple(sections), marks_seen, by_uid=by_uid)
    if cursor.try_sp():
        plan = _modified(cursor, plan, by_uid)
    cursor.end()
    return plan


def parse_new(cursor: Cursor) -> Plan:
    """What NOTIFY and CONTEXT have told of new messages (RFC 5465 §5.2, §7): a list of items; none sets \\Seen."""
    cursor.open()
    items, sections, _seen = _items(cursor)
    return Plan(items, tuple(sections), by_uid=True)


def _items(cursor: Cursor) -> tuple[int, list[Section], bool]:
    """The items behind a "(", up to the ")": bits, sections, whether some set \\Seen."""
    items = 0
    sections: list[Section] = []
    marks_seen = False
    while True:
        bits, section, seen = _item(cursor, cursor.word())
        items |= bits
        marks_seen |= seen
        if section is not None:
            sections.append(section)
            if len(sections) > IMAP_FETCH_SECTIONS:
                raise BadSyntax("Too many sections")
        if cursor.try_close():
            return items, sections, marks_seen
        cursor.sp()


def _modified(cursor: Cursor, plan: Plan, by_uid: bool) -> Plan:
    """With CHANGEDSINCE and VANISHED (RFC 7162 §3.1.4, §3.2.6) or PARTIAL (RFC 9394 §3.2)."""
    changed_since, vanished = -1, False
    partial: tuple[int, int] | None = None
    cursor.open()
    while True:
        name = cursor.atom()
        if name == b"CHANGEDSINCE":
            cursor.sp()
            changed_since = cursor.modseq()
        elif name == b"VANISHED" and by_uid:
            vanished = True
        elif name == b"PARTIAL" and by_uid:
            cursor.sp()
            partial = parse_range(cursor)
        else:
            raise BadSyntax("Unknown FETCH modifier")
        if cursor.try_close():
            break
        cursor.sp()
    if vanished and changed_since < 0:
        raise BadSyntax("VANISHED needs CHANGEDSINCE")
    items = plan.items | (MODSEQ if changed_since >= 0 else 0)
    return Plan(items, plan.sections, plan.marks_seen, changed_since, vanished, partial, by_uid)


_LEGACY: Final = {
    b"RFC822": (Section(b"RFC822", b""), True),
    b"RFC822.HEADER": (Section(b"RFC822.HEADER", b"HEADER"), False),
    b"RFC822.TEXT": (Section(b"RFC822.TEXT", b"TEXT"), True),
}


def _item(cursor: Cursor, name: bytes) -> tuple[int, Section | None, bool]:
    """(bits, section, whether it marks as seen) of one fetch-att."""
    if name in _BITS:
        return _BITS[name], None, False
    if name in _LEGACY:
        section, seen = _LEGACY[name]
        return 0, section, seen
    if name == b"PREVIEW":
        cursor.take_text(b" (LAZY)")  # it is made when it is asked for, and quickly: nobody needs to be lazy
        return 0, PREVIEW, False
    if name == b"BODY":
        if not cursor.take(0x5B):
            return BODY, None, False
        return 0, parse_section(cursor), True
    if name == b"BODY.PEEK" and cursor.take(0x5B):
        return 0, parse_section(cursor), False
    if name in (b"BINARY", b"BINARY.PEEK", b"BINARY.SIZE") and cursor.take(0x5B):
        return 0, _binary(cursor, counts=name == b"BINARY.SIZE"), name == b"BINARY"
    raise BadSyntax("Unknown FETCH item")


def parse_section(cursor: Cursor) -> Section:
    """Behind the "[" of a section: up to the "]", and a partial. BadSyntax."""
    place = b"" if cursor.at(0x5D) else cursor.word()
    fields: tuple[bytes, ...] | None = None
    invert = False
    label = place
    _check_place(place)
    text = place.rpartition(b".HEADER.FIELDS") if b".HEADER.FIELDS" in place else (b"", b"", place)
    if text[1] or place.startswith(b"HEADER.FIELDS"):
        rest = text[2] if text[1] else place.removeprefix(b"HEADER.FIELDS")
        if rest not in (b"", b".NOT"):
            raise BadSyntax("Unknown section")
        invert = rest == b".NOT"
        cursor.sp()
        fields = _header_list(cursor)
        label = b"%b (%b)" % (place, b" ".join(_imap.astring(field) for field in fields))
        place = text[0] + b".HEADER" if text[1] else b"HEADER"
    label, begin, length = _partial(cursor, b"BODY[%b" % label)
    return Section(label, place, fields, invert, begin, length)


def _binary(cursor: Cursor, *, counts: bool) -> Section:
    """RFC 3516 §4.2: only part numbers, or none for the whole message."""
    place = b"" if cursor.at(0x5D) else cursor.word()
    if place and (not place.replace(b".", b"").isdigit() or place.endswith(b".")):
        raise BadSyntax("Part number expected")
    _check_place(place)
    if counts:
        if not cursor.take(0x5D):
            raise BadSyntax('"]" expected')
        return Section(b"BINARY.SIZE[%b]" % place, place, decodes=True, counts=True)
    label, begin, length = _partial(cursor, b"BINARY[%b" % place)
    return Section(label, place, begin=begin, length=length, decodes=True)


def _partial(cursor: Cursor, label: bytes) -> tuple[bytes, int, int]:
    """The end of a section: (its label, begin, length) with <begin.length>, or all of it: 0, -1."""
    if not cursor.take(0x5D):
        raise BadSyntax('"]" expected')
    if not cursor.take(0x3C):
        return label + b"]", 0, -1
    begin = cursor.number()
    if not cursor.take(0x2E):
        raise BadSyntax("Partial <start.length> expected")
    length = cursor.number()
    if length == 0 or not cursor.take(0x3E):
        raise BadSyntax("Partial <start.length> expected")
    return b"%b]<%d>" % (label, begin), begin, length


def _check_place(place: bytes) -> None:
    """The grammar of RFC 3501 §9 section-spec; whether a message has such a part is another question."""
    if not place:
        return
    words = place.split(b".")
    numbers = 0
    while numbers < len(words) and words[numbers].isdigit():
        if words[numbers].startswith(b"0") or len(words[numbers]) > 10:
            raise BadSyntax("Part numbers begin with 1")
        numbers += 1
    if numbers > MAX_PARTS:
        raise BadSyntax("Part number too deep")
    text = b".".join(words[numbers:])
    known = (b"HEADER", b"TEXT", b"HEADER.FIELDS", b"HEADER.FIELDS.NOT")
    if text in known or (numbers and text in (b"", b"MIME") and place[-1:] != b"."):
        return
    raise BadSyntax("Unknown section")


def _header_list(cursor: Cursor) -> tuple[bytes, ...]:
    fields: list[bytes] = []
    cursor.open()
    while True:
        fields.append(cursor.astring())
        if cursor.try_close():
            return tuple(fields)
        cursor.sp()
