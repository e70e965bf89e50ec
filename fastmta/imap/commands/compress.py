"""COMPRESS (RFC 4978): from the end of its tagged OK on, both directions are compressed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session


def run(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.sp()
    mechanism = cursor.atom()
    cursor.end()
    if mechanism != b"DEFLATE":
        return b"NO [CANNOT] Unknown compression mechanism"
    if session.wire.compressed:
        return b"NO [COMPRESSIONACTIVE] DEFLATE is active already"
    session.write(tag + b" OK DEFLATE active\r\n")
    session.wire.compress()
    return None
