"""IDLE (RFC 2177): from here on the notifier's word is passed on at once; meanwhile the session costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session


def run(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.end()
    session.idle_tag = tag
    session.write(b"+ idling\r\n")
    session.wire.expect_line()
    session.wire.idles()
    session.wire.changed()  # what has changed since the last command is told now
    return None
