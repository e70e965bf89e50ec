"""What has become of a mailbox since a modseq (RFC 7162): the messages that have changed, and those that are gone.

Invariants: nothing is told of messages that are in the view, but by FETCH: an expunged one that still has its number is
told by VANISHED later. Records of expunged messages are kept to a bound; before it, whatever is not there is told as
gone, which a client that never had it passes over (RFC 7162 §3.2.5.2).
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

import msgspec

from fastmta import _imap
from fastmta._imap import BadSyntax
from fastmta.imap.session import SessionEnded, State
from fastmta.imap.view import MailboxGone
from fastmta.model.limits import MAILBOX_PAGE, SEARCH_BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastmta._imap import Cursor
    from fastmta.imap.session import Session
    from fastmta.imap.view import View

RANGES: Final = 2048  # of one VANISHED response
KNOWN_PAIRS: Final = 10_000  # of numbers and uids that are compared
EVERY_UID: Final = array("I", (1, 0xFFFFFFFF))


class Resync(msgspec.Struct, frozen=True):
    """SELECT's QRESYNC parameter (RFC 7162 §3.2.5). `seqs` and `uids` are pairs that the client knew of each other."""

    uid_validity: int
    modseq: int
    known: array[int] | None = None
    seqs: array[int] | None = None
    uids: array[int] | None = None


def parse_resync(cursor: Cursor) -> Resync:
    """What stands behind QRESYNC."""
    cursor.open()
    validity = cursor.number()
    cursor.sp()
    modseq = cursor.modseq()
    if not validity or not modseq:
        raise BadSyntax("A number above 0 expected")
    known = seqs = uids = None
    if cursor.try_sp():
        if not cursor.at(0x28):
            known = _known_set(cursor)
        if known is None or cursor.try_sp():
            cursor.open()
            seqs = _known_set(cursor)
            cursor.sp()
            uids = _known_set(cursor)
            cursor.close()
            if _length(seqs) != _length(uids):
                raise BadSyntax("Sets of different lengths")
    cursor.close()
    return Resync(validity, modseq, known, seqs, uids)


def _known_set(cursor: Cursor) -> array[int]:
    pairs = cursor.sequence_set()
    if 0 in pairs:
        raise BadSyntax('"*" is not allowed here')
    return pairs


def _length(pairs: array[int]) -> int:
    return sum(abs(pairs[n + 1] - pairs[n]) + 1 for n in range(0, len(pairs), 2))


async def changed_among(session: Session, view: View, since: int, uids: array[int]) -> bytes:
    """A mask over ascending uids: those that have changed after a modseq. SessionEnded."""
    page, until = session.mailboxes.changed_uids(view.mailbox_id, since, MAILBOX_PAGE)
    if not until:  # mostly they are few, and no other row is read
        return _imap.mask_members(uids, array("I", sorted(page)))
    masks: list[bytes] = []
    for begin in range(0, len(uids), SEARCH_BLOCK):
        modseqs = session.mailboxes.modseqs(view.mailbox_id, uids[begin : begin + SEARCH_BLOCK])
        masks.append(bytes(map(since.__lt__, modseqs)))
        await _pause(session)
    return b"".join(masks)


async def tell_vanished(session: Session, view: View, since: int, ranges: array[int], resync: Resync | None) -> None:
    """VANISHED (EARLIER) for what was expunged after a modseq, of merged ranges of uids. SessionEnded, MailboxGone."""
    box = session.mailboxes.by_id(view.mailbox_id)
    if box is None:
        raise MailboxGone
    if since < box.floor_modseq:
        pairs = view.uids.absent(_from(ranges, _agreed(view, resync)), view.uid_next)
        for begin in range(0, len(pairs), 2 * RANGES):
            session.write(b"* VANISHED (EARLIER) %b\r\n" % _imap.pair_set(pairs[begin : begin + 2 * RANGES]))
            await _flushed(session)
        return
    gone: set[int] = set()
    while True:
        page, until = session.mailboxes.changed_uids(view.mailbox_id, since, MAILBOX_PAGE, expunged=True)
        gone.update(page)
        if not until:
            break
        since = until
        await _pause(session)
    found = array("I", sorted(uid for uid in gone if not view.uids.seq_of(uid)))
    found = _imap.mask_select(_imap.mask_ranges(found, ranges), found)
    for begin in range(0, len(found), RANGES):
        session.write(b"* VANISHED (EARLIER) %b\r\n" % _imap.uid_set(found[begin : begin + RANGES]))
        await _flushed(session)


def _agreed(view: View, resync: Resync | None) -> int:
    """The highest uid that has the number in the view that the client knew: up to it, nothing was expunged."""
    if resync is None or resync.seqs is None or resync.uids is None:
        return 0
    if _length(resync.seqs) > KNOWN_PAIRS:
        return 0  # costs no more than an answer that could be shorter
    agreed = 0
    for seq, uid in zip(_numbers(resync.seqs), _numbers(resync.uids), strict=True):
        if view.uids.uid_of(seq) == uid > agreed:
            agreed = uid
    return agreed


def _numbers(pairs: array[int]) -> Iterator[int]:
    for n in range(0, len(pairs), 2):
        yield from range(min(pairs[n : n + 2]), max(pairs[n : n + 2]) + 1)


def _from(ranges: array[int], agreed: int) -> array[int]:
    """Merged ranges without what is at or below `agreed`."""
    out = array("I")
    for n in range(0, len(ranges), 2):
        if ranges[n + 1] > agreed:
            out.extend((max(ranges[n], agreed + 1), ranges[n + 1]))
    return out


async def _pause(session: Session) -> None:
    await session.wire.pause()
    if session.state == State.LOGOUT:
        raise SessionEnded


async def _flushed(session: Session) -> None:
    await session.wire.flush()
    if session.state == State.LOGOUT:
        raise SessionEnded
