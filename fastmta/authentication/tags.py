"""Lists of tag=value pairs, as DKIM signatures, key records, ARC sets and DMARC records have them (RFC 6376 §3.2)."""

from fastmta._canonical import TagError, decode_base64, parse_tags, without_spaces


def colon_list(value: bytes) -> list[bytes]:
    """A list separated by colons, white space around its members dropped."""
    return [word.strip(b" \t\r\n") for word in value.split(b":")]


__all__ = ["TagError", "colon_list", "decode_base64", "parse_tags", "without_spaces"]
