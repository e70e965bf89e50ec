"""Mailbox names: modified UTF-7 on the wire (RFC 3501 §5.1.3), or UTF-8 for who asked for it (RFC 9755); text within.

A name is never a path: it only ever is a key. What may not be stored is refused here, before the store sees it.
"""

import binascii
import re
from typing import Final

from fastmta import _imap
from fastmta.model.limits import IMAP_MAILBOX_DEPTH, IMAP_MAILBOX_NAME_BYTES

SEPARATOR: Final = "/"
_SHIFTED: Final = re.compile(rb"&([A-Za-z0-9+,]*)-")
_RUNS: Final = re.compile(r"[^\x20-\x7e]+|&")


class BadName(ValueError):
    """The name is not one that a mailbox can have; the text may be shown to the peer."""


def decode(raw: bytes, *, utf8: bool = False) -> str:
    """Modified UTF-7 to text. BadName for everything that `encode` would not have made (RFC 3501 §5.1.3 MUST NOTs)."""
    if utf8:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise BadName("Mailbox name is not valid UTF-8") from None
    if b"&" not in raw and raw.isascii() and (direct := raw.decode("ascii")).isprintable():
        return direct
    out: list[str] = []
    position = 0
    for match in _SHIFTED.finditer(raw):
        out.append(raw[position : match.start()].decode("latin-1"))
        coded = match.group(1)
        out.append(_shifted(coded) if coded else "&")
        position = match.end()
    out.append(raw[position:].decode("latin-1"))
    text = "".join(out)
    if encode(text) != raw:
        raise BadName("Mailbox name is not valid modified UTF-7")
    return text


def _shifted(coded: bytes) -> str:
    try:
        octets = binascii.a2b_base64(coded.replace(b",", b"/") + b"=" * (-len(coded) % 4))
        return octets.decode("utf-16-be")
    except (binascii.Error, UnicodeDecodeError):
        raise BadName("Mailbox name is not valid modified UTF-7") from None


def encode(text: str) -> bytes:
    """Text to modified UTF-7."""
    if text.isascii() and text.isprintable() and "&" not in text:
        return text.encode("ascii")
    return _RUNS.sub(_encoded_run, text).encode("ascii")


def _encoded_run(match: re.Match[str]) -> str:
    run = match.group()
    if run == "&":
        return "&-"
    octets = run.encode("utf-16-be", "surrogatepass")
    return "&" + binascii.b2a_base64(octets, newline=False).rstrip(b"=").replace(b"/", b",").decode("ascii") + "-"


def canonical(text: str) -> str:
    """INBOX is the same in any case (RFC 3501 §5.1), also as the parent of others."""
    if text[:5].upper() == "INBOX" and text[5:6] in ("", SEPARATOR):
        return "INBOX" + text[5:]
    return text


def parse(raw: bytes, *, utf8: bool = False) -> str:
    """The name that a command's mailbox argument stands for. BadName where no mailbox can be called so."""
    return canonical(decode(raw, utf8=utf8))


def written(name: str, *, utf8: bool = False) -> bytes:
    """A name as a response has it: an atom, or a quoted string, of UTF-8 where the client takes it."""
    if not utf8 or name.isascii():
        return _imap.astring(name.encode("ascii") if utf8 else encode(name))
    return b'"%b"' % name.replace("\\", "\\\\").replace('"', '\\"').encode("utf-8", "replace")


def object_id(mailbox_id: int) -> bytes:
    """MAILBOXID (RFC 8474 §4.1): it outlives a change of name, and is never given again."""
    return b"F%x" % mailbox_id


def require_creatable(name: str) -> None:
    """Raises BadName unless a mailbox may get this name."""
    if not name:
        raise BadName("Mailbox name is empty")
    if len(name.encode("utf-8", "surrogatepass")) > IMAP_MAILBOX_NAME_BYTES:
        raise BadName("Mailbox name is too long")
    levels = name.split(SEPARATOR)
    if len(levels) > IMAP_MAILBOX_DEPTH:
        raise BadName("Mailbox name has too many levels")
    if not all(levels):
        raise BadName("Mailbox name has an empty level")
    if any(level in (".", "..") for level in levels):
        raise BadName('A level of a mailbox name may not be "." or ".."')
    if any(character in "*%" for character in name):
        raise BadName("Mailbox name contains a wildcard")
    if any(
        ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 or 0xD800 <= ord(character) < 0xE000
        for character in name
    ):
        raise BadName("Mailbox name contains a control character")


def parents(name: str) -> list[str]:
    """The superior names, from the top: "a/b/c" gives ["a", "a/b"]."""
    levels = name.split(SEPARATOR)
    return [SEPARATOR.join(levels[:n]) for n in range(1, len(levels))]
