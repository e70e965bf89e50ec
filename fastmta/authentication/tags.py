"""Lists of tag=value pairs, as DKIM signatures, key records, ARC sets and DMARC records have them (RFC 6376 §3.2)."""

import base64
import binascii
import re
from typing import Final

from fastmta.model.limits import DKIM_FIELD_BYTES, DKIM_TAGS

_TAG: Final = re.compile(rb"\s*([A-Za-z][A-Za-z0-9_]*)\s*=(.*)\Z", re.DOTALL)
_QUOTED: Final = re.compile(rb"=([0-9A-Fa-f]{2})")
_B_VALUE: Final = re.compile(rb"(^|;)([ \t\r\n]*b[ \t\r\n]*=)[^;]*")


class TagError(ValueError):
    """The list is not of the form that the RFC gives it."""


def parse_tags(raw: bytes) -> dict[str, bytes]:
    """The pairs in their order, values without white space around them. A tag that stands twice is an error."""
    tags: dict[str, bytes] = {}
    if len(raw) > DKIM_FIELD_BYTES:
        raise TagError("the list is too long")
    parts = raw.replace(b"\r\n ", b" ").replace(b"\r\n\t", b"\t").strip(b" \t\r\n").split(b";", DKIM_TAGS + 1)
    if parts and not parts[-1].strip():
        parts.pop()  # one semicolon may end the list
    if len(parts) > DKIM_TAGS:
        raise TagError("the list has too many tags")
    for part in parts:
        match = _TAG.match(part)
        if match is None:
            raise TagError("a part is no tag=value")
        name = match[1].decode("ascii")
        if name in tags:
            raise TagError(f"the tag {name}= stands twice")
        tags[name] = match[2].strip(b" \t\r\n")
    return tags


def without_spaces(value: bytes) -> bytes:
    """A value in which folding white space means nothing."""
    return value.translate(None, b" \t\r\n")


def decode_base64(value: bytes) -> bytes:
    """Base64 with white space inside; TagError where it is none."""
    try:
        return base64.b64decode(without_spaces(value), validate=True)
    except binascii.Error as error:
        raise TagError("not base64") from error


def from_quoted_printable(value: bytes) -> bytes:
    """DKIM's own quoted-printable (RFC 6376 §2.11): white space means nothing, and =XX is an octet."""
    return _QUOTED.sub(lambda match: bytes([int(match[1], 16)]), without_spaces(value))


def colon_list(value: bytes) -> list[bytes]:
    """A list separated by colons, white space around its members dropped."""
    return [word.strip(b" \t\r\n") for word in value.split(b":")]


def without_signature(value: bytes) -> bytes:
    """A signature field's value with the value of b= taken out, as it is hashed (RFC 6376 §3.7)."""
    return _B_VALUE.sub(rb"\1\2", value, count=1)


def unsigned_number(value: bytes) -> int:
    """A decimal number of at most 12 digits (RFC 6376 §3.5, t= and x=)."""
    if not 1 <= len(value) <= 12 or not value.isdigit():
        raise TagError("not a number")
    return int(value)
