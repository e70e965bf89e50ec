"""How long deliveries may hold a worker's loop in one pass of it; what does not fit is done in the passes that follow.

A flush makes thousands of recipients due at once, and a destination that dies decides about all of them: work that
nobody waits for in between. Sessions of clients share the loop by runtime/turns.py; deliveries get DELIVERY_PASS_S of
each pass beside them, and decide about RESULTS_A_PASS recipients in it.

A pass begins with the first thing that is done or asked for in it. Something is done in every pass, so nothing starves.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from fastmta.model.limits import DELIVERY_PASS_S, DELIVERY_TASK_S, RESULTS_A_PASS

_PASS_NS: Final = int(DELIVERY_PASS_S * 1e9)
_TASK_NS: Final = int(DELIVERY_TASK_S * 1e9)

Act = Callable[[], None]


class Pace:
    """One service's part of each pass. `resume` is called in the next one: who asked `is_over` may go on."""

    __slots__ = ("_decided", "_ends_at", "_loop", "_now_ns", "_resume", "_waiting")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, resume: Act, now_ns: Callable[[], int] = time.perf_counter_ns
    ) -> None:
        self._loop = loop
        self._resume = resume
        self._now_ns = now_ns
        self._ends_at = 0  # of the pass that is under way; 0: nobody has begun to work in it
        self._decided = 0  # recipients, in this pass
        self._waiting: deque[Act] = deque()

    @property
    def is_over(self) -> bool:
        """Whether enough was done in this pass; asked between two pieces of work."""
        now = self._now_ns()
        if not self._ends_at:
            self._ends_at = now + _PASS_NS
            self._decided = 0
            self._loop.call_soon(self._next_pass)
            return False
        return now >= self._ends_at or self._decided >= RESULTS_A_PASS

    @property
    def is_waited_for(self) -> bool:
        """Whether something that `later` was given has not been done yet."""
        return bool(self._waiting)

    def later(self, act: Act) -> None:
        """Does something now, or where this pass is over in one that follows, in the order in which it was given."""
        if self._waiting or self.is_over:
            self._waiting.append(act)
        else:
            act()

    def decided(self, recipients: int) -> None:
        """So many recipients' results are on their way into the store."""
        self._decided += recipients

    def spawned(self) -> None:
        """A task was made that works before anybody can ask again: what it takes is counted now."""
        if self._ends_at:
            self._ends_at -= _TASK_NS

    def _next_pass(self) -> None:
        self._ends_at = 0
        while self._waiting and not self.is_over:
            self._waiting.popleft()()
        self._resume()
