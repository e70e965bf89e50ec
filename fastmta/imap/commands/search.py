"""SEARCH and UID SEARCH (RFC 3501 §6.4.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastmta import _imap, _mime
from fastmta.imap.search import Search
from fastmta.imap.search_keys import BadCharset, Parser
from fastmta.imap.session import Feature, State
from fastmta.model.limits import IMAP_CHUNK_BYTES

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session

NUMBERS: Final = 16_384  # of one piece of a response
BAD_CHARSET: Final = b"NO [BADCHARSET (%b)] Unknown charset" % " ".join(_mime.CHARSETS).encode("ascii")


def search(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    return _search(session, cursor, by_uid=False)


def uid_search(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    return _search(session, cursor, by_uid=True)


def _search(session: Session, cursor: Cursor, *, by_uid: bool) -> Answer:
    parser = Parser(cursor)
    try:
        key = parser.parse()
    except BadCharset:
        return BAD_CHARSET
    search = Search(session, session.selected, key, with_modseq=parser.asks_modseq)
    if parser.asks_modseq:
        session.enable(Feature.CONDSTORE)
    if search.is_short:
        numbers = search.now(by_uid=by_uid)
        session.write(b"* SEARCH%b%b\r\n" % (_imap.numbers_line(numbers), _modseq(search)))
        return _done(by_uid)
    return _run(session, search, by_uid)


def _modseq(search: Search) -> bytes:
    """RFC 7162 §3.1.5: where MODSEQ was asked for and something was found."""
    return b" (MODSEQ %d)" % search.highest_modseq if search.highest_modseq else b""


def _done(by_uid: bool) -> bytes:
    return b"OK UID SEARCH completed" if by_uid else b"OK SEARCH completed"


async def _run(session: Session, search: Search, by_uid: bool) -> bytes:
    numbers = await search.run(by_uid=by_uid)
    session.write(b"* SEARCH")
    for begin in range(0, len(numbers), NUMBERS):
        session.write(_imap.numbers_line(numbers[begin : begin + NUMBERS]))
        if session.wire.written() >= IMAP_CHUNK_BYTES:
            await session.wire.flush()
            if session.state == State.LOGOUT:
                return b""
    session.write(b"%b\r\n" % _modseq(search))
    return _done(by_uid)
