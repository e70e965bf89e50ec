"""The UPDATE state (RFC 1939 §6): what QUIT makes of a session's deletions, and of what it has read."""

from collections.abc import Awaitable, Callable
from typing import Final

from fastmta.model.errors import FastMTAError
from fastmta.model.flags import SEEN
from fastmta.pop3.seams import Mailboxes
from fastmta.pop3.session import Maildrop
from fastmta.runtime.log import Log

_ADD_FLAGS: Final = 1  # Mailboxes.set_flags' mode


async def update(
    mailboxes: Mailboxes, drop: Maildrop, pause: Callable[[], Awaitable[None]], log: Log, session_id: str
) -> tuple[bytes, int]:
    """The reply to QUIT, and how many messages were deleted: removed, or given the maildrop's keyword."""
    reply, deleted = b"+OK Bye\r\n", 0
    try:
        for uids in drop.deleted_uids():
            if drop.deleted_keyword:
                await mailboxes.set_flags(drop.mailbox_id, uids, _ADD_FLAGS, 0, drop.deleted_keyword)
            else:
                await mailboxes.expunge(drop.mailbox_id, uids, only_deleted=False)
            deleted += len(uids)
            await pause()
    except FastMTAError as error:
        log.exception("pop3.update_failed", error, session=session_id)
        reply = b"-ERR [SYS/TEMP] Some deleted messages were not removed\r\n"
    try:
        for uids in drop.seen_uids():
            await mailboxes.set_flags(drop.mailbox_id, uids, _ADD_FLAGS, SEEN, b"")
            await pause()
    except FastMTAError as error:  # no matter of POP3's: what was read has been read, on a full disk too
        log.exception("pop3.flags_failed", error, session=session_id)
    return reply, deleted
