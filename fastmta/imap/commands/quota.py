"""GETQUOTA, GETQUOTAROOT and SETQUOTA (RFC 9208): one root of all an account's mailboxes, with STORAGE and MESSAGE."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastmta import _imap
from fastmta.model import rights

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session

ROOT: Final = b"User quota"  # as Dovecot names it; clients show it
NO_ROOT: Final = b"NO [NONEXISTENT] No such quota root"


def _write(session: Session, account_id: int) -> bool:
    """The QUOTA response, storage in units of 1,024 octets; False for an account without a quota."""
    used, messages, quota, limit = session.mailboxes.usage(account_id)
    resources = [b"STORAGE %d %d" % ((used + 1023) // 1024, quota // 1024)] if quota else []
    if limit:
        resources.append(b"MESSAGE %d %d" % (messages, limit))
    if resources:
        session.write(b"* QUOTA %b (%b)\r\n" % (_imap.astring(ROOT), b" ".join(resources)))
    return bool(resources)


def get_quota(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.sp()
    root = cursor.astring()
    cursor.end()
    return b"OK GETQUOTA completed" if root == ROOT and _write(session, session.account_id) else NO_ROOT


def get_quota_root(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.sp()
    raw_name = cursor.astring()
    cursor.end()
    name = session.name_of(raw_name)
    box = session.box_named(name, rights.READ)
    if isinstance(box, bytes):
        return box
    own = box.account_id == session.account_id  # what others have used is theirs to know
    limited = own and any(session.mailboxes.usage(box.account_id, box.id)[2:])
    root = b" " + _imap.astring(ROOT) if limited else b""
    session.write(b"* QUOTAROOT %b%b\r\n" % (session.written_name(name), root))
    if limited:  # a mailbox that is not counted has no root
        _write(session, box.account_id)
    return b"OK GETQUOTAROOT completed"


def set_quota(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    """Quotas are the operator's (`fastmta user quota`)."""
    cursor.sp()
    cursor.astring()
    cursor.sp()
    cursor.open()
    resources = 0
    while not cursor.try_close():
        if resources:
            cursor.sp()
        cursor.atom()
        cursor.sp()
        cursor.modseq()
        resources += 1
    cursor.end()
    return b"NO [NOPERM] Quotas are set by the administrator"
