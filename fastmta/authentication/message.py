"""A message as authentication sees it: its header fields with every octet, and its body in one pass.

Fields are kept as they came, since a signature covers octets. What is no field (a line without a colon, mbox's "From ")
stays out of every look-up by name.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fastmta.model.limits import AUTHENTICATED_HEADER_BYTES


class Field(NamedTuple):
    """One header field: its name in lower case, and all its octets with folds and the final CRLF."""

    name: bytes
    raw: bytes

    @property
    def value(self) -> bytes:
        """What follows the colon, folded as it came."""
        return self.raw.partition(b":")[2]


class HeaderTooLong(ValueError):
    """The header section is over AUTHENTICATED_HEADER_BYTES: nothing in it is believed."""


def split_message(raw: bytes) -> tuple[bytes, bytes]:
    """The header section with its last CRLF, and the body behind the empty line."""
    if raw.startswith(b"\r\n"):
        return b"", raw[2:]
    head, found, body = raw.partition(b"\r\n\r\n")
    return (head + b"\r\n", body) if found else (raw, b"")


def parse_fields(header: bytes) -> tuple[Field, ...]:
    """The fields of a header section, top down (RFC 5322 §2.2)."""
    if len(header) > AUTHENTICATED_HEADER_BYTES:
        raise HeaderTooLong(f"the header has {len(header)} octets, over {AUTHENTICATED_HEADER_BYTES}")
    return tuple(_fields(header))


def _fields(header: bytes) -> Iterator[Field]:
    start = 0
    while start < len(header):
        end = start
        while True:
            end = header.find(b"\r\n", end)
            if end < 0:
                end = len(header)
                break
            end += 2
            if header[end : end + 1] not in (b" ", b"\t"):
                break
        raw = header[start:end]
        start = end
        name = raw.partition(b":")[0].rstrip(b" \t").lower()
        yield Field(name if b":" in raw and _is_name(name) else b"", raw)


def _is_name(name: bytes) -> bool:
    return bool(name) and all(33 <= octet <= 126 for octet in name)


def with_crlf(raw: bytes) -> bytes:
    """A text file's LF as CRLF; what has CRLF already is kept."""
    return raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def named(fields: Iterable[Field], name: bytes) -> list[Field]:
    """The fields of that name, top down."""
    return [field for field in fields if field.name == name]
