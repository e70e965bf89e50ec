"""NOOP and CHECK (RFC 3501 §6.1.2, §6.4.1): what has changed is told at the command's end."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session


def noop(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.end()
    return b"OK NOOP completed"


def check(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.end()
    return b"OK CHECK completed"
