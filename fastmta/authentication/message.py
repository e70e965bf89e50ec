"""A message as authentication sees it: its header fields with every octet, and its body in one pass.

Fields are kept as they came, since a signature covers octets. What is no field (a line without a colon, mbox's "From ")
stays out of every look-up by name.
"""

from fastmta._canonical import Field, HeaderTooLong, parse_fields
from fastmta._canonical import with_name as named


def split_message(raw: bytes) -> tuple[bytes, bytes]:
    """The header section with its last CRLF, and the body behind the empty line. Without one all is header."""
    if raw.startswith(b"\r\n"):
        return b"", raw[2:]
    head, found, body = raw.partition(b"\r\n\r\n")
    return (head + b"\r\n", body) if found else (raw, b"")


def with_crlf(raw: bytes) -> bytes:
    """A text file's LF as CRLF; what has CRLF already is kept."""
    return raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


__all__ = ["Field", "HeaderTooLong", "named", "parse_fields", "split_message", "with_crlf"]
