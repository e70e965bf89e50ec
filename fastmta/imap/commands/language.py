"""LANGUAGE (RFC 5255 §3): the texts of responses are English, which is what i-default is too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastmta._imap import BadSyntax
from fastmta.model.limits import IMAP_LANGUAGES

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session

_DEFAULT: Final = b"I-DEFAULT"


def run(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    """Without an argument the languages that there are; else the first range that one of them is in (RFC 4647 §3.4)."""
    ranges: list[bytes] = []
    while cursor.try_sp():
        ranges.append(cursor.astring().upper())
        if len(ranges) > IMAP_LANGUAGES:
            raise BadSyntax("Too many languages")
    cursor.end()
    if not ranges:
        session.write(b"* LANGUAGE (EN i-default)\r\n")
        return b"OK These are the languages"
    for wanted in ranges:
        if wanted in (b"*", b"EN") or wanted.startswith(b"EN-"):
            session.write(b"* LANGUAGE (EN)\r\n")
            return b"OK Speaking English"
        if wanted in (b"DEFAULT", _DEFAULT):
            session.write(b"* LANGUAGE (i-default)\r\n")
            return b"OK Speaking the default, which is English"
    return b"NO [CANNOT] Only English is spoken here"
