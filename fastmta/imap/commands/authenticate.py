"""AUTHENTICATE (RFC 3501 §6.2.2) with an initial response (RFC 4959)."""

from __future__ import annotations

import binascii
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final

from fastmta.auth.sasl import Challenge, Credentials, Sasl, Step
from fastmta.imap.commands.capability import may_log_in
from fastmta.imap.commands.login import PRIVACY_REQUIRED, log_in

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session

FAILURES: Final = {
    "mechanism": b"NO [CANNOT] Unsupported authentication mechanism",
    "syntax": b"BAD Invalid authentication response",
    "cancelled": b"BAD Authentication cancelled",
    "too-long": b"BAD Authentication response is too long",
}


def run(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.sp()
    mechanism = cursor.atom().decode("ascii")
    initial = cursor.rest() if cursor.try_sp() else None
    cursor.end()
    authenticator = session.services.authenticator
    allowed = authenticator.mechanisms(session.tls, session.loopback, session.certified)
    if mechanism.upper() not in allowed and not may_log_in(session):
        return PRIVACY_REQUIRED
    sasl = authenticator.exchange(allowed, session.certified)
    return _step(session, tag, sasl, sasl.start_line(mechanism, initial))


def _step(session: Session, tag: bytes, sasl: Sasl, step: Step) -> Answer:
    if isinstance(step, Challenge):
        session.write(b"+ %b\r\n" % binascii.b2a_base64(step.raw, newline=False))
        session.on_line = lambda raw: _respond(session, tag, sasl, raw)
        session.wire.expect_line()
        return None
    if isinstance(step, Credentials):
        return log_in(session, tag, step, sasl)
    return FAILURES.get(step.code, FAILURES["syntax"])


def _respond(session: Session, tag: bytes, sasl: Sasl, raw: bytes) -> Awaitable[None] | None:
    answer = _step(session, tag, sasl, sasl.respond_line(raw))
    if answer is None:
        return None
    if isinstance(answer, bytes):
        session.write(b"%b %b\r\n" % (tag, answer))
        return None
    return session.run(tag, answer)
