"""Lists of tag=value pairs, as DKIM signatures, key records, ARC sets and DMARC records have them (RFC 6376 §3.2)."""

import binascii
import re
from typing import Final

from fastmta._canonical import TagError, parse_tags, without_spaces

_QUOTED: Final = re.compile(rb"=([0-9A-Fa-f]{2})")


def decode_base64(value: bytes) -> bytes:
    """Base64 with white space inside; TagError where it is none."""
    try:
        return binascii.a2b_base64(without_spaces(value), strict_mode=True)
    except binascii.Error as error:
        raise TagError("not base64") from error


def from_quoted_printable(value: bytes) -> bytes:
    """DKIM's own quoted-printable (RFC 6376 §2.11): white space means nothing, and =XX is an octet."""
    return _QUOTED.sub(lambda match: bytes([int(match[1], 16)]), without_spaces(value))


def colon_list(value: bytes) -> list[bytes]:
    """A list separated by colons, white space around its members dropped."""
    return [word.strip(b" \t\r\n") for word in value.split(b":")]


def unsigned_number(value: bytes) -> int:
    """A decimal number of at most 12 digits (RFC 6376 §3.5, t= and x=)."""
    if not 1 <= len(value) <= 12 or not value.isdigit():
        raise TagError("not a number")
    return int(value)


__all__ = [
    "TagError",
    "colon_list",
    "decode_base64",
    "from_quoted_printable",
    "parse_tags",
    "unsigned_number",
    "without_spaces",
]
