"""The messages that a command names: a sequence set of numbers or uids, or "$", what a SEARCH saved (RFC 5182)."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import msgspec

from fastmta._imap import BadSyntax

if TYPE_CHECKING:
    from fastmta._imap import Cursor
    from fastmta.imap.session import Session
    from fastmta.imap.view import View


class MessageSet(msgspec.Struct, frozen=True):
    """Pairs of low, high; 0 stands for "*"."""

    pairs: array[int]
    by_uid: bool

    def choose(self, view: View) -> tuple[array[int], array[int]]:
        """(seqs, uids), ascending. BadSyntax for a number that no message has; a uid like that is passed over."""
        chosen = view.uids.by_uids(self.pairs) if self.by_uid else view.uids.by_seqs(self.pairs)
        if chosen is None:
            raise BadSyntax("Message number out of range")
        return chosen


def parse(session: Session, cursor: Cursor, *, by_uid: bool) -> MessageSet:
    """The set that stands here; only in state SELECTED. BadSyntax."""
    if cursor.take(0x24):
        return MessageSet(session.selected.saved, True)
    return MessageSet(cursor.sequence_set(), by_uid)
