"""What a SEARCH returns: RFC 4731's options with SAVE (RFC 5182), PARTIAL (RFC 9394), RELEVANCY (RFC 6203), UPDATE and
CONTEXT (RFC 5267), and the ESEARCH response.

A set is written a slice at a time, so no response is in memory at once but by its numbers.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from fastmta import _imap
from fastmta._imap import BadSyntax
from fastmta.imap.fetch_plan import Plan, parse_new
from fastmta.imap.partial_range import parse_range, window

if TYPE_CHECKING:
    from fastmta._imap import Cursor

SLICE: Final = 16_384  # numbers of one piece of a response
_NO_DATA: Final = frozenset({b"UPDATE", b"CONTEXT"})  # RFC 5267 §4.2, §4.3
_OPTIONS: Final = _NO_DATA | {b"MIN", b"MAX", b"ALL", b"COUNT", b"SAVE", b"PARTIAL", b"RELEVANCY"}


class Returns(msgspec.Struct, frozen=True):
    """The options; `first` and `last` are PARTIAL's, counted from the end where they are negative."""

    options: frozenset[bytes]
    first: int = 0
    last: int = 0
    fetch: Plan | None = None  # what UPDATE tells of new messages (RFC 5465 §7)

    @property
    def updates(self) -> bool:
        return b"UPDATE" in self.options

    @property
    def saves(self) -> bool:
        return b"SAVE" in self.options

    @property
    def silent(self) -> bool:
        """SAVE alone: no ESEARCH response."""
        return self.options - _NO_DATA == {b"SAVE"}

    @property
    def few(self) -> bool:
        """Whether the result is what MIN, MAX or PARTIAL give, and not all that was found (RFC 5182 §2.1)."""
        asked = self.options - {b"SAVE", b"RELEVANCY"} - _NO_DATA
        return bool(asked) and asked <= {b"MIN", b"MAX", b"PARTIAL"}

    def picked(self, found: array[int]) -> array[int]:
        """What of all that was found is the result."""
        if not self.few:
            return found
        places: set[int] = set()
        if found and b"MIN" in self.options:
            places.add(0)
        if found and b"MAX" in self.options:
            places.add(len(found) - 1)
        if b"PARTIAL" in self.options:
            begin, end = window(self.first, self.last, len(found))
            if not places:
                return found[begin:end]
            places.update(range(begin, end))
        return array("I", [found[at] for at in sorted(places)])

    @property
    def ranks(self) -> bool:
        return b"RELEVANCY" in self.options

    def lines(self, found: array[int], modseq: int, scores: Sequence[int] = ()) -> Iterator[bytes]:
        """The return data of an ESEARCH response, each with a space before it, in pieces. `scores`: of what is
        `picked`, where RELEVANCY was asked for."""
        if found and b"MIN" in self.options:
            yield b" MIN %d" % found[0]
        if found and b"MAX" in self.options:
            yield b" MAX %d" % found[-1]
        if b"COUNT" in self.options:
            yield b" COUNT %d" % len(found)
        if found and b"ALL" in self.options:
            yield b" ALL "
            yield from set_pieces(found)
        if b"PARTIAL" in self.options:
            begin, end = window(self.first, self.last, len(found))
            yield b" PARTIAL (%d:%d " % (self.first, self.last)
            if begin < end:
                yield from set_pieces(found[begin:end])
            else:
                yield b"NIL"
            yield b")"
        if modseq:
            yield b" MODSEQ %d" % modseq
        if self.ranks:
            yield b" RELEVANCY ("
            for at in range(0, len(scores), SLICE):
                yield (b" " if at else b"") + b" ".join(b"%d" % score for score in scores[at : at + SLICE])
            yield b")"


def set_pieces(numbers: array[int]) -> Iterator[bytes]:
    """Numbers as a set, in pieces."""
    for begin in range(0, len(numbers), SLICE):
        yield (b"," if begin else b"") + _imap.uid_set(numbers[begin : begin + SLICE])


def parse(cursor: Cursor) -> Returns:
    """Behind RETURN: the parenthesized options; none is ALL."""
    options: set[bytes] = set()
    first = last = 0
    fetch: Plan | None = None
    name = b""
    cursor.open()
    while not cursor.try_close():
        if options:
            cursor.sp()
        if name == b"UPDATE" and cursor.at(0x28):
            fetch = parse_new(cursor)
            name = b""
            continue
        name = cursor.atom()
        if name not in _OPTIONS or name in options:
            raise BadSyntax("Unknown return option")
        options.add(name)
        if name == b"PARTIAL":
            cursor.sp()
            first, last = parse_range(cursor)
    if {b"ALL", b"PARTIAL"} <= options:
        raise BadSyntax("ALL and PARTIAL exclude each other")  # RFC 9394 §3.1
    return Returns(frozenset(options or {b"ALL"}), first, last, fetch)
