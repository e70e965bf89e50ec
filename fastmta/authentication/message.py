"""A message as authentication sees it: its header fields with every octet, and its body in one pass.

Fields are kept as they came, since a signature covers octets. What is no field (a line without a colon, mbox's "From ")
stays out of every look-up by name.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from fastmta.model.limits import AUTHENTICATED_FIELDS, AUTHENTICATED_HEADER_BYTES

_LINE_END: Final = re.compile(rb"\r\n(?![ \t])")
_NAME: Final = re.compile(rb"([!-9;-~]+)[ \t]*:")


class Field(NamedTuple):
    """One header field: its name in lower case, and all its octets with folds and the final CRLF."""

    name: bytes
    raw: bytes

    @property
    def value(self) -> bytes:
        """What follows the colon, folded as it came."""
        return self.raw.partition(b":")[2]


class HeaderTooLong(ValueError):
    """The header section is over AUTHENTICATED_HEADER_BYTES or _FIELDS: nothing in it is believed."""


def split_message(raw: bytes) -> tuple[bytes, bytes]:
    """The header section with its last CRLF, and the body behind the empty line. Without one all is header."""
    if raw.startswith(b"\r\n"):
        return b"", raw[2:]
    head, found, body = raw.partition(b"\r\n\r\n")
    return (head + b"\r\n", body) if found else (raw, b"")


def parse_fields(header: bytes) -> tuple[Field, ...]:
    """The fields of a header section, top down (RFC 5322 §2.2)."""
    if len(header) > AUTHENTICATED_HEADER_BYTES:
        raise HeaderTooLong(f"the header has {len(header)} octets, over {AUTHENTICATED_HEADER_BYTES}")
    raws = _LINE_END.split(header)
    if len(raws) > AUTHENTICATED_FIELDS + 1:
        raise HeaderTooLong(f"the header has {len(raws) - 1} fields, over {AUTHENTICATED_FIELDS}")
    last = raws.pop()
    fields = [_field(raw + b"\r\n") for raw in raws]
    if last:
        fields.append(_field(last))
    return tuple(fields)


def _field(raw: bytes) -> Field:
    match = _NAME.match(raw)
    return Field(match[1].lower() if match is not None else b"", raw)


def with_crlf(raw: bytes) -> bytes:
    """A text file's LF as CRLF; what has CRLF already is kept."""
    return raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def named(fields: Iterable[Field], name: bytes) -> list[Field]:
    """The fields of that name, top down."""
    return [field for field in fields if field.name == name]
