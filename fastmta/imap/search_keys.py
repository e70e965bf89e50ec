"""SEARCH's keys as a tree (RFC 3501 §6.4.4, §9 search-key). Depth and number are bounded."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable
from typing import Any, Final

import msgspec

from fastmta import _mime
from fastmta._imap import BadSyntax, Cursor
from fastmta.imap import search_returns
from fastmta.imap.dates import parse_date
from fastmta.imap.search_returns import Returns
from fastmta.model.flags import ANSWERED, DELETED, DRAFT, FLAGGED, SEEN
from fastmta.model.limits import IMAP_PAREN_DEPTH, IMAP_SEARCH_KEYS

FOREVER: Final = 2**31  # a day or a size beyond all


class BadCharset(Exception):
    """A charset that SEARCH does not know (RFC 3501 §7.1 BADCHARSET)."""


class Key(msgspec.Struct, frozen=True, eq=False):
    """A node of the tree."""


class Flags(Key, frozen=True, eq=False):
    wanted: int = 0
    unwanted: int = 0


class Recent(Key, frozen=True, eq=False):
    pass


class Keyword(Key, frozen=True, eq=False):
    name: bytes  # lower case


class Numbers(Key, frozen=True, eq=False):
    pairs: array[int]
    by_uid: bool


class Size(Key, frozen=True, eq=False):
    low: int
    high: int


class Modseq(Key, frozen=True, eq=False):
    low: int


class Arrived(Key, frozen=True, eq=False):
    """Internal date, in seconds since 1970, both included."""

    low: int
    high: int


class Received(Key, frozen=True, eq=False):
    """Internal date, in days, both included."""

    low: int
    high: int


class Saved(Key, frozen=True, eq=False):
    """When the message came into the mailbox (RFC 8514), in days of UTC, both included."""

    low: int
    high: int


class EmailId(Key, frozen=True, eq=False):
    """RFC 8474."""

    name: bytes


class Sent(Key, frozen=True, eq=False):
    """The Date field, in days, both included."""

    low: int
    high: int


class Envelope(Key, frozen=True, eq=False):
    """A field of the ENVELOPE, by its place there (RFC 3501 §7.4.2)."""

    field: int
    needle: str


class Header(Key, frozen=True, eq=False):
    field: bytes
    needle: str


class Text(Key, frozen=True, eq=False):
    needle: str
    with_header: bool


class And(Key, frozen=True, eq=False):
    keys: tuple[Key, ...]


class Or(Key, frozen=True, eq=False):
    first: Key
    second: Key


class Not(Key, frozen=True, eq=False):
    key: Key


_FLAG_KEYS: Final = {
    b"ALL": Flags(),
    b"ANSWERED": Flags(ANSWERED),
    b"DELETED": Flags(DELETED),
    b"DRAFT": Flags(DRAFT),
    b"FLAGGED": Flags(FLAGGED),
    b"SEEN": Flags(SEEN),
    b"UNANSWERED": Flags(0, ANSWERED),
    b"UNDELETED": Flags(0, DELETED),
    b"UNDRAFT": Flags(0, DRAFT),
    b"UNFLAGGED": Flags(0, FLAGGED),
    b"UNSEEN": Flags(0, SEEN),
}
_BLANKS: Final = re.compile(r"[ \t\r\n]+")
_FIELDS: Final = {b"SUBJECT": 1, b"FROM": 2, b"TO": 5, b"CC": 6, b"BCC": 7}
# Of those that may stand several times an ENVELOPE shows the first, or all in one list; the search finds any of them.
ENVELOPE_FIELDS: Final = (
    *(b"DATE", b"SUBJECT", b"FROM", b"SENDER", b"REPLY-TO", b"TO", b"CC", b"BCC", b"IN-REPLY-TO", b"MESSAGE-ID"),
)
_HEADERS: Final = {b"DATE": 0, b"SUBJECT": 1, b"IN-REPLY-TO": 8, b"MESSAGE-ID": 9}  # HEADER of them asks the ENVELOPE


class Parser:
    """Reads the keys of one command."""

    def __init__(
        self,
        cursor: Cursor,
        saved: array[int] | None = None,
        now_s: int = 0,
        *,
        names_charset: bool = True,
        numbers: bool = True,
    ) -> None:
        """`saved`: what "$" stands for. `names_charset`: whether SEARCH may name one (RFC 9755 §3). `numbers`: whether
        messages may be named by number (RFC 9586 §3.4)."""
        self._numbers = numbers
        self._names_charset = names_charset
        self._cursor = cursor
        self._saved = array("I") if saved is None else saved
        self._now_s = now_s
        self.returns: Returns | None = None  # where RETURN was given
        self._charset = b"UTF-8"
        self._keys = 0
        self._known: dict[tuple[Any, ...], Key] = {}
        self.asks_modseq = False  # some key is MODSEQ
        self.fuzzy: list[str] | None = None  # the words of FUZZY keys that a message shall have, where there are any
        self._is_fuzzy = self._is_negated = False

    def parse(self) -> Key:
        """RETURN and the whole program, up to the command's end. BadSyntax, BadCharset."""
        cursor = self._cursor
        cursor.sp()
        keys: list[Key] = []
        if not (cursor.at_set() or cursor.at(0x28) or cursor.at(0x24)):
            name = cursor.atom()
            if name == b"RETURN" and self.returns is None:
                cursor.sp()
                self.returns = search_returns.parse(cursor)
                return self.parse()
            if name == b"CHARSET":
                if not self._names_charset:
                    raise BadSyntax("No CHARSET after ENABLE UTF8=ACCEPT")
                cursor.sp()
                self._charset = cursor.astring().upper()
                if not _mime.knows_charset(self._charset):
                    raise BadCharset
                cursor.sp()
                keys.append(self._key(0))
            else:
                keys.append(self._named(name, 0))
        else:
            keys.append(self._key(0))
        while cursor.try_sp():
            keys.append(self._key(0))
        cursor.end()
        return keys[0] if len(keys) == 1 else And(tuple(keys))

    def parse_with_charset(self) -> Key:
        """As SORT and THREAD have it: the charset always, then the program (RFC 5256 §3)."""
        cursor = self._cursor
        cursor.sp()
        self._charset = cursor.astring().upper()
        if not _mime.knows_charset(self._charset):
            raise BadCharset
        keys: list[Key] = []
        cursor.sp()
        while True:
            keys.append(self._key(0))
            if not cursor.try_sp():
                break
        cursor.end()
        return keys[0] if len(keys) == 1 else And(tuple(keys))

    def _key(self, depth: int) -> Key:
        cursor = self._cursor
        if depth > IMAP_PAREN_DEPTH:
            raise BadSyntax("Search keys are nested too deep")
        if cursor.try_open():
            keys = [self._key(depth + 1)]
            while not cursor.try_close():
                cursor.sp()
                keys.append(self._key(depth + 1))
            return keys[0] if len(keys) == 1 else And(tuple(keys))
        if cursor.take(0x24):
            self._count()
            return Numbers(self._saved, True)
        if cursor.at_set():
            if not self._numbers:
                raise BadSyntax("[UIDREQUIRED] Messages are named by uid alone here")
            self._count()
            return Numbers(cursor.sequence_set(), False)
        return self._named(cursor.atom(), depth)

    def _count(self) -> None:
        self._keys += 1
        if self._keys > IMAP_SEARCH_KEYS:
            raise BadSyntax("Too many search keys")

    def _named(self, name: bytes, depth: int) -> Key:
        self._count()
        simple = _FLAG_KEYS.get(name)
        if simple is not None:
            return simple
        if name == b"RECENT":
            return Recent()
        if name == b"NEW":
            return And((Recent(), Flags(0, SEEN)))
        if name == b"OLD":
            return Not(Recent())
        if name == b"SAVEDATESUPPORTED":
            return Flags()
        cursor = self._cursor
        cursor.sp()
        if name == b"NOT":
            before, self._is_negated = self._is_negated, True
            negated = Not(self._key(depth + 1))
            self._is_negated = before
            return negated
        if name == b"FUZZY":  # RFC 6203
            before, self._is_fuzzy = self._is_fuzzy, True
            self.fuzzy = self.fuzzy or []
            key = self._key(depth + 1)
            self._is_fuzzy = before
            return key
        if name == b"OR":
            first = self._key(depth + 1)
            cursor.sp()
            return Or(first, self._key(depth + 1))
        return self._with_value(name)

    def _with_value(self, name: bytes) -> Key:
        cursor = self._cursor
        if name in _FIELDS:
            return self._matching(lambda needle: Envelope(_FIELDS[name], _blanks_as_one(needle)))
        if name == b"HEADER":
            field = cursor.astring().upper()
            cursor.sp()
            if field in _HEADERS:
                return self._matching(lambda needle: Envelope(_HEADERS[field], _blanks_as_one(needle)))
            return self._matching(lambda needle: Header(field, _blanks_as_one(needle)))
        if name in (b"BODY", b"TEXT"):
            return self._matching(lambda needle: Text(needle, name == b"TEXT"))
        if name == b"KEYWORD":
            return Keyword(cursor.raw_atom().lower())
        if name == b"UNKEYWORD":
            return Not(Keyword(cursor.raw_atom().lower()))
        if name == b"LARGER":
            return Size(cursor.number() + 1, 2**33)
        if name == b"SMALLER":
            return Size(0, cursor.number() - 1)
        if name == b"UID":
            return Numbers(cursor.sequence_set(), True)
        if name in (b"OLDER", b"YOUNGER"):
            seconds = cursor.number()
            if not seconds:
                raise BadSyntax("A number above 0 expected")
            at = self._now_s - seconds
            return Arrived(-(2**62), at) if name == b"OLDER" else Arrived(at, 2**62)  # RFC 5032
        if name == b"EMAILID":
            return self._once(EmailId(cursor.raw_atom()))
        if name == b"THREADID":  # no message has one
            cursor.raw_atom()
            return Numbers(array("I"), True)
        if name == b"MODSEQ":
            return Modseq(self._modseq())
        return self._dated(name)

    def _modseq(self) -> int:
        """With the entry of one flag or without (RFC 7162 §3.1.5): a message has one modseq for all of them."""
        cursor = self._cursor
        if cursor.at(0x22):
            if not cursor.string().lower().startswith(b"/flags/"):
                raise BadSyntax("Unknown entry")
            cursor.sp()
            if cursor.atom() not in (b"ALL", b"PRIV", b"SHARED"):
                raise BadSyntax("ALL, PRIV or SHARED expected")
            cursor.sp()
        self.asks_modseq = True
        return cursor.modseq()

    def _matching(self, made: Callable[[str], Key]) -> Key:
        """A key of the command's string; where it is FUZZY, one of each of its words, wherever they stand."""
        needle = self._needle()
        words = needle.split() if self._is_fuzzy else []
        if self.fuzzy is not None and self._is_fuzzy and not self._is_negated:
            self.fuzzy.extend(words)
        if len(words) < 2:
            return self._once(made(words[0] if words else needle))
        for _ in words[1:]:
            self._count()
        return And(tuple(self._once(made(word)) for word in words))

    def _once(self, key: Key) -> Key:
        """The same key for the same question, so that it is answered once."""
        return self._known.setdefault((type(key), *msgspec.structs.astuple(key)), key)

    def _dated(self, name: bytes) -> Key:
        kind: type[Received] | type[Sent] | type[Saved] = Received
        if name.startswith(b"SENT"):
            kind = Sent
            name = name[4:]
        elif name.startswith(b"SAVED"):
            kind = Saved
            name = name[5:]
        if name not in (b"BEFORE", b"ON", b"SINCE"):
            raise BadSyntax("Unknown search key")
        day = parse_date(self._cursor.astring())
        if name == b"BEFORE":
            return kind(-FOREVER, day - 1)
        return kind(day, day) if name == b"ON" else kind(day, FOREVER)

    def _needle(self) -> str:
        try:
            return _mime.decode_text(self._cursor.astring(), self._charset).casefold()
        except UnicodeDecodeError:
            raise BadSyntax("Search string does not fit its charset") from None


def _blanks_as_one(needle: str) -> str:
    """Field values are compared so: how a line was folded is nobody's wish."""
    return _BLANKS.sub(" ", needle)
