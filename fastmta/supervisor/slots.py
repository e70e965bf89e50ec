"""When a slot's next process may start: at once after a first death, later and later for one that keeps dying."""

from collections import deque
from typing import Final

WINDOW_S: Final = 60.0  # deaths older than this are forgotten
IMMEDIATE: Final = 2  # deaths in the window that cost no wait
LONGEST_S: Final = 30.0
IMMEDIATE_ALONE: Final = 8  # more of them where there is no other worker
ALONE_S: Final = 0.5  # from then on, so that a program that cannot live does not spin


class Restarts:
    """The recent deaths of one slot."""

    def __init__(self) -> None:
        self._deaths: deque[float] = deque(maxlen=16)

    def died(self, now: float, *, alone: bool = False) -> float:
        """Notes a death at `now` (monotonic seconds) and returns how long to wait: 0, 0, then 1, 2, 4 ... 30 s.

        `alone`: nobody else accepts meanwhile, so that a wait is an outage; there is next to none then.
        """
        while self._deaths and now - self._deaths[0] > WINDOW_S:
            self._deaths.popleft()
        self._deaths.append(now)
        extra = len(self._deaths) - IMMEDIATE
        if alone:
            return 0.0 if extra <= IMMEDIATE_ALONE else ALONE_S
        return 0.0 if extra <= 0 else min(LONGEST_S, 2.0 ** (extra - 1))
