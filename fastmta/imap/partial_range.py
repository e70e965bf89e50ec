"""The range of PARTIAL (RFC 9394 §3.1, RFC 5267 §4.4): 1:100, or -1:-100 from the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastmta._imap import BadSyntax

if TYPE_CHECKING:
    from fastmta._imap import Cursor


def window(first: int, last: int, count: int) -> tuple[int, int]:
    """The places [begin, end) of a PARTIAL range among `count` results (RFC 9394 §3.1)."""
    low, high = abs(first), abs(last)
    if first < 0:
        low, high = count - high + 1, count - low + 1
    return max(0, low - 1), max(0, min(high, count))


def parse_range(cursor: Cursor) -> tuple[int, int]:
    """1:100 or -1:-100, in this order: 500:400 is 400:500, and is told so."""
    numbers: list[int] = []
    for end in (False, True):
        if end and not cursor.take(0x3A):
            raise BadSyntax("Range expected")
        sign = -1 if cursor.take(0x2D) else 1
        numbers.append(sign * cursor.number())
    first, last = numbers
    if not first or not last or (first < 0) != (last < 0):
        raise BadSyntax("Range expected")
    return (first, last) if abs(first) <= abs(last) else (last, first)
