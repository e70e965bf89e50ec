"""BINARY of a FETCH (RFC 3516): a part without its Content-Transfer-Encoding.

Invariants: memory is that of one piece; a literal's size is counted before it is announced, by decoding twice what is
longer than a chunk; once announced it is filled, or the connection ends.
"""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING, Final

from fastmta import _mime
from fastmta.imap.session import SessionEnded, State
from fastmta.model.limits import IMAP_BINARY_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastmta.imap.fetch_plan import Section
    from fastmta.imap.session import Session
    from fastmta.store.mailboxes import MessageRow

IDENTITY: Final = frozenset(("", "7bit", "8bit", "binary"))
_BASE64: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="
_NOT_BASE64: Final = bytes(octet for octet in range(256) if octet not in _BASE64)


class Gone(Exception):
    """The message's bytes cannot be read any more."""


class Base64:
    """Octets that are no base64 are passed over; what stands behind the padding too (RFC 2045 §6.8)."""

    def __init__(self) -> None:
        self._rest = b""
        self._ended = False

    def feed(self, data: bytes, *, final: bool) -> bytes:
        """What `data` and all before it decode to, as far as it was not given yet."""
        if self._ended:
            return b""
        text = self._rest + data.translate(None, _NOT_BASE64)
        end = text.find(b"=")
        if end >= 0:
            self._ended = final = True
            text = text[:end]
        whole = len(text) // 4 * 4
        self._rest = text[whole:]
        text = text[:whole]
        if final and len(self._rest) > 1:
            text += self._rest + b"=" * (4 - len(self._rest))
        return binascii.a2b_base64(text)


class QuotedPrintable:
    """What is no code stays as it is; white space at a line's end goes (RFC 2045 §6.7)."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes, *, final: bool) -> bytes:
        """What `data` and all before it decode to, but for a last line that may go on."""
        text = self._rest + data
        end = len(text) if final else text.rfind(b"\n") + 1
        if end == 0 and len(text) > IMAP_BINARY_BYTES:  # a line without end is cut before what may be a code
            end = len(text) - (3 if text[-3] == 0x3D else 2)
        self._rest = text[end:]
        *lines, last = text[:end].split(b"\n")
        return binascii.a2b_qp(b"\n".join([*map(_stripped, lines), last]))


def _stripped(line: bytes) -> bytes:
    """A line, perhaps with its CR, without white space at its end."""
    return line[:-1].rstrip(b" \t") + b"\r" if line.endswith(b"\r") else line.rstrip(b" \t")


class Plain:
    """No encoding."""

    def feed(self, data: bytes, *, final: bool) -> bytes:
        return data


Encodings = dict[tuple[int, int], str]
Decoder = Base64 | QuotedPrintable | Plain


def decoder_of(encoding: str) -> Decoder | None:
    """For a Content-Transfer-Encoding in lower case; None for one that is not known."""
    if encoding == "base64":
        return Base64()
    if encoding == "quoted-printable":
        return QuotedPrintable()
    return Plain() if encoding in IDENTITY else None


def encodings_of(record: bytes) -> Encodings:
    """The encodings of a message's parts that hold no others, by where their bodies lie (offset, length)."""
    return {
        (part.body_offset, part.body_length): part.encoding.lower()
        for part in reversed(_mime.parts_of(record))
        if part.kind not in ("multipart", "message")
    }


async def write_binary(
    session: Session, encodings: Encodings, row: MessageRow, section: Section, place: tuple[int, int] | None
) -> bool:
    """A part's octets, or their number, behind the section's label. False: its encoding is not known. SessionEnded."""
    if place is None:
        session.write(b" 0" if section.counts else b" NIL")
        return True
    encoding = encodings.get((place[0] - len(row.prefix), place[1]), "") if section.place else ""
    if decoder_of(encoding) is None:
        session.write(b" 0" if section.counts else b" NIL")
        return False
    session.mailboxes.hold(row)
    try:
        await _write(session, row, section, place, encoding)
    finally:
        session.mailboxes.release(row)
    return True


async def _write(session: Session, row: MessageRow, section: Section, place: tuple[int, int], encoding: str) -> None:
    try:
        size, has_nul, data = await _counted(session, row, place, encoding)
    except Gone:
        session.write(b" 0" if section.counts else b" NIL")
        return
    if section.counts:
        session.write(b" %d" % size)
        return
    begin, end = 0, size
    if section.length >= 0:
        begin = min(section.begin, size)
        end = min(size, begin + section.length)
    session.write(b" %b{%d}\r\n" % (b"~" if has_nul else b"", end - begin))
    if data is not None:
        session.write(data[begin:end])
        return
    at = 0
    try:
        async for piece in _pieces(session, row, place, encoding):
            session.write(piece[max(0, begin - at) : max(0, end - at)])
            at += len(piece)
            await session.wire.flush()
            if at >= end:
                break
    except Gone:
        pass
    finally:
        if at < end:
            session.wire.abort()  # an announced literal that can't be filled ends the connection


async def _counted(
    session: Session, row: MessageRow, place: tuple[int, int], encoding: str
) -> tuple[int, bool, bytes | None]:
    """(octets, whether one of them is NUL, the octets where they came in one piece)."""
    size, has_nul = 0, False
    if encoding in IDENTITY and place[1] > IMAP_BINARY_BYTES:
        return place[1], True, None  # it may hold one: a literal8 is always right
    only: bytes | None = b""
    async for piece in _pieces(session, row, place, encoding):
        size += len(piece)
        has_nul = has_nul or 0 in piece
        only = piece if place[1] <= IMAP_BINARY_BYTES else None
    return size, has_nul, only


async def _pieces(session: Session, row: MessageRow, place: tuple[int, int], encoding: str) -> AsyncIterator[bytes]:
    """A part decoded, a piece at a time. Gone, SessionEnded."""
    offset, length = place
    decoder = decoder_of(encoding) or Plain()
    at = 0
    while at < length:
        waiting = session.mailboxes.need_on(row, offset + at, min(length - at, IMAP_BINARY_BYTES))
        if waiting is not None:
            await waiting
        data = session.mailboxes.read_on(row, offset + at, min(length - at, IMAP_BINARY_BYTES))
        if not data:
            raise Gone
        at += len(data)
        yield decoder.feed(data, final=at >= length)
        await session.wire.pause()
        if session.state == State.LOGOUT:
            raise SessionEnded
