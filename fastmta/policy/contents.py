"""header_checks(5): a message cut into what Postfix's four kinds of checks look at, and the actions of their tables.

A field is shown whole, its lines joined by newlines; a line of a body without its end, and in pieces where it is long.
Rules over octets: nothing here reads a table or waits. What a message may cost is bounded: nesting, fields, and the
octets of each body that are shown (body_checks_size_limit).

Readers of mail differ in which of two Content-Type fields counts, which of two boundaries, and what a comment hides. So
an entity has all the boundaries that anybody may read in it: no part is hidden from the checks that some reader shows.
"""

import re
from collections.abc import Iterator
from enum import StrEnum
from itertools import islice
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from fastmta.model.limits import CONTENT_FIELD_BYTES, CONTENT_LINE_BYTES, MIME_DEPTH
from fastmta.model.reply import Reply
from fastmta.model.routes import written_filter

_FIELD: Final = re.compile(rb"([!-9;-~]+)[ \t]*:")
_OF_MIME: Final = frozenset(
    {
        b"content-description",
        b"content-disposition",
        b"content-id",
        b"content-transfer-encoding",
        b"content-type",
        b"mime-version",
    }
)
_MULTIPART: Final = re.compile(rb"multipart", re.IGNORECASE)
_MESSAGE: Final = re.compile(rb"message\s*/\s*(?:rfc822|global)(?![!-:<-~])", re.IGNORECASE)
_COMMENT: Final = re.compile(rb"\([^()]*\)")
_BOUNDARY: Final = re.compile(
    rb"(?<![!-:<-~])boundary(?:\*(\d{1,3}))?(\*)?\s*=\s*(?:\"((?:[^\"\\]|\\.)*)\"|([^\s;\"]+))",
    re.IGNORECASE | re.DOTALL,
)
_TYPES: Final = 4  # Content-Type fields of one header that are read
_BOUNDARIES: Final = 16  # of one entity
_BOUNDARY_BYTES: Final = 2048  # Postfix's mime_boundary_length_limit, beyond which two are equal
_ENHANCED: Final = re.compile(r"(5\.\d{1,3}\.\d{1,3})(?:\s+|$)")
# A line end in it: $1 has taken from a field that is folded.
_PREPENDED: Final = re.compile(r"[!-9;-~]+:(?:[^\r\n\0]|\n(?=[ \t]))*")
_LINE: Final = re.compile(r"[^\r\n\0]*")
_REJECTED: Final = "message content rejected"


class Kind(StrEnum):
    """What a piece is; the value is the key whose tables look at it."""

    HEADER = "header_checks"
    MIME = "mime_header_checks"
    NESTED = "nested_header_checks"
    BODY = "body_checks"


class Piece(NamedTuple):
    """A field or a line. `at` and `size`: where it lies in the message, with its CRLF; `can_change`: in its header."""

    kind: Kind
    text: bytes
    at: int
    size: int
    can_change: bool


class Action(NamedTuple):
    """One result of a table."""

    word: str
    text: str


DELETES: Final = frozenset({"IGNORE", "STRIP"})
CHANGES: Final = DELETES | {"PREPEND", "REPLACE"}
_PLAIN: Final = frozenset({"DISCARD", "DUNNO", "HOLD", "INFO", "OK", "PASS", "WARN", "REJECT", "IGNORE", "STRIP"})
# Not for mail that leaves:
_ELSEWHERE: Final = frozenset({"BCC", "DISCARD", "FILTER", "HOLD", "PASS", "REDIRECT", "REJECT"})
_LACKING: Final = {"DELAY": "it is no action of this Postfix's manual; HOLD keeps the message"}


def parse_action(value: str) -> Action:
    """ValueError says what is wrong with a table's result."""
    word, _, text = value.strip().partition(" ")
    word, text = word.upper(), text.strip()
    if word in _LACKING:
        raise ValueError(f"{word}: {_LACKING[word]}")
    if word in ("PREPEND", "REPLACE"):
        if not _PREPENDED.fullmatch(text):
            raise ValueError(f"{word}: expected a header field behind it, such as X-Name: text")
    elif word in ("REDIRECT", "BCC"):
        if "@" not in text.strip("@"):
            raise ValueError(f"{word}: expected an address behind it")
    elif word == "FILTER":
        written_filter(text)
    elif word not in _PLAIN:
        raise ValueError(f"{word[:40]}: no action of header_checks(5)")
    return Action(word, text)


def field_of(text: str) -> bytes:
    """The field that PREPEND or REPLACE writes, with its CRLF."""
    return text.replace("\n", "\r\n").encode("utf-8", "surrogateescape") + b"\r\n"


def parse_outgoing(kind: Kind, value: str) -> Action:
    """The same of a table that looks at mail as it leaves, which changes the message and nothing else."""
    word, _, text = value.strip().partition(" ")
    if kind is Kind.BODY and word.upper() in ("PREPEND", "REPLACE"):
        if not _LINE.fullmatch(text.strip()):
            raise ValueError(f"{word.upper()}: expected one line of text behind it")
        return Action(word.upper(), text.strip())
    if word.upper() in _ELSEWHERE:
        raise ValueError(f"{word.upper()}: mail that leaves is changed, not decided about; header_checks can do it")
    return parse_action(value)


def problem_of(kind: Kind, value: str) -> str:
    """Why a result cannot be carried out for this kind; "" where it can."""
    try:
        action = parse_action(value)
    except ValueError as error:
        return str(error)
    if action.word in CHANGES and kind in (Kind.NESTED, Kind.BODY):
        return f"{action.word}: only fields of the message's own header can be changed, and a milter can change more"
    return ""


def rejection(text: str) -> Reply:
    """The reply of REJECT with its text."""
    enhanced = "5.7.1"
    found = _ENHANCED.match(text)
    if found is not None:
        enhanced, text = found[1], text[found.end() :]
    return Reply(550, enhanced, "".join(c if 32 <= ord(c) < 127 else "?" for c in text[:400]) or _REJECTED)


class Walk:
    """One message, fed in pieces of any size, and what of it is to be looked at."""

    def __init__(self, kinds: frozenset[Kind], body_bytes: int) -> None:
        """`kinds` that anybody looks at; of each body the first `body_bytes`."""
        self._kinds = kinds
        self._limit = body_bytes if Kind.BODY in kinds else 0
        self._rest = b""
        self._at = 0  # of what is in `_rest`, in the message
        self._in_line = False  # the rest continues a line of which a piece was shown
        self._in_header = True
        self._header = Kind.HEADER  # of the header that is read
        self._field: list[bytes] = []
        self._field_at = self._field_size = self._field_shown = 0
        self._types: list[bytes] = []  # the Content-Type fields of the header that is read
        self._left = self._limit  # of this body
        self._boundaries: list[list[bytes]] = []  # of the open multiparts, the outermost one first
        self._depth = 0

    @property
    def is_over(self) -> bool:
        """Nothing that comes will be looked at."""
        return not self._in_header and not self._left and not self._boundaries

    def feed(self, data: bytes) -> Iterator[Piece]:
        """The pieces that are complete now."""
        data = self._rest + data
        start = 0
        while not self.is_over:
            if not self._in_header and not self._left:
                start = self._skip(data, start)
            end = data.find(b"\n", start)
            if end < 0 and len(data) - start <= CONTENT_LINE_BYTES:
                break
            if end < 0 or end - start > CONTENT_LINE_BYTES:
                yield from self._line(data[start : start + CONTENT_LINE_BYTES], CONTENT_LINE_BYTES)
                self._in_line = True
                start += CONTENT_LINE_BYTES
                continue
            yield from self._line(data[start:end].removesuffix(b"\r"), end + 1 - start)
            self._in_line = False
            start = end + 1
        self._rest = data[start:]

    def end(self) -> Iterator[Piece]:
        """What is left when nothing more comes."""
        if self._rest and not self.is_over:
            yield from self._line(self._rest, len(self._rest))
        yield from self._flush()

    def _skip(self, data: bytes, start: int) -> int:
        """Where the next line begins that may be a boundary, or the last octets that may become one."""
        if not self._in_line and data.startswith(b"--", start):
            return start
        found = data.find(b"\n--", start)
        if found >= 0:
            self._in_line = False
        to = found + 1 if found >= 0 else max(start, len(data) - 3)
        self._in_line = self._in_line or (found < 0 and to > start)
        self._at += to - start
        return to

    def _line(self, line: bytes, size: int) -> Iterator[Piece]:
        at = self._at
        self._at += size
        if not self._in_line and self._boundaries and line.startswith(b"--"):
            number, boundary = self._boundary(line)
            if number >= 0:
                yield from self._flush()
                self._enter(number, boundary, line)
                return
        if not self._in_header:
            yield from self._body_line(line, at, size)
        elif self._in_line:
            self._fold(line, size, joined=True)
        elif not line:
            yield from self._flush()
            self._end_header()
        elif line[:1] in (b" ", b"\t") and self._field:
            self._fold(line, size)
        elif _FIELD.match(line):
            yield from self._flush()
            self._field, self._field_at, self._field_size, self._field_shown = [line], at, size, len(line)
        else:
            yield from self._flush()  # no field: the body begins without an empty line
            self._end_header()
            if not self._in_header:
                yield from self._body_line(line, at, size)

    def _body_line(self, line: bytes, at: int, size: int) -> Iterator[Piece]:
        if self._left:
            self._left = max(0, self._left - size)
            yield Piece(Kind.BODY, line, at, size, False)

    def _fold(self, line: bytes, size: int, *, joined: bool = False) -> None:
        self._field_size += size
        if self._field and self._field_shown < CONTENT_FIELD_BYTES:
            self._field_shown += len(line)
            if joined:
                self._field[-1] += line
            else:
                self._field.append(line)

    def _flush(self) -> Iterator[Piece]:
        """The field that is complete."""
        if not self._field:
            return
        text = b"\n".join(self._field)
        self._field = []
        found = _FIELD.match(text)
        name = found[1].lower() if found is not None else b""
        if name == b"content-type" and len(self._types) < _TYPES:
            self._types.append(text)
        kind = Kind.MIME if name in _OF_MIME else self._header
        if kind in self._kinds:
            yield Piece(kind, text, self._field_at, self._field_size, self._depth == 0)

    def _end_header(self) -> None:
        types, self._types = self._types, []
        self._left = self._limit
        self._in_header = False
        if self._depth >= MIME_DEPTH:
            return
        boundaries = boundaries_of(types)
        if boundaries:
            self._boundaries.append([b"--" + each for each in boundaries])
        if any(_MESSAGE.search(each) for each in types):
            self._in_header, self._header = True, Kind.NESTED
            self._depth += 1

    def _boundary(self, line: bytes) -> tuple[int, bytes]:
        """The open multipart of which a line begins or ends a part, the innermost one first, and by which of its
        boundaries; -1: none.
        """
        for number in range(len(self._boundaries) - 1, -1, -1):
            for boundary in self._boundaries[number]:
                if line.startswith(boundary):
                    return number, boundary
        return -1, b""

    def _enter(self, number: int, boundary: bytes, line: bytes) -> None:
        """The next part of a multipart, or what follows its last."""
        del self._boundaries[number + 1 :]
        self._types = []
        self._left = self._limit
        self._in_header = not line.startswith(b"--", len(boundary))
        self._header = Kind.MIME
        self._depth = max(1, len(self._boundaries))
        if not self._in_header:  # whoever reads another boundary goes on
            self._boundaries[number].remove(boundary)
            if not self._boundaries[number]:
                self._boundaries.pop()


def boundaries_of(types: list[bytes]) -> list[bytes]:
    """All that anybody may take for the boundary of an entity with these Content-Type fields; longer ones first, since
    a line begins with the shorter too.
    """
    found: dict[bytes, None] = {}
    for text in types:
        if not _MULTIPART.search(text):
            continue
        bare = text
        for _ in range(3):  # comments in comments
            bare = _COMMENT.sub(b" ", bare)
        for each in dict.fromkeys((text, bare)):
            pieces: dict[int, bytes] = {}
            for match in islice(_BOUNDARY.finditer(each), _BOUNDARIES):
                value = match[3] if match[3] is not None else match[4]
                value = re.sub(rb"\\(.)", rb"\1", value, flags=re.DOTALL) if match[3] is not None else value
                if match[2] is not None:  # RFC 2231: charset'language'%41
                    value = unquote_to_bytes(value.split(b"'", 2)[-1])
                if match[1] is not None:
                    pieces.setdefault(int(match[1]), value)
                else:
                    found[value[:_BOUNDARY_BYTES]] = None
            if pieces:
                found[b"".join(pieces[n] for n in sorted(pieces))[:_BOUNDARY_BYTES]] = None
    found.pop(b"", None)
    return sorted(list(found)[:_BOUNDARIES], key=len, reverse=True)
