"""FETCH responses without an object for each message: rows go from the store to a writer, both compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastmta._imap import FetchWriter
from fastmta.model.errors import Cold
from fastmta.model.limits import COLD_ROUNDS

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Sequence

    from fastmta.imap.seams import Mailboxes

NO_CAP: Final = 2**64 - 1  # no modseq is above it
NEVER_RECENT: Final = 2**32  # no uid is at or above it


def fetch_lines(
    mailboxes: Mailboxes,
    mailbox_id: int,
    seqs: array[int],
    uids: array[int],
    items: int,
    start: int,
    max_bytes: int,
    *,
    recent_from: int = NEVER_RECENT,
    sections: Sequence[tuple[bytes, bytes, bool]] | None = None,
    modseq_cap: int = NO_CAP,
    hot: bool = False,
    name: Callable[[set[bytes]], None] | None = None,
) -> tuple[bytes, int]:
    """Complete `* seq FETCH (...)` lines for uids[start:] until max_bytes, and where to go on. `items` are bits of
    fetch_plan: UID 1, FLAGS 2, INTERNALDATE 4, RFC822.SIZE 8, ENVELOPE 16, BODY 32, BODYSTRUCTURE 64, MODSEQ 128, WHOLE
    256, SAVEDATE 512, EMAILID 1024, THREADID 2048; with UIDONLY 4096 the lines are `* uid UIDFETCH (...)` (RFC 9586);
    with MORE 8192 ` MORE n` follows an ENVELOPE that does not show all that the header has of its text fields (1) or
    address lists (2).
    With WHOLE (BODY[] as a literal) a message larger than max_bytes ends the lines before itself: `read` has it.
    `sections`, at most 4, are fields of the header: (label, names in lower case with a byte of length before each,
    whether all others are meant); a message with a very long header ends the lines too. No MODSEQ above
    `modseq_cap` is told. StoreDamaged where the first message is damaged; a later one ends the lines before itself.
    With `hot` nothing is read from the disk: Cold where the first message is not in memory, and so on. `name` gets the
    lists of keywords that the lines have, before they are given: another worker may just have made a new one.
    """
    wanted = None if sections is None else list(sections)
    writer = FetchWriter(items, max_bytes, recent_from, wanted, modseq_cap)
    following = mailboxes.give_rows(mailbox_id, seqs, uids, start, writer, hot)
    if name is not None and writer.keywords is not None:
        name(writer.keywords)
    return writer.lines, following


async def lines_in_memory(
    mailboxes: Mailboxes,
    mailbox_id: int,
    seqs: array[int],
    uids: array[int],
    items: int,
    start: int,
    max_bytes: int,
    *,
    sections: Sequence[tuple[bytes, bytes, bool]] | None = None,
) -> tuple[bytes, int]:
    """As `fetch_lines`, but what is not in memory is waited for, and the loop goes on meanwhile."""
    for _ in range(COLD_ROUNDS):
        try:
            return fetch_lines(mailboxes, mailbox_id, seqs, uids, items, start, max_bytes, sections=sections, hot=True)
        except Cold as cold:
            await mailboxes.bring(cold)
    return fetch_lines(mailboxes, mailbox_id, seqs, uids, items, start, max_bytes, sections=sections)
