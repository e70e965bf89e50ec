"""BURL (RFC 4468): a chunk of a submitted message is read from a mailbox, as if the client had sent it."""

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Final

from fastmta.imap import authorized
from fastmta.imap.url import Source
from fastmta.model.errors import Cold, StorageFailure
from fastmta.model.reply import Reply

if TYPE_CHECKING:
    from fastmta._session import Connection
    from fastmta.imap.seams import Mailboxes
    from fastmta.store.mailboxes import MessageRow

NOT_RESOLVED: Final = Reply(554, "5.6.6", "IMAP URL resolution failed")  # for whatever reason
TOO_LARGE: Final = Reply(552, "5.3.4", "Message size exceeds fixed limit")
_TAKEN: Final = Reply(250, "2.0.0", "Ok")
_PIECE_BYTES: Final = 65_536


def begin(
    keeper: "authorized.Keeper", session: "Connection", url: bytes, now: float, limit: int, *, last: bool
) -> Coroutine[Any, Any, None] | Reply:
    """The work that brings what the URL names, which the session waits for from now on; or the refusal."""
    source = authorized.resolve(keeper, url, session.login, now, submits=True)
    if source is None:
        return NOT_RESOLVED
    if limit and source.length > limit:
        return TOO_LARGE
    refusal = session.begin_chunk(last)
    return _fetch(keeper.mailboxes, session, session.wait(), source) if refusal is None else refusal


async def _fetch(mailboxes: "Mailboxes", session: "Connection", generation: int, source: Source) -> None:
    """Puts the octets into the session's message, which waits for it."""
    reply = _TAKEN
    mailboxes.hold(source.row)
    try:
        offset, end = source.offset, source.offset + source.length
        if source.data is not None:
            session.put_chunk(generation, source.data)
            offset = end
        while offset < end:
            piece = await _read(mailboxes, source.row, offset, min(_PIECE_BYTES, end - offset))
            if not piece:
                reply = NOT_RESOLVED
                break
            offset += len(piece)
            if not session.put_chunk(generation, piece):
                break
            await asyncio.sleep(0)
            drained = asyncio.Event()
            if session.when_drained(drained.set):
                await drained.wait()
    except StorageFailure:
        reply = Reply(451, "4.3.0", "The message cannot be read")
    finally:
        mailboxes.release(source.row)
    session.resume(generation, lambda: reply)


async def _read(mailboxes: "Mailboxes", row: "MessageRow", offset: int, length: int) -> bytes | None:
    try:
        return mailboxes.read_on(row, offset, length, True)
    except Cold:
        need = mailboxes.need_on(row, offset, length)
        if need is not None:
            await need
        return mailboxes.read_on(row, offset, length)
