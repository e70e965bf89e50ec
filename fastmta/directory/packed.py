"""A long look-up table in memory: the text of its entries in one buffer, and an index of where each begins.

A dict of half a million entries takes about 130 MB, and for the time of a reload there are two of them; this takes the
text itself and some 12 octets an entry, and is given back at once.

The buffer has key LF value LF for each entry: neither holds an LF, since both come from lines. The index is open
addressing over the hash of the key's octets; an empty place is 0, so the buffer begins with an octet that is no entry.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from fastmta.model.limits import MAP_PIECE

_CODING: Final = ("utf-8", "surrogateescape")


class Packed:
    """A table that does not change. Of a key given twice the first counts."""

    __slots__ = ("_index", "_mask", "_text", "_used")

    def __init__(self, entries: Iterable[tuple[str, str]], pause: Callable[[], None] | None = None) -> None:
        """`pause` is called after each MAP_PIECE entries."""
        text = bytearray(b"\n")
        starts = array("I")
        for count, (key, value) in enumerate(entries, 1):
            starts.append(len(text))
            text += f"{key}\n{value}\n".encode(*_CODING)
            if pause is not None and count % MAP_PIECE == 0:
                pause()
        self._text = text
        places = 8
        while places < 2 * len(starts):
            places *= 2
        self._mask = places - 1
        self._index = array("I", bytes(4 * places))
        self._used = 0
        for count, start in enumerate(starts, 1):
            self._put(start)
            if pause is not None and count % MAP_PIECE == 0:
                pause()

    def _put(self, start: int) -> None:
        text, index, mask = self._text, self._index, self._mask
        line = bytes(text[start : text.index(10, start) + 1])
        place = hash(line) & mask
        while at := index[place]:
            if text.startswith(line, at):
                return
            place = (place + 1) & mask
        index[place] = start
        self._used += 1

    def get(self, key: str) -> str | None:
        """The value of a key; None where there is none."""
        text, index, mask = self._text, self._index, self._mask
        line = key.encode(*_CODING) + b"\n"
        if b"\n" in line[:-1]:
            return None
        place = hash(line) & mask
        while at := index[place]:
            if text.startswith(line, at):
                start = at + len(line)
                return text[start : text.index(10, start)].decode(*_CODING)
            place = (place + 1) & mask
        return None

    def values(self) -> Iterator[str]:
        """The value of each key, in no order."""
        text = self._text
        for at in self._index:
            if at:
                start = text.index(10, at) + 1
                yield text[start : text.index(10, start)].decode(*_CODING)

    def __len__(self) -> int:
        return self._used
