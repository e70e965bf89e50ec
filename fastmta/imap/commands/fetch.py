"""FETCH and UID FETCH (RFC 3501 §6.4.5, §6.4.8).

Items that were computed at arrival are written by a compiled loop (fetch_lines.py), in chunks, with other sessions
served between two. Bodies are read in pieces of at most 256 KB and handed over before more is read. A message that
vanished meanwhile gives no response or NIL; once a literal is announced it is filled, or the connection ends.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

import msgspec

from fastmta import _imap
from fastmta._imap import BadSyntax
from fastmta.imap import fetch_plan, message_set, resync
from fastmta.imap.fetch_lines import NO_CAP, fetch_lines
from fastmta.imap.fetch_plan import Plan
from fastmta.imap.fetch_sections import write_message
from fastmta.imap.flag_names import change_flags, tell_changes
from fastmta.imap.message_set import Chosen
from fastmta.imap.partial_range import window
from fastmta.imap.session import Feature, State
from fastmta.model import rights
from fastmta.model.errors import Cold, StorageFailure, StoreDamaged
from fastmta.model.flags import SEEN
from fastmta.model.limits import COLD_ROUNDS, IMAP_CHUNK_BYTES, IMAP_HEADER_PIECE_BYTES, IMAP_WINDOW

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session
    from fastmta.imap.view import View

UNKNOWN_CTE: Final = b"NO [UNKNOWN-CTE] Some parts have an encoding that is not known"
SLICE: Final = 64  # messages whose bodies are sent before the next are marked as seen


def fetch(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.sp()
    named = message_set.parse(session, cursor, by_uid=False)
    cursor.sp()
    plan = fetch_plan.parse(cursor, by_uid=False)
    session.named = chosen = named.choose(session.selected)
    _enable(session, plan)
    if plan.changed_since >= 0:
        return _fetch_changed(session, plan, named.pairs, chosen, by_uid=False)
    return _fetch(session, plan, chosen, by_uid=False)


def uid_fetch(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    cursor.sp()
    named = message_set.parse(session, cursor, by_uid=True)
    cursor.sp()
    plan = fetch_plan.parse(cursor, by_uid=True, uid_only=session.selected.uid_only)
    if plan.vanished and not session.enabled & Feature.QRESYNC:
        raise BadSyntax("ENABLE QRESYNC first")  # RFC 7162 §3.2.6
    _enable(session, plan)
    chosen = named.choose(session.selected)
    if plan.changed_since >= 0:
        return _fetch_changed(session, plan, named.pairs, chosen, by_uid=True)
    if plan.partial is not None:
        chosen = chosen.part(*window(*plan.partial, len(chosen)))
    return _fetch(session, plan, chosen, by_uid=True)


async def tell_new(session: Session, plan: Plan, chosen: Chosen) -> None:
    """FETCH responses that no FETCH asked for, with the items of a plan that sets no flag (RFC 5465 §5.2)."""
    if session.selected.uid_only:
        plan = msgspec.structs.replace(plan, items=plan.items & ~fetch_plan.UID | fetch_plan.UIDONLY)
    answer = _fetch(session, plan, chosen, by_uid=True)
    if answer is not None and not isinstance(answer, bytes):
        await answer


def _enable(session: Session, plan: Plan) -> None:
    if plan.items & fetch_plan.MODSEQ:
        session.enable(Feature.CONDSTORE)


async def _fetch_changed(session: Session, plan: Plan, pairs: array[int], chosen: Chosen, *, by_uid: bool) -> bytes:
    """Of the messages those that have changed; what has vanished comes before them (RFC 7162 §3.2.6)."""
    view = session.selected
    if plan.vanished:
        # "*" is the highest uid there ever was: the last message may be among what has vanished.
        await resync.tell_vanished(session, view, plan.changed_since, _imap.merged_ranges(pairs, 0xFFFFFFFF), None)
    uids = chosen.all()[1]
    mask = await resync.changed_among(session, view, plan.changed_since, uids)
    chosen = Chosen.of_uids(view, _imap.mask_select(mask, uids))
    if plan.partial is not None:
        chosen = chosen.part(*window(*plan.partial, len(chosen)))
    answer = _fetch(session, plan, chosen, by_uid=by_uid)
    if isinstance(answer, bytes) or answer is None:
        return answer or b""
    return await answer


def _fetch(session: Session, plan: Plan, chosen: Chosen, *, by_uid: bool) -> Answer:
    done = b"OK UID FETCH completed" if by_uid else b"OK FETCH completed"
    if not chosen:
        return done
    view = session.selected
    marks_seen = plan.marks_seen and not view.read_only and bool(session.rights & rights.SEEN)
    # Flags are told with keywords that FLAGS has named: what others changed is told first, without an EXPUNGE.
    # Modseqs need it too, where numbers must stay (View.modseq_cap).
    tells_flags = marks_seen or plan.items & fetch_plan.FLAGS or (plan.items & fetch_plan.MODSEQ and not plan.by_uid)
    before = view.sync(session.mailboxes, session.write, expunge=False) if tells_flags else None
    fields = None if marks_seen else plan.fields()
    if before is not None or marks_seen or (plan.sections and not plan.whole and fields is None):
        return _fetch_later(session, view, plan, chosen, done, before, marks_seen)
    # The first chunk is written at once; mostly it is the only one.
    items = plan.items | (fetch_plan.WHOLE if plan.whole else 0)
    start = 0
    seqs, uids = chosen.window(0)
    segments = view.recent_segments(uids)
    if len(segments) == 1:
        try:
            data, start = fetch_lines(
                session.mailboxes,
                view.mailbox_id,
                seqs,
                uids,
                items,
                0,
                _chunk_bytes(items),
                recent_from=segments[0][2],
                sections=fields,
                modseq_cap=_cap(view, plan),
                hot=True,
                name=view.namer(session.write),
            )
        except (StoreDamaged, Cold):
            return _rest(session, view, plan, chosen, done, 0)
        session.write(data)
        if start >= len(chosen):
            return done
    return _rest(session, view, plan, chosen, done, start)


def _needed(items: int, fields: object) -> int:
    """How many octets of a message are wanted, about."""
    return IMAP_CHUNK_BYTES if items & fetch_plan.WHOLE else IMAP_HEADER_PIECE_BYTES if fields else 0


def _cap(view: View, plan: Plan) -> int:
    return NO_CAP if plan.by_uid else view.modseq_cap


def _chunk_bytes(items: int) -> int:
    """A whole message may come on top of a chunk that is nearly full."""
    return IMAP_CHUNK_BYTES // 2 if items & fetch_plan.WHOLE else IMAP_CHUNK_BYTES


def _room(session: Session, items: int) -> int:
    """What is left of a chunk. Less than a message has: it is written all the same, or streamed where it is whole."""
    return max(1, _chunk_bytes(items) - (0 if items & fetch_plan.WHOLE else session.wire.written()))


async def _rest(session: Session, view: View, plan: Plan, chosen: Chosen, done: bytes, start: int) -> bytes:
    """`write_lines` behind the first chunk."""
    if start:
        await session.wire.flush()
    await write_lines(session, view, plan, chosen, start)
    return b"" if session.state == State.LOGOUT else done


async def write_lines(session: Session, view: View, plan: Plan, chosen: Chosen, start: int = 0, more: int = 0) -> None:
    """What the compiled loop writes, in chunks, each after the one before it has been handed over; `more` items too."""
    damage: StoreDamaged | None = None
    for at in range(start, len(chosen), IMAP_WINDOW):
        try:
            await _write_window(session, view, plan, *chosen.window(at), more, paused=at > 0)
        except StoreDamaged as error:  # the others are told; the command ends with NO
            damage = error
        if session.state == State.LOGOUT:
            return
    if damage is not None:
        raise damage


async def _write_window(
    session: Session, view: View, plan: Plan, seqs: array[int], uids: array[int], more: int, *, paused: bool
) -> None:
    """Some messages of `write_lines`; `paused`: others have worked since the last."""
    items = plan.items | more | (fetch_plan.WHOLE if plan.whole else 0)
    fields = plan.fields()
    cold_rounds = 0  # of the message that is next
    damage: StoreDamaged | None = None
    for begin, end, recent_from in view.recent_segments(uids):
        piece_seqs, piece_uids = seqs[begin:end], uids[begin:end]
        position = 0
        while position < len(piece_uids):
            if session.state == State.LOGOUT:
                return
            if paused and items & (fetch_plan.FLAGS | fetch_plan.MODSEQ):
                await tell_changes(session, view)
            paused = False
            last = position
            try:
                data, position = fetch_lines(
                    session.mailboxes,
                    view.mailbox_id,
                    piece_seqs,
                    piece_uids,
                    items,
                    position,
                    _room(session, items),
                    recent_from=recent_from,
                    sections=fields,
                    modseq_cap=_cap(view, plan),
                    hot=cold_rounds < COLD_ROUNDS,
                    name=view.namer(session.write),
                )
                cold_rounds = 0
                session.write(data)
                if position == last:
                    # Too large for the loop: it is streamed.
                    await _stream(session, view, plan, items, piece_seqs[position], piece_uids[position])
                    position += 1
                    paused = True
            except StoreDamaged as error:
                damage = error
                position += 1
            except Cold as cold:
                cold_rounds += 1
                await session.mailboxes.bring(cold)
                waiting = session.mailboxes.need(view.mailbox_id, piece_uids[position], 0, _needed(items, fields))
                if waiting is not None:
                    await waiting
                paused = True
                continue
            if session.wire.written() >= _chunk_bytes(items):
                await session.wire.flush()
                paused = True
            elif session.wire.turn_is_over():
                await session.wire.pause()
                paused = True
    if damage is not None:
        raise damage


async def _stream(session: Session, view: View, plan: Plan, items: int, seq: int, uid: int) -> None:
    rows = session.mailboxes.rows(view.mailbox_id, array("I", (uid,)))
    if rows:
        await write_message(session, view, plan, items & ~fetch_plan.WHOLE, seq, uid, rows[0])


async def _fetch_later(
    session: Session,
    view: View,
    plan: Plan,
    chosen: Chosen,
    done: bytes,
    before: Awaitable[None] | None,
    marks_seen: bool,
) -> bytes:
    if before is not None:
        await before
    if not marks_seen and (not plan.sections or plan.whole or plan.fields() is not None):
        return await _rest(session, view, plan, chosen, done, 0)
    for begin in range(0, len(chosen), SLICE):
        if not await _slice(session, view, plan, chosen.part(begin, begin + SLICE), marks_seen):
            done = UNKNOWN_CTE
        if session.state == State.LOGOUT:
            return b""
    return done


async def _slice(session: Session, view: View, plan: Plan, chosen: Chosen, marks_seen: bool) -> bool:
    """Some messages with their sections; they are marked as seen before, in one unit. False where some are unknown."""
    known = True
    seqs, uids = chosen.all()
    rows = {row.uid: row for row in session.mailboxes.rows(view.mailbox_id, uids)}
    unseen = array("I")
    if marks_seen:
        unseen.extend(uid for uid, row in rows.items() if not row.flags & SEEN)
        if unseen:
            unseen = await _mark_seen(session, view, unseen)
    if plan.whole:
        await write_lines(session, view, plan, chosen, more=_told(view) if unseen else 0)
        return known
    newly_seen = set(unseen)
    paused = True
    for seq, uid in zip(seqs, uids, strict=True):
        row = rows.get(uid)
        if row is None:
            continue
        items = plan.items | (_told(view) if uid in newly_seen else 0)
        if paused and items & (fetch_plan.FLAGS | fetch_plan.MODSEQ):
            await tell_changes(session, view)
        paused = row.size > IMAP_CHUNK_BYTES  # it may be streamed
        known &= await write_message(session, view, plan, items, seq, uid, row)
        if session.wire.written() >= IMAP_CHUNK_BYTES:
            await session.wire.flush()
            paused = True
        elif session.wire.turn_is_over():
            await session.wire.pause()
            paused = True
        if session.state == State.LOGOUT:
            break
    return known


def _told(view: View) -> int:
    """What a message is told with that has become \\Seen (RFC 7162 §3.1.2)."""
    uid = fetch_plan.UID if view.with_uid and not view.uid_only else 0
    return fetch_plan.FLAGS | uid | (fetch_plan.MODSEQ if view.with_modseq else 0)


async def _mark_seen(session: Session, view: View, unseen: array[int]) -> array[int]:
    """Those that are \\Seen now; none where the store takes no writes: the messages can be read all the same."""
    try:
        await change_flags(session, view, unseen, 1, SEEN, b"")
    except StorageFailure as error:
        session.storage_failed(error)
        return array("I")
    if session.state != State.LOGOUT:
        await tell_changes(session, view, Chosen.of_uids(view, unseen))
    return unseen
