"""The clock, injected everywhere so that tests can turn it."""

import time
from typing import Protocol


class Clock(Protocol):
    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...


class SystemClock:
    """The machine's own clock."""

    __slots__ = ()
    now = staticmethod(time.time)
    monotonic = staticmethod(time.monotonic)


class ManualClock:
    """A clock that a test moves by hand."""

    __slots__ = ("_monotonic", "_now")

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self._now = now
        self._monotonic = 1_000.0

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def step(self, seconds: float) -> None:
        """Somebody sets the wall clock; no time passes."""
        self._now += seconds

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._monotonic += seconds
