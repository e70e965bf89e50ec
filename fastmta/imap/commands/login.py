"""LOGIN (RFC 3501 §6.2.3), and what LOGIN and AUTHENTICATE share: who it is, and the answer to a failure."""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING

from fastmta.auth.sasl import Credentials
from fastmta.imap.commands.capability import capabilities, may_log_in
from fastmta.imap.session import State
from fastmta.model.actor import Actor
from fastmta.model.errors import TemporaryFailure
from fastmta.model.limits import IMAP_FAILED_LOGIN_DELAY_S, IMAP_LOGIN_ATTEMPTS

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.auth.sasl import Sasl
    from fastmta.imap.seams import Account, Answer
    from fastmta.imap.session import Session

PRIVACY_REQUIRED = b"NO [PRIVACYREQUIRED] Plaintext authentication is not allowed without TLS"


def run(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.sp()
    raw_user = cursor.astring()
    cursor.sp()
    raw_password = cursor.astring()
    cursor.end()
    if not may_log_in(session):
        return PRIVACY_REQUIRED
    try:
        user, password = raw_user.decode("utf-8"), raw_password.decode("utf-8")
    except UnicodeDecodeError:
        user = password = ""
    if not user or not password:
        session.wire.delay(IMAP_FAILED_LOGIN_DELAY_S, lambda: refuse(session, tag))
        return None
    return log_in(session, tag, Credentials(user, password, "", "USER"))


def log_in(session: Session, tag: bytes, credentials: Credentials, sasl: Sasl | None = None) -> Answer:
    """Answers at once where the authenticator knows these credentials; a failure is answered later, by a timer."""
    authenticator = session.services.authenticator
    account = authenticator.try_now(credentials, session.service)
    if account is not None:
        return _welcome(session, account, credentials)
    return _authenticate(session, tag, credentials, sasl)


async def _authenticate(session: Session, tag: bytes, credentials: Credentials, sasl: Sasl | None) -> bytes:
    # In a task, as Share.run has it: an authenticator may ask others, and give up in time.
    account = await session.services.tasks.spawn("imap.login", _account_of(session, credentials))
    if isinstance(account, TemporaryFailure):
        return b"NO [UNAVAILABLE] Authentication is not available now, try again later"
    if session.state != State.NOT_AUTHENTICATED:
        return b""  # the connection has ended meanwhile
    if account is None:
        _refuse(session, tag, sasl)
        return b""
    return _welcome(session, account, credentials)


async def _account_of(session: Session, credentials: Credentials) -> Account | TemporaryFailure | None:
    try:
        return await session.services.authenticator.authenticate(credentials, session.service, session.peer_ip)
    except TemporaryFailure as failure:
        return failure


def _welcome(session: Session, account: Account, credentials: Credentials) -> bytes:
    if not session.seat.log_in(account.id):
        session.services.log.info("imap.too_many", account=account.address, client=session.peer_ip)
        return b"NO [UNAVAILABLE] " + session.seat.refusal.encode()
    session.actor = Actor(account.id)
    session.address = account.address
    session.opened_by = session.services.authenticator.opened_by(credentials)
    session.state = State.AUTHENTICATED
    session.failed_logins = 0
    session.services.store.last_logins.note(account.id, session.service, session.peer_ip)
    session.wire.logged_in()
    session.services.log.info("imap.login", account=account.address, client=session.peer_ip, tls=int(session.tls))
    return b"OK [CAPABILITY %b] Logged in" % capabilities(session)


def _refuse(session: Session, tag: bytes, sasl: Sasl | None) -> None:
    """At once, or when the client has answered what its token's refusal says."""
    challenge = sasl.refusal() if sasl is not None else None
    if challenge is None:
        refuse(session, tag)
        return
    session.write(b"+ %b\r\n" % binascii.b2a_base64(challenge.raw, newline=False))
    session.on_line = lambda _raw: refuse(session, tag)
    session.wire.expect_line()


def refuse(session: Session, tag: bytes) -> None:
    """The same text, whatever was wrong; the delay before it is the authenticator's."""
    session.failed_logins += 1
    session.write(tag + b" NO [AUTHENTICATIONFAILED] Authentication failed\r\n")
    if session.failed_logins >= IMAP_LOGIN_ATTEMPTS:
        session.write(b"* BYE Too many failed logins\r\n")
        session.log_out()
