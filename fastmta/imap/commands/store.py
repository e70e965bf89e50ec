"""STORE and UID STORE (RFC 3501 §6.4.6), conditional ones too (RFC 7162 §3.1.3)."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

import msgspec

from fastmta import _imap
from fastmta._imap import BadSyntax
from fastmta.imap import fetch_plan, message_set
from fastmta.imap.commands.expunge import READ_ONLY
from fastmta.imap.commands.fetch import write_lines
from fastmta.imap.flag_names import change_flags, parse_flags, tell_changes
from fastmta.imap.message_set import Chosen
from fastmta.imap.session import GONE, Feature
from fastmta.model.flags import ALL_KEYWORDS

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session
    from fastmta.imap.view import View

WITHOUT: Final = 2  # of mask_combine
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


class Change(msgspec.Struct, frozen=True):
    """What a STORE asks for. `unchanged_since`: -1 where it is unconditional."""

    mode: int
    silent: bool
    flags: int
    keywords: bytes
    unchanged_since: int


def _store(session: Session, cursor: Cursor, *, by_uid: bool) -> Answer:
    cursor.sp()
    named = message_set.parse(session, cursor, by_uid=by_uid)
    cursor.sp()
    unchanged_since = -1
    if cursor.try_open():
        unchanged_since = _modifiers(cursor)
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
    chosen = named.choose(view)
    if unchanged_since >= 0:
        session.enable(Feature.CONDSTORE)
    if view.read_only:
        return READ_ONLY
    if not chosen:
        return b"OK UID STORE completed" if by_uid else b"OK STORE completed"
    return _run(session, chosen, Change(mode, silent, flags, keywords, unchanged_since), by_uid)


def _modifiers(cursor: Cursor) -> int:
    """UNCHANGEDSINCE (RFC 7162 §3.1.3), the only one there is."""
    if cursor.atom() != b"UNCHANGEDSINCE":
        raise BadSyntax("Unknown STORE modifier")
    cursor.sp()
    modseq = cursor.modseq()
    cursor.close()
    return modseq


def _bare_flags(cursor: Cursor) -> list[bytes]:
    """Flags without parentheses, as the grammar has it for STORE alone."""
    names = [cursor.flag()]
    while cursor.try_sp():
        names.append(cursor.flag())
    return names


async def _run(session: Session, chosen: Chosen, change: Change, by_uid: bool) -> bytes:
    """Others' flags are told after the change, never before: what a client has asked for must not seem undone."""
    view = session.selected
    uids = chosen.all()[1]
    done = b"OK UID STORE completed" if by_uid else b"OK STORE completed"
    modified = await change_flags(
        session, view, uids, change.mode, change.flags, change.keywords, change.unchanged_since
    )
    if session.view is not view:
        return b""
    if change.keywords and change.mode != 2 and not view.kept & ALL_KEYWORDS:
        view.learn_keywords(set(change.keywords.split()), session.write)
    failed = b""
    if modified:
        mask = _imap.mask_members(uids, array("I", sorted(modified)))
        failed = _imap.uid_set(_imap.mask_select(mask, uids if by_uid else chosen.all()[0]))
        chosen = Chosen.of_uids(view, _imap.mask_select(_imap.mask_combine(b"\1" * len(uids), mask, WITHOUT), uids))
    if not change.silent:
        await tell_changes(session, view, chosen)
        lost = 0 if by_uid else view.lost(chosen)
        if lost:  # RFC 2180 §4.2.2: nothing done is no success; what is left is done and told
            done = b"OK [EXPUNGEISSUED] STORE completed" if lost < len(chosen) else GONE
        if not await _tell(session, view, chosen, fetch_plan.FLAGS, by_uid):
            return b""
    elif view.with_modseq:
        if not by_uid:
            await tell_changes(session, view)  # so that it is known which modseqs may be told
        if not await _tell(session, view, chosen, 0, by_uid):
            return b""
    return b"OK [MODIFIED %b] Conditional STORE: the rest is done" % failed if failed else done


async def _tell(session: Session, view: View, chosen: Chosen, items: int, by_uid: bool) -> bool:
    """What the messages are now; with CONDSTORE their modseqs, even where STORE was .SILENT (RFC 7162 §3.1.3). False
    where the session has ended or left the mailbox.
    """
    items |= fetch_plan.UIDONLY if view.uid_only else fetch_plan.UID if by_uid or view.with_uid else 0
    items |= fetch_plan.MODSEQ if view.with_modseq else 0
    await write_lines(session, view, fetch_plan.Plan(items, by_uid=by_uid), chosen)
    return session.view is view
