"""SEARCH and UID SEARCH (RFC 3501 §6.4.4)."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Final

from fastmta import _imap, _mime
from fastmta.imap.search import Search
from fastmta.imap.search_keys import BadCharset, Key, Parser
from fastmta.imap.session import State

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.seams import Answer
    from fastmta.imap.session import Session

BAD_CHARSET: Final = b"NO [BADCHARSET (%b)] Unknown charset" % " ".join(_mime.CHARSETS).encode("ascii")


def search(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    return _search(session, cursor, by_uid=False)


def uid_search(session: Session, tag: bytes, cursor: Cursor) -> Answer:
    return _search(session, cursor, by_uid=True)


def _search(session: Session, cursor: Cursor, *, by_uid: bool) -> Answer:
    try:
        key = Parser(cursor).parse()
    except BadCharset:
        return BAD_CHARSET
    run = Search(session, session.selected)
    mask = run.mask(key)
    if mask is not None:
        return _answer(session, run, mask, by_uid)
    return _look(session, run, key, by_uid)


def _answer(session: Session, run: Search, mask: bytes, by_uid: bool) -> bytes:
    numbers: array[int] = _imap.mask_select(mask, run.uids if by_uid else run.seqs)
    session.write(b"* SEARCH%b\r\n" % _imap.numbers_line(numbers))
    return b"OK UID SEARCH completed" if by_uid else b"OK SEARCH completed"


async def _look(session: Session, run: Search, key: Key, by_uid: bool) -> bytes:
    """Reads what the records can't tell, message by message."""
    mask, left = run.candidates(key)
    mask = await run.sieve(mask, left, session.wire.flush)
    found = bytearray(len(mask))
    at = mask.find(1)
    while at >= 0:
        if all(run.matches(part, at) for part in left):
            found[at] = 1
        if run.turn_is_over():
            await session.wire.flush()
            if session.state == State.LOGOUT:
                return b""
        at = mask.find(1, at + 1)
    return _answer(session, run, bytes(found), by_uid)
