"""CAPABILITY (RFC 3501 §6.1.1): only what is built is named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastmta.imap.session import State

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session

# Before login a "{n+}" has LITERAL-'s small bound (RFC 7888 §5), after it LITERAL+ holds.
# ENABLE and IDLE need a login: clients that never ask again (Python's imaplib) refuse to send what is not named here.
BEFORE_LOGIN: Final = b"IMAP4rev1 IMAP4rev2 LITERAL- SASL-IR ID ENABLE IDLE"
AFTER_LOGIN: Final = (
    b"IMAP4rev1 IMAP4rev2 LITERAL+ ID IDLE NAMESPACE CHILDREN UIDPLUS MOVE UNSELECT"
    b" MULTIAPPEND CATENATE URLAUTH URL-PARTIAL REPLACE BINARY SAVEDATE OBJECTID UIDONLY INPROGRESS"
    b" NOTIFY CONTEXT=SEARCH CONTEXT=SORT LANGUAGE"
    b" I18NLEVEL=1 SEARCH=FUZZY METADATA LIST-METADATA MULTISEARCH ACL RIGHTS=texk LIST-MYRIGHTS"
    b" LIST-EXTENDED SPECIAL-USE CREATE-SPECIAL-USE XLIST"
    b" ENABLE CONDSTORE QRESYNC UTF8=ACCEPT STATUS=SIZE LIST-STATUS ESEARCH SEARCHRES WITHIN PARTIAL UNAUTHENTICATE"
    b" SORT SORT=DISPLAY ESORT THREAD=ORDEREDSUBJECT THREAD=REFERENCES THREAD=REFS QUOTA QUOTA=RES-STORAGE"
    b" QUOTA=RES-MESSAGE PREVIEW"
)


def may_log_in(session: Session) -> bool:
    """Dovecot's disable_plaintext_auth: without TLS only from loopback (RFC 3501 §6.2.3, §11.1)."""
    allowed: bool = session.services.authenticator.login_allowed(session.tls, session.loopback)
    return allowed


def offers_tls(session: Session) -> bool:
    return not session.tls and session.services.contexts.server_context() is not None


def capabilities(session: Session) -> bytes:
    """The capability list for the session as it is now."""
    if session.state != State.NOT_AUTHENTICATED:
        out = AFTER_LOGIN if session.wire.compressed else AFTER_LOGIN + b" COMPRESS=DEFLATE"
        limit = session.services.config.message_size_limit
        return out + b" APPENDLIMIT=%d" % limit if limit else out
    out = BEFORE_LOGIN
    if offers_tls(session):
        out += b" STARTTLS"
    if not may_log_in(session):
        out += b" LOGINDISABLED"
    for mechanism in session.services.authenticator.mechanisms(session.tls, session.loopback, session.certified):
        out += b" AUTH=" + mechanism.encode("ascii")
    return out


def run(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.end()
    session.write(b"* CAPABILITY %b\r\n" % capabilities(session))
    return b"OK CAPABILITY completed"
