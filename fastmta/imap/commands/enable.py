"""ENABLE (RFC 5161): what a client has to ask for before it is sent; IMAP4rev2 too (RFC 9051 appendix E)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastmta.imap.session import Feature

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session

FEATURES: Final = {
    b"CONDSTORE": Feature.CONDSTORE,
    b"QRESYNC": Feature.QRESYNC,
    b"UTF8=ACCEPT": Feature.UTF8,
    b"IMAP4REV2": Feature.REV2,
    b"UIDONLY": Feature.UIDONLY,
}


def run(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    """An unknown capability, or one that needs no ENABLE, is passed over (RFC 5161 §3.1)."""
    wanted = Feature.NONE
    named: list[bytes] = []
    cursor.sp()
    while True:
        name = cursor.atom()
        if name in FEATURES and name not in named:
            named.append(name)
            wanted |= FEATURES[name]
        if not cursor.try_sp():
            break
    cursor.end()
    session.write(b"* ENABLED%b\r\n" % b"".join(b" " + name for name in named).replace(b"IMAP4REV2", b"IMAP4rev2"))
    session.enable(wanted)
    return b"OK ENABLE completed"
