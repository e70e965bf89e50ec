"""STARTTLS (RFC 3501 §6.2.1): whatever the client sent behind it in plain text is dropped by the connection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastmta.imap.commands.capability import offers_tls

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session


def run(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.end()
    if session.tls:
        return b"BAD TLS is active already"
    if not offers_tls(session):
        return b"NO [UNAVAILABLE] TLS is not available"
    session.write(tag + b" OK Begin TLS negotiation now\r\n")
    session.wire.start_tls()
    return None
