"""The message that a program gives to `sendmail`: its header read and completed, its body passed on line by line.

What comes in has the local line ends; what goes out has CRLF, with what Postfix's cleanup adds where it is missing
(From, Date, Message-ID) and without what must not be passed on (Bcc, Return-Path, Content-Length).
"""

import re
from collections.abc import Iterable, Iterator
from typing import BinaryIO, Final

import msgspec

from fastmta._parser import normalize
from fastmta.cli.address_list import parse_addresses
from fastmta.cli.failures import EX_DATAERR, CommandFailed
from fastmta.model.limits import SENDMAIL_HEADER_BYTES

READ_BYTES: Final = 65_536
_FIELD: Final = re.compile(rb"([!-9;-~]+)[ \t]*:")
_DROPPED: Final = frozenset({b"bcc", b"resent-bcc", b"return-path", b"content-length"})
_RECIPIENTS: Final = (b"to", b"cc", b"bcc")


class Field(msgspec.Struct, frozen=True):
    """A header field: lower-case name, and its bytes with CRLF behind each line."""

    name: bytes
    raw: bytes

    @property
    def value(self) -> str:
        """Unfolded, as text; ValueError for a NUL."""
        text = self.raw.partition(b":")[2].replace(b"\r\n", b"").decode("utf-8", "surrogateescape").strip()
        if "\0" in text:
            raise ValueError(f"the {self.name.decode()} field holds a NUL")
        return text


class Letter:
    """Reads the header at once; `body` gives the rest, once."""

    def __init__(self, stream: BinaryIO, *, dot_ends: bool = True) -> None:
        """`dot_ends`: a line that is a dot alone ends the message. CommandFailed for a header over the bound."""
        self._lines = _lines(stream, dot_ends)
        self._first_of_body = b""
        self.fields: list[Field] = []
        self._read_header()

    def _read_header(self) -> None:
        current: list[bytes] = []
        size = 0
        is_first = True
        for line in self._lines:
            size += len(line)
            if size > SENDMAIL_HEADER_BYTES:
                raise CommandFailed(f"the header is larger than {SENDMAIL_HEADER_BYTES} bytes", EX_DATAERR)
            if is_first and line.startswith((b"From ", b">From ")):
                continue  # the separator of an mbox
            is_first = False
            bare = line.rstrip(b"\r\n")
            if bare[:1] in (b" ", b"\t") and current and bare.strip():
                current.append(bare)
                continue
            self._add(current)
            current = []
            if not bare:
                break
            if not _FIELD.match(bare):  # the body begins without a blank line
                self._first_of_body = line
                break
            current = [bare]
        self._add(current)

    def _add(self, lines: list[bytes]) -> None:
        match = _FIELD.match(lines[0]) if lines else None
        if match is not None:
            # A CR inside a line is no line end: it would begin a field of its own at a careless reader.
            raw = b"".join(line.replace(b"\r", b" ") + b"\r\n" for line in lines)
            self.fields.append(Field(match[1].lower(), raw))

    def has(self, name: bytes) -> bool:
        return any(field.name == name for field in self.fields)

    def count(self, name: bytes) -> int:
        return sum(field.name == name for field in self.fields)

    def recipients(self) -> list[str]:
        """The addresses of To, Cc and Bcc, or of the Resent- ones where there are any; CommandFailed for a bad one."""
        resent = any(self.has(b"resent-" + name) for name in _RECIPIENTS)
        wanted = {(b"resent-" if resent else b"") + name for name in _RECIPIENTS}
        out: list[str] = []
        for field in self.fields:
            if field.name in wanted:
                try:
                    out += parse_addresses(field.value)
                except ValueError as error:
                    raise CommandFailed(f"the {field.name.decode().title()} field: {error}", EX_DATAERR) from error
        return out

    def header(self, missing: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The header that goes out, blank line included; `missing` are fields to add where none has the name."""
        kept = [field.raw for field in self.fields if field.name not in _DROPPED]
        resent = b"resent-" if any(field.name.startswith(b"resent-") for field in self.fields) else b""
        for name, value in missing:
            if not self.has(resent + name.lower()) and not (resent and self.has(name.lower())):
                kept.append(name + b": " + value + b"\r\n")
        return b"".join(kept) + b"\r\n"

    def body(self) -> Iterator[bytes]:
        """Pieces of the body with CRLF line ends; the last line gets one."""
        after_cr = False
        pending: list[bytes] = [self._first_of_body] if self._first_of_body else []
        size = len(self._first_of_body)
        ended = True
        for line in self._lines:
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


def _lines(stream: BinaryIO, dot_ends: bool) -> Iterator[bytes]:
    """Lines with their ends, long ones in pieces, until the end of the stream or the lone dot."""
    at_start = True
    while line := stream.readline(READ_BYTES):
        if dot_ends and at_start and line in (b".\n", b".\r\n", b"."):
            return
        at_start = line.endswith(b"\n")
        yield line
