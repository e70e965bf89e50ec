"""XCLIENT and XFORWARD, Postfix's commands of a host that speaks for a client: their attributes. Rules only.

XCLIENT says who the client really is, for access, log and Received; XFORWARD only for the log of a content filter's
second hop. Who may say so is the administrator's: smtpd_authorized_xclient_hosts and smtpd_authorized_xforward_hosts.
"""

import ipaddress
import re
from typing import Any, Final

import msgspec

from fastmta.model.reply import Reply
from fastmta.smtp.extensions import decode_xtext

XCLIENT_NAMES: Final = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT")
XFORWARD_NAMES: Final = ("NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE")
_ABSENT: Final = frozenset({b"[UNAVAILABLE]", b"[TEMPUNAVAIL]"})
_HOST: Final = re.compile(r"[A-Za-z0-9_.-]{1,255}")
_VALUE_BYTES: Final = 255


class Attributes(msgspec.Struct, frozen=True):
    """What was said; None: not said, "": said to be unknown."""

    name: str | None = None
    addr: str | None = None
    port: int = 0
    proto: str | None = None
    helo: str | None = None
    login: str | None = None
    ident: str | None = None
    source: str | None = None


def parse_attributes(raw: bytes, names: tuple[str, ...], command: str) -> Attributes | Reply:
    """The attributes of a command, or the reply that refuses them."""
    words = raw.split()
    if not words:
        return Reply(501, "5.5.4", f"Syntax: {command} attribute=value...")
    found: dict[str, object] = {}
    for word in words:
        key, _, coded = word.partition(b"=")
        name = key.decode("ascii", "replace").upper()
        if name not in names:
            return Reply(501, "5.5.4", f"Bad {command} attribute name: {name[:40]}")
        value = b"" if coded.upper() in _ABSENT else decode_xtext(coded)
        text = _checked(name, value) if value is not None and len(value) <= _VALUE_BYTES else None
        if text is None:
            return Reply(501, "5.5.4", f"Bad {command} {name} value")
        if name in ("DESTADDR", "DESTPORT"):
            continue  # where the client connected to: said, and used by nobody
        found[name.lower()] = int(text or 0) if name == "PORT" else text
    return msgspec.convert(found, Attributes)


def _checked(name: str, value: bytes) -> str | None:
    """A value as it is used, None where it is none of its kind."""
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if not text:
        return text
    if name in ("ADDR", "DESTADDR"):
        try:
            return str(ipaddress.ip_address(text[5:] if text[:5].upper() == "IPV6:" else text))
        except ValueError:
            return None
    if name in ("PORT", "DESTPORT"):
        return text if text.isascii() and text.isdigit() and int(text) <= 65_535 else None
    if name == "NAME":
        return text if _HOST.fullmatch(text) else None
    if name == "PROTO":
        return text.upper() if text.upper() in ("SMTP", "ESMTP") else None
    if name == "SOURCE":
        return text.upper() if text.upper() in ("LOCAL", "REMOTE") else None
    return text if text.isprintable() else None


def shown(attributes: Attributes) -> dict[str, Any]:
    """The attributes as fields of the log."""
    fields = msgspec.structs.asdict(attributes)
    return {f"orig_{name}": value for name, value in fields.items() if value}
