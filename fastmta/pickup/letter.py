"""A message as a local program wrote it: its header read and completed, its body passed on in pieces.

What comes in has any line ends; what goes out has CRLF, with what Postfix's cleanup does for local mail: From, Date and
Message-ID where they are missing (the Resent- ones in a message that is resent), a domain behind a bare name in the
header's addresses, and without what must not be passed on (Bcc, Return-Path, Content-Length).

`sendmail -t` uses the same reader for the recipients, so nothing is loaded here that it does not need.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from fastmta.model.errors import FastMTAError
from fastmta.model.limits import SENDMAIL_HEADER_BYTES
from fastmta.pickup.address_list import bare_names, lenient_addresses

READ_BYTES: Final = 65_536
_FIELD: Final = re.compile(rb"([!-9;-~]+)[ \t]*:")
_DROPPED: Final = frozenset({b"bcc", b"resent-bcc", b"return-path", b"content-length"})
_RECIPIENTS: Final = (b"to", b"cc", b"bcc")
_ADDRESSES: Final = frozenset(
    prefix + name
    for prefix in (b"", b"resent-")
    for name in (b"from", b"sender", b"reply-to", b"to", b"cc", b"errors-to", b"return-receipt-to", b"apparently-to")
)


class BadLetter(FastMTAError):
    """The header cannot be used; the text says why."""


class Field(NamedTuple):
    """A header field: lower-case name, and its bytes with CRLF behind each line."""

    name: bytes
    raw: bytes

    @property
    def value(self) -> str:
        """Unfolded, as text."""
        return self.raw.partition(b":")[2].replace(b"\r\n", b"").decode("utf-8", "surrogateescape").strip()


class Letter:
    """Reads the header of `lines` at once. `head` are those lines as they came; what is behind them is `rest`."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        """`lines` have their line ends, long ones may come in pieces. BadLetter for a header over the bound."""
        self.rest = lines
        self.head: list[bytes] = []
        self.fields: list[Field] = []
        self._with_cr: set[bytes] = set()
        self._first_of_body = b""
        self._read_header()

    def _read_header(self) -> None:
        current: list[bytes] = []
        size = 0
        for line in self.rest:
            size += len(line)
            if size > SENDMAIL_HEADER_BYTES:
                raise BadLetter(f"the header is larger than {SENDMAIL_HEADER_BYTES} bytes")
            is_first = not self.head
            self.head.append(line)
            if is_first and line.startswith((b"From ", b">From ")):
                continue  # the separator of an mbox
            bare = line.rstrip(b"\r\n")
            if bare[:1] in (b" ", b"\t") and current and bare.strip():
                current.append(bare)
                continue
            self._add(current)
            current = []
            if _FIELD.match(bare) is None:
                if bare:
                    self._first_of_body = line  # a body without the empty line before it
                return
            current = [bare]
        self._add(current)

    def _add(self, lines: list[bytes]) -> None:
        match = _FIELD.match(lines[0]) if lines else None
        if match is not None:
            # A CR inside a line is no line end: it would begin a field of its own at a careless reader.
            if any(b"\r" in line for line in lines):
                self._with_cr.add(match[1].lower())
            raw = b"".join(line.replace(b"\r", b" ") + b"\r\n" for line in lines)
            self.fields.append(Field(match[1].lower(), raw))

    def has(self, name: bytes) -> bool:
        return any(field.name == name for field in self.fields)

    def count(self, name: bytes) -> int:
        return sum(field.name == name for field in self.fields)

    def recipients(self) -> list[str]:
        """The addresses of To, Cc and Bcc, or of the Resent- ones where there are any.

        What is no address goes along as it stands, to be reported; BadLetter for control characters.
        """
        resent = any(self.has(b"resent-" + name) for name in _RECIPIENTS)
        wanted = {(b"resent-" if resent else b"") + name for name in _RECIPIENTS}
        out: list[str] = []
        for field in self.fields:
            if field.name in wanted:
                try:
                    if field.name in self._with_cr:
                        raise ValueError("control characters in an address field")
                    out += lenient_addresses(field.value)
                except ValueError as error:
                    raise BadLetter(f"the {field.name.decode().title()} field: {error}") from error
        return out

    def header(self, missing: Iterable[tuple[bytes, bytes]], origin: str) -> bytes:
        """The header that goes out, blank line included; `missing` are fields to add where none has the name, and
        `origin` is the domain of bare names.
        """
        kept = []
        for field in self.fields:
            if field.name not in _DROPPED:
                kept.append(_qualified(field.raw, origin) if field.name in _ADDRESSES else field.raw)
        resent = b"Resent-" if any(field.name.startswith(b"resent-") for field in self.fields) else b""
        for name, value in missing:
            if not self.has((resent + name).lower()):
                kept.append(resent + name + b": " + value + b"\r\n")
        return b"".join(kept) + b"\r\n"

    def body(self) -> Iterator[bytes]:
        """Pieces of the body with CRLF line ends; the last line gets one."""
        from fastmta._parser import normalize

        after_cr = False
        pending: list[bytes] = [self._first_of_body] if self._first_of_body else []
        size = len(self._first_of_body)
        ended = True
        for line in self.rest:
            pending.append(line)
            size += len(line)
            if size >= READ_BYTES:
                piece, after_cr = normalize(b"".join(pending), after_cr)
                ended = piece.endswith(b"\r\n") and not after_cr
                pending, size = [], 0
                yield piece
        if pending or after_cr:
            piece, after_cr = normalize(b"".join(pending), after_cr)
            if after_cr:
                piece += b" "
            ended = piece.endswith(b"\r\n")
            yield piece
        if not ended:
            yield b"\r\n"


def _qualified(raw: bytes, origin: str) -> bytes:
    """A field whose bare names have got a domain, its folding kept; as it is where it is no list of addresses."""
    name, colon, value = raw.partition(b":")
    if b"@" in value and b"," not in value:  # the one address that it usually is
        return raw
    text = value.decode("utf-8", "surrogateescape")
    try:
        places = bare_names(text.replace("\r\n", "  "))
    except ValueError:
        return raw
    for place in reversed(places):
        text = f"{text[:place]}@{origin}{text[place:]}"
    return name + colon + text.encode("utf-8", "surrogateescape")
