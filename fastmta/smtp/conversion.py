"""8-bit mail for a server without 8BITMIME: the same message in 7-bit MIME (RFC 6152 §3), as Postfix makes it.

A plan is made first, from the message's structure and one look at its bytes: which parts hold 8-bit bytes, and what
their headers must say. Text becomes quoted-printable, any other content base64; a multipart or an enclosed message is
converted inside, part by part, and labelled 7bit; 8-bit header fields become encoded words. What is 7-bit already
leaves byte for byte, so an attachment in base64 stays as it is. Labels are not believed: a part that is called 7bit and
holds 8-bit bytes is converted too, and where it has no label at all the missing MIME fields are added.

The bytes leave as a stream of bounded pieces, each read from the store when it is wanted. A conversion breaks the
signatures over what it changes; `breaks` names them, for the log.

Left to others: line ends and dots (the connection), and whether a server needs this (the client).
"""

import base64
import binascii
import re
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from fastmta._mime import Part, Structure, parts_of
from fastmta.model.limits import CONVERTED_HEADER_BYTES, CONVERTED_PIECE_BYTES, MIME_PARTS
from fastmta.smtp.folding import signatures
from fastmta.smtp.header_words import UNKNOWN, field_name, fields, masked, seven_bit_field

# Gives the message's bytes from an offset on, as many as were asked for; None: the message has gone.
Read = Callable[[int, int], bytes | None]

_HIGH: Final = re.compile(rb"[\x80-\xff]")
_LEAVES: Final = ("text", "other")
_LABELLED_8BIT: Final = ("8bit", "binary")
_ENCODED: Final = ("base64", "quoted-printable", "x-uuencode", "uuencode", "x-uue")


class Unconvertible(Exception):
    """The message cannot be told in 7-bit; the text says why."""


class Gone(Exception):
    """The message was deleted while it was being read."""


class Segment(msgspec.Struct, gc=False):
    """A stretch of the message, and what is done with it: one of the words in `_ACTIONS`, or "header"."""

    start: int
    length: int
    action: str
    is_high: bool = False  # it holds 8-bit bytes
    is_utf8: bool = True  # which are UTF-8
    encoding: str = ""  # header: what Content-Transfer-Encoding must say, "" as it is
    charset: str = ""  # header: the charset of text that has no Content-Type
    is_message: bool = False

    @property
    def end(self) -> int:
        return self.start + self.length


class Conversion(msgspec.Struct, gc=False):
    """The plan of one message. `parts`: how many change; `breaks`: the signatures that do not survive it."""

    segments: list[Segment]
    parts: int
    breaks: tuple[str, ...]

    def pieces(self, read: Read) -> Iterator[bytes]:
        """The converted message in pieces of at most about three times CONVERTED_PIECE_BYTES. Gone, where it has."""
        for segment in self.segments:
            if segment.action == "header":
                yield _header(_whole(read, segment), segment)
                continue
            yield from _ACTIONS[segment.action](_stretch(read, segment))


def plan(read: Read, size_bytes: int) -> Iterator[Conversion | None]:
    """Makes the plan: gives None after each piece of work, so that others get their turn, and at last the plan.

    Unconvertible where there is no way; Gone where the message has gone.
    """
    structure = Structure()
    for piece in _stretch(read, Segment(0, size_bytes, "copy")):
        structure.feed(piece)
        yield None
    parts = parts_of(structure.finish())
    if len(parts) >= MIME_PARTS or any(part.kind == "opaque" for part in parts):
        raise Unconvertible("its parts are too many or nested too deeply")
    segments = list(_segments(parts, size_bytes))
    for segment in segments:
        decoder = getincrementaldecoder("utf-8")()
        for piece in _stretch(read, segment):
            yield None
            segment.is_high |= not piece.isascii()
            if segment.is_utf8 and segment.action == "quote":
                try:
                    decoder.decode(piece)
                except UnicodeDecodeError:
                    segment.is_utf8 = False
    _decide(segments, parts)
    yield Conversion(segments, *_changes(segments, parts, read))


def converted(message: bytes) -> bytes:
    """A small message in 7-bit, at once; Unconvertible where there is no way."""

    def read(offset: int, length: int) -> bytes:
        return message[offset : offset + length]

    for step in plan(read, len(message)):
        if step is not None:
            return b"".join(step.pieces(read))
    raise AssertionError("a plan ends with a conversion")


def _segments(parts: Sequence[Part], size_bytes: int) -> Iterator[Segment]:
    """The whole message in order; what lies between the parts (delimiters, preambles) is masked where need be."""
    at = 0
    for part in parts:
        stretches = [(part.header_offset, part.header_length, "header")]
        if part.kind in _LEAVES:
            stretches.append((part.body_offset, part.body_length, _how(part)))
        for start, length, action in stretches:
            if start > at:
                yield Segment(at, start - at, "mask")
            yield Segment(start, length, action, is_message=part.is_message)
            at = max(at, start + length)
    if at < size_bytes:
        yield Segment(at, size_bytes - at, "mask")


def _how(part: Part) -> str:
    """How the body of a leaf is made 7-bit, if it has to be."""
    if part.encoding == "quoted-printable":
        return "escape"
    if part.encoding in _ENCODED:
        return "mask"  # decoders pass over what is not of their alphabet (RFC 2045 §6.8)
    return "quote" if part.kind == "text" or part.content_type.startswith("message/") else "base64"


def _decide(segments: Sequence[Segment], parts: Sequence[Part]) -> None:
    """Leaves alone what is 7-bit already, and labels what is not."""
    headers = {segment.start: segment for segment in segments if segment.action == "header"}
    bodies = {segment.start: segment for segment in segments if segment.action != "header"}
    for part in parts:
        header = headers[part.header_offset]
        if part.kind not in _LEAVES:
            inside = any(
                s.is_high for s in segments if part.body_offset <= s.start < part.body_offset + part.body_length
            )
            if part.encoding in _LABELLED_8BIT or (inside and part.encoding != "7bit"):
                header.encoding = "7bit"
            continue
        body = bodies.get(part.body_offset)
        if body is None or not body.length:
            continue
        if body.action in ("quote", "base64"):
            if body.is_high or part.encoding == "binary":
                body.is_high = True
                header.encoding = "quoted-printable" if body.action == "quote" else "base64"
                if part.kind == "text":
                    header.charset = "utf-8" if body.is_utf8 else UNKNOWN
            elif part.encoding == "8bit":
                header.encoding = "7bit"
    for segment in segments:
        if not segment.is_high and not segment.encoding:
            segment.action = "copy"
        elif segment.action == "header" and segment.length > CONVERTED_HEADER_BYTES:
            raise Unconvertible("a header of it is too long")


def _changes(segments: Sequence[Segment], parts: Sequence[Part], read: Read) -> tuple[int, tuple[str, ...]]:
    """How many bodies change, and the signatures that cover what does."""
    changed = [segment for segment in segments if segment.action != "copy"]
    if not changed:
        return 0, ()
    breaks = []
    for part in parts:
        end = part.body_offset + part.body_length
        if part.content_type == "multipart/signed" and any(part.body_offset <= s.start < end for s in changed):
            breaks.append("multipart/signed")
            break
    top = _whole(read, Segment(0, min(parts[0].header_length, CONVERTED_HEADER_BYTES), "copy"))
    breaks += [label for label in signatures(top) if label != "multipart/signed"]
    return sum(segment.action in ("quote", "base64", "escape") for segment in changed), tuple(breaks)


# --- pieces ---


def _stretch(read: Read, segment: Segment) -> Iterator[bytes]:
    at, end = segment.start, segment.start + segment.length
    while at < end:
        piece = read(at, min(CONVERTED_PIECE_BYTES, end - at))
        if not piece:
            raise Gone
        at += len(piece)
        yield piece


def _whole(read: Read, segment: Segment) -> bytes:
    return b"".join(_stretch(read, segment))


def _quoted(stretch: Iterable[bytes]) -> Iterator[bytes]:
    """Quoted-printable, cut at line ends; a line longer than a piece is cut by a soft line break."""
    carry = b""
    for piece in stretch:
        carry += piece
        cut = carry.rfind(b"\n") + 1
        if cut:
            yield quoted_printable(carry[:cut])
            carry = carry[cut:]
        if len(carry) >= CONVERTED_PIECE_BYTES:
            cut = len(carry) - 1  # a CR at the end may have its LF in the next piece
            yield quoted_printable(carry[:cut]) + b"=\r\n"
            carry = carry[cut:]
    if carry:
        yield quoted_printable(carry)


def quoted_printable(text: bytes) -> bytes:
    """Lines of text as quoted-printable (RFC 2045 §6.7), with CRLF; a CR that ends no line is kept as =0D."""
    text = text.replace(b"\r\n", b"\n")
    return b"=\n=0D=\n".join(binascii.b2a_qp(part, istext=True) for part in text.split(b"\r")).replace(b"\n", b"\r\n")


def _in_base64(stretch: Iterable[bytes]) -> Iterator[bytes]:
    carry = b""
    for piece in stretch:
        carry += piece
        whole = len(carry) - len(carry) % 57  # 57 bytes are a line of 76 characters
        if whole:
            yield base64.encodebytes(carry[:whole]).replace(b"\n", b"\r\n")
            carry = carry[whole:]
    if carry:
        yield base64.encodebytes(carry).replace(b"\n", b"\r\n")


def _escaped(stretch: Iterable[bytes]) -> Iterator[bytes]:
    """Quoted-printable that holds 8-bit bytes: those alone are quoted, the rest is as it should be already."""
    for piece in stretch:
        yield _HIGH.sub(lambda match: b"=%02X" % match[0][0], piece)


def _masked(stretch: Iterable[bytes]) -> Iterator[bytes]:
    return map(masked, stretch)


_ACTIONS: Final[dict[str, Callable[[Iterator[bytes]], Iterator[bytes]]]] = {
    "copy": iter,
    "mask": _masked,
    "escape": _escaped,
    "quote": _quoted,
    "base64": _in_base64,
}


# --- headers ---


def _header(raw: bytes, segment: Segment) -> bytes:
    """A header in 7-bit, with the fields that a converted body needs."""
    out: list[bytes] = []
    end = b""
    has_type = has_version = False
    for field in fields(raw):
        name = field_name(field)
        if not field.strip(b"\r\n"):
            end = b"\r\n"
            continue
        if name == b"content-transfer-encoding" and segment.encoding:
            continue
        if name == b"content-type":
            if segment.charset and not field.partition(b":")[2].strip().lower().startswith(b"text/"):
                continue  # a multipart without a boundary, or no type at all: a reader takes the body for text
            has_type = True
        has_version |= name == b"mime-version"
        out.append(seven_bit_field(field))
    if out and not out[-1].endswith(b"\n"):
        out[-1] += b"\r\n"
    if segment.encoding:
        if segment.is_message and not has_version:
            out.append(b"MIME-Version: 1.0\r\n")
        if segment.charset and not has_type:
            out.append(b"Content-Type: text/plain; charset=%b\r\n" % segment.charset.encode())
        out.append(b"Content-Transfer-Encoding: %b\r\n" % segment.encoding.encode())
    return b"".join((*out, end))
