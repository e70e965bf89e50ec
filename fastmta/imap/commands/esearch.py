"""ESEARCH (RFC 7377): one search over several mailboxes, a mailbox at a time, answered by uids."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

import msgspec

from fastmta import _imap
from fastmta._imap import BadSyntax
from fastmta.imap import relevancy
from fastmta.imap.commands.listing import each_mailbox, each_subscription
from fastmta.imap.commands.search import BAD_CHARSET, parser_for, write_pieces
from fastmta.imap.mailbox_name import SEPARATOR
from fastmta.imap.search import Search
from fastmta.imap.search_keys import BadCharset
from fastmta.imap.search_returns import Returns
from fastmta.imap.session import Feature, SessionEnded, State
from fastmta.imap.view import View
from fastmta.model import rights
from fastmta.model.limits import IMAP_LIST_PATTERNS, MAILBOX_PAGE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.search_keys import Key
    from fastmta.imap.session import Session
    from fastmta.store.mailbox_names import Mailbox

_ALONE: Final = frozenset((b"SELECTED", b"SELECTED-DELAYED", b"INBOXES", b"PERSONAL", b"SUBSCRIBED"))
_NAMED: Final = frozenset((b"SUBTREE", b"SUBTREE-ONE", b"MAILBOXES"))
_SELECTED: Final = frozenset((b"SELECTED", b"SELECTED-DELAYED"))


class Source(msgspec.Struct, frozen=True):
    """Some of the mailboxes that are searched (RFC 6237 §2.4): by what kind, and the names where it has some."""

    kind: bytes
    names: frozenset[str] = frozenset()

    def has(self, name: str, own: bool, subscribed: dict[str, None]) -> bool:
        """Whether a mailbox is meant; the selected one is found otherwise."""
        if self.kind in (b"PERSONAL", b"INBOXES"):  # mail is delivered to INBOX alone
            return own and (self.kind == b"PERSONAL" or name == "INBOX")
        if self.kind == b"SUBSCRIBED":
            return name in subscribed
        if self.kind == b"MAILBOXES" or name in self.names:
            return name in self.names
        if self.kind == b"SUBTREE-ONE":
            return name.rpartition(SEPARATOR)[0] in self.names
        return self.kind == b"SUBTREE" and any(name.startswith(above + SEPARATOR) for above in self.names)


def run(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    sources = [Source(b"SELECTED")]
    if cursor.take_text(b" IN "):
        sources = _sources(session, cursor)
    wants_selected = any(source.kind in _SELECTED for source in sources)
    if wants_selected and session.view is None:
        raise BadSyntax("No mailbox selected")
    parser = parser_for(session, cursor, by_uid=True)
    try:
        key = parser.parse()
    except BadCharset:
        return BAD_CHARSET
    returns = parser.returns or Returns(frozenset((b"ALL",)))
    if returns.updates:
        raise BadSyntax("UPDATE is for the selected mailbox, by SEARCH")  # RFC 7377 §2.1
    if returns.saves:
        raise BadSyntax("SAVE is for the selected mailbox, by SEARCH")
    if returns.ranks and parser.fuzzy is None:
        raise BadSyntax("RELEVANCY is of FUZZY keys")
    if parser.asks_modseq:
        session.enable(Feature.CONDSTORE)
    return _run(session, tag, sources, key, returns, parser.fuzzy or [], with_modseq=parser.asks_modseq)


def _sources(session: Session, cursor: Cursor) -> list[Source]:
    cursor.open()
    out: list[Source] = []
    while not cursor.try_close():
        if out:
            cursor.sp()
        kind = cursor.atom()
        if kind in _ALONE:
            out.append(Source(kind))
        elif kind in _NAMED:
            cursor.sp()
            out.append(Source(kind, frozenset(_names(session, cursor))))
        else:
            raise BadSyntax("Unknown source of mailboxes")
        if len(out) > IMAP_LIST_PATTERNS:
            raise BadSyntax("Too many sources")
    if not out:
        raise BadSyntax("Source of mailboxes expected")
    return out


def _names(session: Session, cursor: Cursor) -> list[str]:
    if not cursor.try_open():
        return [session.name_of(cursor.astring())]
    names = [session.name_of(cursor.astring())]
    while not cursor.try_close():
        cursor.sp()
        names.append(session.name_of(cursor.astring()))
        if len(names) > IMAP_LIST_PATTERNS:
            raise BadSyntax("Too many mailboxes")
    return names


async def _run(
    session: Session,
    tag: bytes,
    sources: list[Source],
    key: Key,
    returns: Returns,
    words: list[str],
    *,
    with_modseq: bool,
) -> bytes:
    async for box in _boxes(session, sources):
        view = await _view_of(session, box)
        search = Search(session, view, key, with_modseq=with_modseq)
        uids = await search.run(by_uid=True)
        if not uids:
            continue  # RFC 7377 §2.2: nothing is said of a mailbox without a match
        scores = await relevancy.scores(session, view, returns.picked(uids), words) if returns.ranks else ()
        name = session.written_name(box.name)
        head = (_imap.quoted(tag), name, box.uid_validity)
        session.write(b"* ESEARCH (TAG %b MAILBOX %b UIDVALIDITY %d) UID" % head)
        if not await write_pieces(session, returns.lines(uids, search.highest_modseq, scores)):
            return b""
        session.write(b"\r\n")
    return b"OK ESEARCH completed"


async def _boxes(session: Session, sources: list[Source]) -> AsyncIterator[Mailbox]:
    """The mailboxes that are meant, each once, in order of their names. SessionEnded, MailboxGone."""
    found: dict[str, Mailbox] = {}
    subscribed: dict[str, None] = {}
    if any(source.kind not in _SELECTED for source in sources):
        for _ in each_mailbox(session, found):
            await _pause(session)
        if any(source.kind == b"SUBSCRIBED" for source in sources):
            for _ in each_subscription(session, subscribed):
                await _pause(session)
    selected = 0
    if session.view is not None and any(source.kind in _SELECTED for source in sources):
        selected = session.view.mailbox_id
        session.require_readable()
        box = session.access.by_id(session.actor, selected)
        if box is not None:
            yield box
    for name, box in found.items():
        own = box.account_id == session.account_id
        if box.id != selected and box.rights & rights.READ and any(each.has(name, own, subscribed) for each in sources):
            fresh = session.access.by_id(session.actor, box.id)
            if fresh is not None and fresh.rights & rights.READ:  # the search of those before it may have taken long
                fresh.name = name
                yield fresh
        await _pause(session)


async def _view_of(session: Session, box: Mailbox) -> View:
    """A mailbox as it is now; the selected one as the session has it. SessionEnded."""
    if session.view is not None and session.view.mailbox_id == box.id:
        return session.view
    view = View(box, read_only=True)
    last = 0
    while last < box.uid_next - 1:
        uids = session.mailboxes.uids(box.id, last, MAILBOX_PAGE)
        if not uids:
            break
        last = uids[-1]
        view.uids.extend(uids[: bisect_left(uids, box.uid_next)])
        await _pause(session)
    return view


async def _pause(session: Session) -> None:
    await session.wire.pause()
    if session.state == State.LOGOUT:
        raise SessionEnded
