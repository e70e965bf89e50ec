"""STORE and UID STORE (RFC 3501 §6.4.6)."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

from fastmta._imap import BadSyntax
from fastmta.imap import fetch_plan
from fastmta.imap.commands.expunge import READ_ONLY
from fastmta.imap.flag_names import change_flags, parse_flags, tell_changes
from fastmta.imap.session import GONE
from fastmta.model.limits import IMAP_CHUNK_BYTES

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session

MODES: Final = {
    b"FLAGS": (0, False),
    b"FLAGS.SILENT": (0, True),
    b"+FLAGS": (1, False),
    b"+FLAGS.SILENT": (1, True),
    b"-FLAGS": (2, False),
    b"-FLAGS.SILENT": (2, True),
}


def store(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    return _store(session, cursor, by_uid=False)


def uid_store(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    return _store(session, cursor, by_uid=True)


def _store(session: Session, cursor: Cursor, *, by_uid: bool) -> Answer:
    cursor.sp()
    pairs = cursor.sequence_set()
    cursor.sp()
    item = cursor.raw_atom().upper()
    if item not in MODES:
        raise BadSyntax("FLAGS, +FLAGS or -FLAGS expected")
    mode, silent = MODES[item]
    cursor.sp()
    names = cursor.flag_list() if cursor.at(0x28) else _bare_flags(cursor)
    cursor.end()
    flags, keywords = parse_flags(names)
    view = session.selected
    chosen = view.uids.by_uids(pairs) if by_uid else view.uids.by_seqs(pairs)
    if chosen is None:
        raise BadSyntax("Message number out of range")
    if view.read_only:
        return READ_ONLY
    seqs, uids = chosen
    done = b"OK UID STORE completed" if by_uid else b"OK STORE completed"
    if not uids:
        return done
    return _run(session, seqs, uids, mode, flags, keywords, silent, by_uid, done)


def _bare_flags(cursor: Cursor) -> list[bytes]:
    """Flags without parentheses, as the grammar has it for STORE alone."""
    names = [cursor.flag()]
    while cursor.try_sp():
        names.append(cursor.flag())
    return names


async def _run(
    session: Session,
    seqs: array[int],
    uids: array[int],
    mode: int,
    flags: int,
    keywords: bytes,
    silent: bool,
    by_uid: bool,
    done: bytes,
) -> bytes:
    """Others' flags are told after the change, never before: what a client has asked for must not seem undone."""
    view = session.selected
    await change_flags(session, view, uids, mode, flags, keywords)
    if session.view is not view:
        return b""
    if keywords and mode != 2:
        view.learn_keywords(set(keywords.split()), session.write)
    if not silent:
        await tell_changes(session, view, uids)
        lost = 0 if by_uid else view.lost(uids)
        if lost:  # RFC 2180 §4.2.2: nothing done is no success; what is left is done and told
            done = b"OK [EXPUNGEISSUED] STORE completed" if lost < len(uids) else GONE
        items = fetch_plan.FLAGS | (fetch_plan.UID if by_uid else 0)
        for begin, end, recent_from in view.recent_segments(uids):
            position = 0
            while position < end - begin:
                data, position = session.mailboxes.fetch(
                    view.mailbox_id,
                    seqs[begin:end],
                    uids[begin:end],
                    items,
                    position,
                    IMAP_CHUNK_BYTES,
                    recent_from=recent_from,
                )
                session.write(data)
                if session.wire.written() >= IMAP_CHUNK_BYTES:
                    await session.wire.flush()
                    if session.view is not view:
                        return b""
                    await tell_changes(session, view)
    return done
