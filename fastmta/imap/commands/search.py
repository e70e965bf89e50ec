"""SEARCH and UID SEARCH (RFC 3501 §6.4.4), with RETURN (RFC 4731, RFC 5182, RFC 9394)."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

from fastmta import _imap, _mime
from fastmta.imap import relevancy
from fastmta.imap.commands import context
from fastmta.imap.search import Search
from fastmta.imap.search_keys import BadCharset, Parser
from fastmta.imap.search_returns import Returns
from fastmta.imap.session import Feature, State
from fastmta.model.limits import IMAP_CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session
    from fastmta.imap.view import View

NUMBERS: Final = 16_384  # of one piece of a response
BAD_CHARSET: Final = b"NO [BADCHARSET (%b)] Unknown charset" % " ".join(_mime.CHARSETS).encode("ascii")


def search(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    return _search(session, tag, cursor, by_uid=False)


def uid_search(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    return _search(session, tag, cursor, by_uid=True)


def parser_for(session: Session, cursor: Cursor, *, by_uid: bool = False) -> Parser:
    """What reads the keys of a SEARCH, SORT or THREAD of this session; `by_uid`: where messages have no other name."""
    return Parser(
        cursor,
        array("I") if by_uid else session.selected.saved,
        int(session.services.clock.now()),
        names_charset=not session.enabled & Feature.UTF8,
        numbers=not by_uid and not session.enabled & Feature.UIDONLY,
    )


def _search(session: Session, tag: bytes, cursor: Cursor, *, by_uid: bool) -> Answer:
    view = session.selected
    parser = parser_for(session, cursor)
    try:
        key = parser.parse()
    except BadCharset:
        if parser.returns is not None and parser.returns.saves:
            view.saved = array("I")  # RFC 5182 §2.1: a SEARCH that fails empties it
        return BAD_CHARSET
    returns = parser.returns
    if returns is not None and returns.updates:
        context.require_new_tag(view, tag)
    if returns is not None and returns.ranks and parser.fuzzy is None:
        raise _imap.BadSyntax("RELEVANCY is of FUZZY keys")  # RFC 6203 §4
    if returns is None and session.enabled & Feature.REV2:
        returns = Returns(frozenset((b"ALL",)))  # RFC 9051 §6.4.4
    search = Search(session, view, key, with_modseq=parser.asks_modseq)
    if parser.asks_modseq:
        session.enable(Feature.CONDSTORE)
    if parser.asks_modseq and not by_uid:
        return _after_changes(session, tag, search, returns, parser.fuzzy)
    if returns is not None:
        return _run_extended(session, tag, search, view, returns, by_uid, parser.fuzzy)
    if search.is_short:
        numbers = search.now(by_uid=by_uid)
        session.write(b"* SEARCH%b%b\r\n" % (_imap.numbers_line(numbers), _modseq(search)))
        return _done(by_uid)
    return _run(session, search, by_uid)


async def _after_changes(
    session: Session, tag: bytes, search: Search, returns: Returns | None, words: list[str] | None
) -> bytes:
    view = session.selected
    await search.cap_modseqs()
    if returns is not None:
        return await _run_extended(session, tag, search, view, returns, False, words)
    return await _run(session, search, by_uid=False)


def _modseq(search: Search) -> bytes:
    """RFC 7162 §3.1.5: where MODSEQ was asked for and something was found."""
    return b" (MODSEQ %d)" % search.highest_modseq if search.highest_modseq else b""


def _done(by_uid: bool) -> bytes:
    return b"OK UID SEARCH completed" if by_uid else b"OK SEARCH completed"


async def _run(session: Session, search: Search, by_uid: bool) -> bytes:
    numbers = await search.run(by_uid=by_uid)
    session.write(b"* SEARCH")
    pieces = (_imap.numbers_line(numbers[at : at + NUMBERS]) for at in range(0, len(numbers), NUMBERS))
    if not await write_pieces(session, pieces):
        return b""
    session.write(b"%b\r\n" % _modseq(search))
    return _done(by_uid)


async def write_pieces(session: Session, pieces: Iterator[bytes]) -> bool:
    """A long response, no faster than the peer takes it; False where the session has ended."""
    for piece in pieces:
        session.write(piece)
        if session.wire.written() >= IMAP_CHUNK_BYTES:
            await session.wire.flush()
        elif session.wire.turn_is_over():
            await session.wire.pause()
        if session.state == State.LOGOUT:
            return False
    return True


async def _run_extended(
    session: Session,
    tag: bytes,
    search: Search,
    view: View,
    returns: Returns,
    by_uid: bool,
    words: list[str] | None,
) -> bytes:
    uids = search.now(by_uid=True) if search.is_short else await search.run(by_uid=True)
    scores = await relevancy.scores(session, view, returns.picked(uids), words or []) if returns.ranks else ()
    modseq, cap = search.highest_modseq, search.modseq_cap
    if not await write_esearch(session, tag, view, returns, uids, modseq, by_uid, cap, scores):
        return b""
    if returns.updates:
        context.keep(session, view, tag, search.key, uids, returns.fetch, by_uid=by_uid)
    return _done(by_uid)


async def write_esearch(
    session: Session,
    tag: bytes,
    view: View,
    returns: Returns,
    uids: array[int],
    modseq: int,
    by_uid: bool,
    modseq_cap: int = 2**64 - 1,
    scores: Sequence[int] = (),
) -> bool:
    """The ESEARCH response for uids in ascending order; False where the session has ended."""
    if returns.few or returns.saves:
        result = returns.picked(uids)
        if returns.saves:
            view.saved = _imap.uid_pairs(result)
        if modseq:  # RFC 4731 §3.2: of what is returned
            modseq = min(modseq_cap, max(session.mailboxes.modseqs(view.mailbox_id, result), default=0))
    if returns.silent:
        return True
    numbers = uids if by_uid else view.uids.by_uids(_imap.uid_pairs(uids))[0]
    session.write(esearch_head(tag, by_uid))
    if not await write_pieces(session, returns.lines(numbers, modseq, scores)):
        return False
    session.write(b"\r\n")
    return True


def esearch_head(tag: bytes, by_uid: bool) -> bytes:
    return b"* ESEARCH (TAG %b)%b" % (_imap.quoted(tag), b" UID" if by_uid else b"")
