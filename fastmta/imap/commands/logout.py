"""LOGOUT (RFC 3501 §6.1.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session


def run(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.end()
    session.write(b"* BYE Logging out\r\n%b OK LOGOUT completed\r\n" % tag)
    session.log_out()
    return None
