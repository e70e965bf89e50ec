"""UNAUTHENTICATE (RFC 8437): back to the state before login, for a proxy that goes on for another user."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastmta.imap.session import Feature, State
from fastmta.model.actor import NOBODY

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session


def run(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    """What was enabled is forgotten; TLS and compression stay (§3)."""
    cursor.end()
    session.unselect()
    session.watch_nothing()
    session.seat.leave()
    session.seat = session.services.limits.seat(session.service, session.peer_ip)
    if not session.seat.enter(session.wire.make_way):
        session.write(b"* BYE Too many connections that have not logged in\r\n")
        session.log_out()
        return b"NO [UNAVAILABLE] Too many connections that have not logged in"
    session.actor = NOBODY
    session.address = ""
    session.enabled = Feature.NONE
    session.state = State.NOT_AUTHENTICATED
    session.wire.logged_out()
    return b"OK UNAUTHENTICATE completed"
