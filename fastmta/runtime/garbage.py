"""When a worker looks through all of its objects for garbage that refers to itself.

Such a collection cannot be divided: it takes a millisecond for some thousand objects, and Python begins one whenever
their number has grown by a quarter, which a command over very many things makes happen several times in a second. Young
objects are collected as ever, at most some thousand at a time; all of them once in a while, when what a command needed
has mostly gone again.
"""

import gc
from typing import Final

from fastmta.model.limits import GARBAGE_MOST, GARBAGE_S

YOUNG: Final = 700  # more objects than there were, and the youngest are looked through; Python's figure
GENERATION: Final = 10  # of these times, and those that were left of them are: 7,000 objects at most
NEVER: Final = 1 << 30


class Garbage:
    """The collections of one process; `look` is called once a second."""

    def __init__(self) -> None:
        self._last_at = 0.0

    def begin(self, now: float) -> None:
        """What there is now lives as long as the process: no collection walks it again."""
        self._last_at = now
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG, GENERATION, NEVER)

    def look(self, now: float) -> None:
        """Collects all, if enough has come and the last time is long ago, or very much has come."""
        grown = gc.get_count()[2]  # by so many times YOUNG * GENERATION objects
        if grown >= GENERATION and (now - self._last_at >= GARBAGE_S or grown >= GARBAGE_MOST):
            gc.collect()
            self._last_at = now
