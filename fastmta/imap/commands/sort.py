"""SORT and UID SORT (RFC 5256, RFC 5957) with RETURN (ESORT, RFC 5267)."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from fastmta import _imap
from fastmta.imap import order, relevancy, search_returns
from fastmta.imap.commands import context
from fastmta.imap.commands.search import BAD_CHARSET, esearch_head, parser_for, write_pieces
from fastmta.imap.search import Search
from fastmta.imap.search_keys import BadCharset
from fastmta.imap.search_returns import SLICE, Returns
from fastmta.imap.session import Feature
from fastmta.model.limits import IMAP_SORT_MESSAGES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fastmta._imap import Cursor
    from fastmta.imap.order import SortKey
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session

TOO_MANY = b"NO [LIMIT] Too many messages to be sorted"


def sort(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    return _sort(session, tag, cursor, by_uid=False)


def uid_sort(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    return _sort(session, tag, cursor, by_uid=True)


def _sort(session: Session, tag: bytes, cursor: Cursor, *, by_uid: bool) -> Answer:
    cursor.sp()
    returns: Returns | None = None
    if not cursor.at(0x28):
        if cursor.atom() != b"RETURN":
            raise _imap.BadSyntax("Sort keys expected")
        cursor.sp()
        returns = search_returns.parse(cursor)
        cursor.sp()
    keys = order.parse_keys(cursor)
    parser = parser_for(session, cursor)
    try:
        key = parser.parse_with_charset()
    except BadCharset:
        if returns is not None and returns.saves:
            session.selected.saved = array("I")
        return BAD_CHARSET
    ranks = any(each.name == order.RELEVANCY for each in keys)
    if (ranks or (returns is not None and returns.ranks)) and parser.fuzzy is None:
        raise _imap.BadSyntax("RELEVANCY is of FUZZY keys")  # RFC 6203 §4, §5
    search = Search(session, session.selected, key, with_modseq=parser.asks_modseq)
    if parser.asks_modseq:
        session.enable(Feature.CONDSTORE)
    return _run(session, tag, search, keys, returns, by_uid, parser.fuzzy or [])


async def _run(
    session: Session,
    tag: bytes,
    search: Search,
    keys: Sequence[SortKey],
    returns: Returns | None,
    by_uid: bool,
    words: list[str],
) -> bytes:
    view = session.selected
    done = b"OK UID SORT completed" if by_uid else b"OK SORT completed"
    if not by_uid:
        await search.cap_modseqs()
    uids = await search.run(by_uid=True)
    if len(uids) > IMAP_SORT_MESSAGES:
        return TOO_MANY
    ranks = any(key.name == order.RELEVANCY for key in keys) or (returns is not None and returns.ranks)
    scores = await relevancy.scores(session, view, uids, words) if ranks else []
    places = await order.sorted_places(session, view, uids, keys, scores)
    numbers = uids if by_uid else view.uids.by_uids(_imap.uid_pairs(uids))[0]
    numbers = await order.at_places(session, numbers, places)
    modseq = search.highest_modseq
    if returns is None:
        session.write(b"* SORT")
        pieces = (_imap.numbers_line(numbers[at : at + SLICE]) for at in range(0, len(numbers), SLICE))
        if not await write_pieces(session, pieces):
            return b""
        session.write(b" (MODSEQ %d)\r\n" % modseq if modseq else b"\r\n")
        return done
    if returns.saves or (modseq and returns.few):
        picked = array("I", sorted(returns.picked(await order.at_places(session, uids, places))))
        if returns.saves:
            view.saved = _imap.uid_pairs(picked)
        if modseq:
            modseq = min(search.modseq_cap, max(session.mailboxes.modseqs(view.mailbox_id, picked), default=0))
    if not returns.silent:
        session.write(esearch_head(tag, by_uid))
        told = returns.picked(array("I", map(scores.__getitem__, places))) if returns.ranks else ()
        if not await write_pieces(session, returns.lines(numbers, modseq, told)):
            return b""
        session.write(b"\r\n")
    if returns.updates and ranks:
        context.no_context(session, tag)  # what it scores by is of all results together
    elif returns.updates:
        order_of = context.Sorted(keys, await order.at_places(session, uids, places))
        context.keep(session, view, tag, search.key, uids, None, order_of, by_uid=by_uid)
    return done
