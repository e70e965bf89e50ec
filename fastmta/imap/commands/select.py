"""SELECT, EXAMINE, CLOSE, UNSELECT (RFC 3501 §6.3.1, §6.3.2, §6.4.2; RFC 3691)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastmta import _imap
from fastmta.imap import mailbox_name
from fastmta.imap.session import State
from fastmta.imap.view import View
from fastmta.model.flags import SEEN

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session

NO_MAILBOX = b"NO [NONEXISTENT] Mailbox does not exist"


def select(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    return _select(session, cursor, read_only=False)


def examine(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    return _select(session, cursor, read_only=True)


def _select(session: Session, cursor: Cursor, *, read_only: bool) -> Answer:
    cursor.sp()
    raw_name = cursor.astring()
    cursor.end()
    if session.view is not None:
        session.unselect()  # whatever comes of it: a SELECT that fails leaves no mailbox selected
        session.write(b"* OK [CLOSED] Previous mailbox is closed\r\n")
    box = session.mailboxes.get(session.account_id, mailbox_name.parse(raw_name))
    if box is None:
        return NO_MAILBOX
    # Subscribed before anything is read, so no change falls in between.
    session.services.notifier.subscribe(box.id, session)
    if not read_only and box.recent_uid < box.uid_next:
        return _claim_and_open(session, box)
    return _open(session, box, box.recent_uid, read_only)


async def _claim_and_open(session: Session, box: Any) -> bytes:
    """Takes the \\Recent messages for this session; written only where there are new ones."""
    try:
        first = await session.mailboxes.take_recent(box.id)
    except BaseException:
        session.services.notifier.unsubscribe(box.id, session)
        raise
    fresh = session.mailboxes.by_id(box.id)
    if fresh is None or session.state == State.LOGOUT:  # the connection may have ended meanwhile
        session.services.notifier.unsubscribe(box.id, session)
        return NO_MAILBOX if fresh is None else b""
    return _open(session, fresh, first, read_only=False)


def _open(session: Session, box: Any, recent_from: int, read_only: bool) -> bytes:
    view = View(box, read_only=read_only)
    uids, flags, _modseqs, _sizes, keywords = session.mailboxes.summary(box.id)
    view.uids.extend(uids)
    view.uid_next = max(box.uid_next, view.uids.last + 1)
    view.claim(recent_from, view.uid_next if read_only else box.recent_uid)
    view.keywords = frozenset(keywords)
    session.select(view)
    view.tell_flags(session.write)
    session.write(b"* %d EXISTS\r\n* %d RECENT\r\n" % (view.uids.count, view.recent_count()))
    unseen = _imap.first_without(flags, SEEN)
    if unseen >= 0:
        session.write(b"* OK [UNSEEN %d] First unseen\r\n" % (unseen + 1))
    session.write(
        b"* OK [UIDVALIDITY %d] UIDs valid\r\n* OK [UIDNEXT %d] Predicted next UID\r\n"
        % (box.uid_validity, view.uid_next)
    )
    return b"OK [READ-ONLY] EXAMINE completed" if read_only else b"OK [READ-WRITE] SELECT completed"


def close(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    """Expunges without a word, unless the mailbox is read-only."""
    cursor.end()
    view = session.selected
    session.unselect()
    if view.read_only:
        return b"OK CLOSE completed"
    box = session.mailboxes.by_id(view.mailbox_id)
    if box is None or not getattr(box, "deleted_count", 1):
        return b"OK CLOSE completed"
    return _close(session, view)


async def _close(session: Session, view: View) -> bytes:
    await session.mailboxes.expunge(view.mailbox_id, None, True)
    return b"OK CLOSE completed"


def unselect(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.end()
    session.unselect()
    return b"OK UNSELECT completed"
