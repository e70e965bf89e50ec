"""Flags between the wire and the store: names to bits and keywords, and the one way in which a session changes them."""

from __future__ import annotations

from array import array
from itertools import filterfalse
from typing import TYPE_CHECKING, Final

from fastmta._imap import BadSyntax
from fastmta.model import flags as system_flags
from fastmta.model.errors import Refused, StorageFailure
from fastmta.model.flags import ALL_KEYWORDS
from fastmta.model.limits import IMAP_KEYWORD_BYTES, IMAP_KEYWORDS
from fastmta.model.rights import kept_flags

if TYPE_CHECKING:
    from fastmta.imap.message_set import Chosen
    from fastmta.imap.session import Session
    from fastmta.imap.view import View

ROWS_ASKED_ABOUT: Final = 16  # of fewer messages few can be cold, and the committer waits for them
SLICE: Final = 1000  # messages of one unit: a few milliseconds of the committer


def parse_flags(names: list[bytes]) -> tuple[int, bytes]:
    """(bits, keywords as the store keeps them). \\Recent can't be set; an unknown system flag is BAD."""
    bits = 0
    keywords: dict[bytes, bytes] = {}
    for name in names:
        if name.startswith(b"\\"):
            bit = system_flags.BITS.get(name.decode("ascii").lower())
            if bit is None:
                raise BadSyntax("Unknown system flag" if name.lower() != b"\\recent" else "\\Recent can't be changed")
            bits |= bit
        else:
            if len(name) > IMAP_KEYWORD_BYTES:
                raise BadSyntax("Keyword is too long")
            keywords.setdefault(name.lower(), name)
    if len(keywords) > IMAP_KEYWORDS:
        raise BadSyntax("Too many keywords")
    return bits, b" ".join(keywords[key] for key in sorted(keywords))


async def change_flags(
    session: Session, view: View, uids: array[int], mode: int, flags: int, keywords: bytes, unchanged_since: int = -1
) -> array[int]:
    """Changes flags (mode 0 sets, 1 adds, 2 removes), a slice a unit; uids that are gone are passed over.

    Gives the uids that had changed after `unchanged_since` and were left alone. The view learns of the rest, so that
    the session does not hear of its own changes, and hears of others' to the same messages. Flags that the session has
    no right to change stay as they are (RFC 4314 §4). Refused, StorageFailure, MailboxGone.
    """
    modified = array("I")
    kept = kept_flags(session.rights)
    if mode and not flags & ~kept and (kept & ALL_KEYWORDS or not keywords):
        return modified  # nothing that may be changed
    await view.before_own_change(session.mailboxes)
    for begin in range(0, len(uids), SLICE):
        part = uids[begin : begin + SLICE]
        if len(part) >= ROWS_ASKED_ABOUT:
            waiting = session.mailboxes.need_rows(view.mailbox_id, part)
            if waiting is not None:
                await waiting
        modseq, left = await session.mailboxes.change_flags(
            view.mailbox_id, part, mode, flags, keywords, unchanged_since, kept
        )
        view.own_change(modseq, part)
        modified.extend(left)
    return modified


async def tell_changes(session: Session, view: View, told: Chosen | None = None) -> None:
    """Tells what others have changed, keywords first, before FETCH responses show it; `told` are those that follow."""
    if told is not None and view.mixed:
        view.mixed = set(filterfalse(told.has, view.mixed))
    pending = view.sync(session.mailboxes, session.write, expunge=False)
    if pending is not None:
        try:
            await pending
        except (Refused, StorageFailure) as error:  # \\Recent could not be taken: reading goes on
            session.services.log.error("imap.storage", error=error)
