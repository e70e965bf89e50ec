"""SELECT, EXAMINE, CLOSE, UNSELECT (RFC 3501 §6.3.1, §6.3.2, §6.4.2; RFC 3691)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Awaitable, Iterator
from typing import TYPE_CHECKING, Final

from fastmta import _imap
from fastmta._imap import BadSyntax
from fastmta.imap import fetch_plan, mailbox_name
from fastmta.imap.commands.expunge import NOT_PERMITTED
from fastmta.imap.commands.fetch import write_lines
from fastmta.imap.commands.listing import write_list_line
from fastmta.imap.message_set import Chosen
from fastmta.imap.resync import EVERY_UID, Resync, changed_among, parse_resync, tell_vanished
from fastmta.imap.session import UID_REQUIRED, Feature, State
from fastmta.imap.view import View
from fastmta.model import rights
from fastmta.model.errors import Cold
from fastmta.model.flags import SEEN
from fastmta.model.limits import COLD_ROUNDS, IMAP_KEYWORDS_TOLD, MAILBOX_PAGE

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session
    from fastmta.store.mailbox_names import Mailbox

_CHANGED: Final = fetch_plan.Plan(fetch_plan.UID | fetch_plan.FLAGS | fetch_plan.MODSEQ, by_uid=True)
_CHANGED_UIDS: Final = fetch_plan.Plan(fetch_plan.UIDONLY | fetch_plan.FLAGS | fetch_plan.MODSEQ, by_uid=True)
Step = int | Cold | None  # of opening a mailbox: see _load
NO_MAILBOX = b"NO [NONEXISTENT] Mailbox does not exist"


def select(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    return _select(session, cursor, read_only=False)


def examine(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    return _select(session, cursor, read_only=True)


def _select(session: Session, cursor: Cursor, *, read_only: bool) -> Answer:
    cursor.sp()
    raw_name = cursor.astring()
    features, resync = _parameters(cursor)
    cursor.end()
    if resync is not None and not session.enabled & Feature.QRESYNC:
        raise BadSyntax("ENABLE QRESYNC first")  # RFC 7162 §3.2.5
    if resync is not None and resync.seqs is not None and session.enabled & Feature.UIDONLY:
        raise BadSyntax(UID_REQUIRED)  # RFC 9586 §3.3
    if session.view is not None:
        session.unselect()  # whatever comes of it: a SELECT that fails leaves no mailbox selected
        session.write(b"* OK [CLOSED] Previous mailbox is closed\r\n")
    session.enable(features)
    box = session.box_named(session.name_of(raw_name), rights.READ)
    if isinstance(box, bytes):
        return box
    read_only = read_only or not box.rights & rights.CHANGING
    # Subscribed before anything is read, so no change falls in between.
    session.services.notifier.subscribe(box.id, session)
    answer: bytes | Awaitable[bytes]
    rev2 = bool(session.enabled & Feature.REV2)
    if rev2:
        write_list_line(session, box, session.spelled(raw_name))
    if not rev2 and not read_only and box.recent_uid < box.uid_next:
        answer = _claim_and_open(session, box)
    else:
        shown = box.uid_next if read_only else box.recent_uid  # by EXAMINE they are shown, and left to a later session
        answer = _open(session, box, (box.recent_uid, shown), read_only)
    if resync is not None and resync.uid_validity == box.uid_validity:
        return _resynced(session, answer, resync)
    return answer


def _parameters(cursor: Cursor) -> tuple[int, Resync | None]:
    """CONDSTORE and QRESYNC (RFC 7162 §3.1.8, §3.2.5)."""
    features, resync = Feature.NONE, None
    if not cursor.try_sp():
        return features, resync
    cursor.open()
    while True:
        name = cursor.atom()
        if name == b"CONDSTORE":
            features |= Feature.CONDSTORE
        elif name == b"QRESYNC":
            cursor.sp()
            resync = parse_resync(cursor)
        else:
            raise BadSyntax("Unknown parameter")
        if cursor.try_close():
            return features, resync
        cursor.sp()


async def _resynced(session: Session, answer: bytes | Awaitable[bytes], resync: Resync) -> bytes:
    """Behind SELECT's responses, what has become of the mailbox since the client left it."""
    text = answer if isinstance(answer, bytes) else await answer
    view = session.view
    if view is None:
        return text
    pairs = resync.known or EVERY_UID
    await tell_vanished(session, view, resync.modseq, _imap.merged_ranges(pairs, view.uid_next), resync)
    uids = view.uids.by_uids(pairs)[1]
    mask = await changed_among(session, view, resync.modseq, uids)
    plan = _CHANGED_UIDS if view.uid_only else _CHANGED
    await write_lines(session, view, plan, Chosen.of_uids(view, _imap.mask_select(mask, uids)))
    return b"" if session.state == State.LOGOUT else text


async def _claim_and_open(session: Session, box: Mailbox) -> bytes:
    """Takes the \\Recent messages for this session; written only where there are new ones."""
    try:
        taken = await session.mailboxes.take_recent(box.id)
    except BaseException:
        session.services.notifier.unsubscribe(box.id, session)
        raise
    fresh = session.mailboxes.by_id(box.id)
    if fresh is None or session.state == State.LOGOUT:  # the connection may have ended meanwhile
        session.services.notifier.unsubscribe(box.id, session)
        return NO_MAILBOX if fresh is None else b""
    fresh.rights = box.rights
    answer = _open(session, fresh, taken, read_only=False)
    return answer if isinstance(answer, bytes) else await answer


def _open(session: Session, box: Mailbox, recent: tuple[int, int], read_only: bool) -> bytes | Awaitable[bytes]:
    view = View(box, read_only=read_only)
    loading = _load(session, view, box)
    step = next(loading)
    while step is None and box.exists <= MAILBOX_PAGE:
        step = next(loading)
    if isinstance(step, int):
        return _opened(session, view, box, recent, read_only, step)
    return _open_in_turns(session, view, box, recent, read_only, loading, step)


async def _open_in_turns(
    session: Session,
    view: View,
    box: Mailbox,
    recent: tuple[int, int],
    read_only: bool,
    loading: Iterator[Step],
    step: Step,
) -> bytes:
    while not isinstance(step, int):
        if step is None:
            await session.wire.pause()
        else:
            await session.mailboxes.bring(step)
        if session.state == State.LOGOUT:
            session.services.notifier.unsubscribe(box.id, session)
            return b""
        step = next(loading)
    return _opened(session, view, box, recent, read_only, step)


def _load(session: Session, view: View, box: Mailbox) -> Iterator[Step]:
    """Reads the mailbox into the view, a page at a time: None after each, Cold where the next is not in memory and is
    to be brought there, at last where the first unseen message is, or -1.

    The view is of the moment of `box`: what comes or goes between two pages is told as a change afterwards.
    """
    keywords: set[bytes] = set()
    unseen = -1
    last = cold_rounds = 0
    while last < box.uid_next - 1:
        try:
            uids, flags, _modseqs, _sizes, words = session.mailboxes.summary(
                box.id, last, MAILBOX_PAGE, cold_rounds < COLD_ROUNDS
            )
        except Cold as cold:
            cold_rounds += 1
            yield cold
            continue
        cold_rounds = 0
        if not uids:
            break
        last = uids[-1]
        if last >= box.uid_next:
            uids = uids[: bisect_left(uids, box.uid_next)]
            flags = flags[: len(uids)]
        if unseen < 0:
            at = _imap.first_without(flags, SEEN)
            unseen = at + view.uids.count if at >= 0 else -1
        view.uids.extend(uids)
        if len(keywords) < IMAP_KEYWORDS_TOLD:
            keywords |= words
        yield None
    view.keywords = frozenset(sorted(keywords)[:IMAP_KEYWORDS_TOLD])
    yield unseen


def _opened(session: Session, view: View, box: Mailbox, recent: tuple[int, int], read_only: bool, unseen: int) -> bytes:
    view.uid_next = max(box.uid_next, view.uids.last + 1)
    view.claim(*recent)
    session.select(view)
    view.tell_flags(session.write)
    view.tell_count(session.write)
    if unseen >= 0 and view.takes_recent and not view.uid_only:  # IMAP4rev2 has neither
        session.write(b"* OK [UNSEEN %d] First unseen\r\n" % (unseen + 1))
    session.write(
        b"* OK [UIDVALIDITY %d] UIDs valid\r\n* OK [UIDNEXT %d] Predicted next UID\r\n"
        b"* OK [HIGHESTMODSEQ %d] Highest\r\n* OK [MAILBOXID (%b)] Its name for ever\r\n"
        % (box.uid_validity, view.uid_next, view.modseq, mailbox_name.object_id(box.id))
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
    if box is None or not box.deleted_count:
        return b"OK CLOSE completed"
    if not session.access.rights(session.actor, view.owner_id, view.mailbox_id) & rights.EXPUNGE:
        return b"OK CLOSE completed, nothing is expunged" + NOT_PERMITTED
    return _close(session, view)


async def _close(session: Session, view: View) -> bytes:
    await session.mailboxes.expunge(view.mailbox_id, None, True)
    return b"OK CLOSE completed"


def unselect(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.end()
    session.unselect()
    return b"OK UNSELECT completed"
