"""What fastmta/_canonical.pyx does, word by word as the RFCs say it: slow, and obvious enough to be believed."""

import re

from fastmta._canonical import Field, TagError
from fastmta.model.limits import DKIM_FIELD_BYTES, DKIM_TAGS


def fields(header: bytes) -> list[tuple[bytes, bytes]]:
    """(name, octets) of each field: a line end counts where no blank follows."""
    raws = re.split(rb"(?<=\r\n)(?![ \t])", header)
    found = []
    for raw in raws:
        if raw:
            match = re.match(rb"([!-9;-~]+)[ \t]*:", raw)
            found.append((match[1].lower() if match else b"", raw))
    return found


def tags(raw: bytes) -> dict[str, bytes]:
    """A tag list; TagError where it is none."""
    if len(raw) > DKIM_FIELD_BYTES:
        raise TagError
    parts = re.sub(rb"\r\n(?=[ \t])", b"", raw).strip(b" \t\r\n").split(b";")
    if not parts[-1].strip():
        parts.pop()
    if len(parts) > DKIM_TAGS:
        raise TagError
    found: dict[str, bytes] = {}
    for part in parts:
        match = re.fullmatch(rb"\s*([A-Za-z][A-Za-z0-9_]*)\s*=(.*)", part, re.DOTALL)
        if match is None or match[1].decode() in found:
            raise TagError
        found[match[1].decode()] = match[2].strip(b" \t\r\n")
    return found


def field(one: Field, form: str) -> bytes:
    """A field's canonical form (RFC 6376 §3.4.1, §3.4.2)."""
    if form == "simple":
        return one.raw if one.raw.endswith(b"\r\n") else one.raw + b"\r\n"
    value = one.raw.partition(b":")[2].rstrip(b"\r\n")
    value = re.sub(rb"\r\n(?=[ \t])", b"", value)
    return one.name + b":" + re.sub(rb"[ \t]+", b" ", value).strip(b" ") + b"\r\n"


def unsigned(own: Field, form: str) -> bytes:
    """A signature's own field in its hash: without the value of b=, and without its CRLF (§3.7)."""
    name, _, value = own.raw.partition(b":")
    value = re.sub(rb"(\A|;)([ \t\r\n]*b[ \t\r\n]*=)[^;]*", rb"\1\2", value, count=1)
    return field(Field(own.name, name + b":" + value), form).removesuffix(b"\r\n")


def body(octets: bytes, form: str) -> bytes:
    """A body's canonical form (§3.4.3, §3.4.4)."""
    if form == "relaxed":
        octets = re.sub(rb"[ \t]+(?=\r\n|\Z)", b"", octets)
        octets = re.sub(rb"[ \t]+", b" ", octets)
    while octets.endswith(b"\r\n"):
        octets = octets[:-2]
    return octets + b"\r\n" if octets or form == "simple" else b""
