"""The messages that a command names: a sequence set of numbers or uids, or "$", what a SEARCH saved (RFC 5182)."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import TYPE_CHECKING

import msgspec

from fastmta import _imap
from fastmta._imap import BadSyntax
from fastmta.model.limits import IMAP_WINDOW

if TYPE_CHECKING:
    from fastmta._imap import Cursor, UidMap
    from fastmta.imap.session import Session
    from fastmta.imap.view import View


class Chosen:
    """The messages that a set names in a view, in ascending order, as ranges of numbers: half a million cost no more
    than three. Good until numbers change, so for one command.
    """

    __slots__ = ("_length", "_map", "_ranges", "_start")

    def __init__(self, uids: UidMap, ranges: array[int], start: int = 0, length: int = -1) -> None:
        """`length` of them from `start` on; -1: all."""
        self._map = uids
        self._ranges = ranges
        self._start = start
        self._length = _imap.range_length(ranges) - start if length < 0 else length

    @classmethod
    def of_uids(cls, view: View, uids: array[int]) -> Chosen:
        """Messages of the view by their uids, which are ascending."""
        return cls(view.uids, view.uids.ranges_of_uids(_imap.uid_pairs(uids)))

    def __len__(self) -> int:
        return self._length

    def part(self, begin: int, end: int) -> Chosen:
        """As a slice."""
        end = min(end, self._length)
        return Chosen(self._map, self._ranges, self._start + begin, max(0, end - begin))

    def window(self, position: int) -> tuple[array[int], array[int]]:
        """(seqs, uids) from a position on, IMAP_WINDOW at most."""
        return self._map.numbers(self._ranges, self._start + position, min(IMAP_WINDOW, self._length - position))

    def all(self) -> tuple[array[int], array[int]]:
        """(seqs, uids) of every one."""
        return self._map.numbers(self._ranges, self._start, self._length)

    def has(self, uid: int) -> bool:
        """Whether the set names this one; only of a set that is no part of another."""
        seq = self._map.seq_of(uid)
        after = bisect_right(self._ranges, seq)
        return seq > 0 and (after % 2 == 1 or (after > 0 and self._ranges[after - 1] == seq))


class MessageSet(msgspec.Struct, frozen=True):
    """Pairs of low, high; 0 stands for "*"."""

    pairs: array[int]
    by_uid: bool

    def choose(self, view: View) -> Chosen:
        """BadSyntax for a number that no message has; a uid like that is passed over."""
        uids = view.uids
        ranges = uids.ranges_of_uids(self.pairs) if self.by_uid else uids.ranges_of_seqs(self.pairs)
        if ranges is None:
            raise BadSyntax("Message number out of range")
        return Chosen(uids, ranges)


def parse(session: Session, cursor: Cursor, *, by_uid: bool) -> MessageSet:
    """The set that stands here; only in state SELECTED. BadSyntax."""
    if cursor.take(0x24):
        return MessageSet(session.selected.saved, True)
    return MessageSet(cursor.sequence_set(), by_uid)
