"""How many deliveries a destination takes at once: the feedback of Postfix's queue manager, as a pure state machine.

Positive and negative feedback of 1/N with hysteresis, as qmgr_feedback and qmgr_queue_throttle/unthrottle do it:
the window grows by one after about a window's worth of successes, shrinks by one after as many failures, and a
destination is dead once a whole cohort has failed with no success in between.
"""

from typing import Final

INITIAL_DEFAULT: Final = 5
LIMIT_DEFAULT: Final = 20


class Window:
    """One destination's window. The caller counts `busy` (deliveries under way) itself and keeps the time of death."""

    __slots__ = ("_cohort_limit", "_fail_cohorts", "_failure", "_initial", "_limit", "_success", "size")

    def __init__(
        self, initial: int = INITIAL_DEFAULT, limit: int = LIMIT_DEFAULT, failed_cohort_limit: float = 1
    ) -> None:
        self._initial = max(1, min(initial, limit))
        self._limit = max(1, limit)
        self._cohort_limit = failed_cohort_limit
        self.size = self._initial
        self._success = self._failure = self._fail_cohorts = 0.0

    @property
    def is_fresh(self) -> bool:
        """Whether forgetting this state would lose nothing."""
        return self.size >= self._initial and not self._fail_cohorts

    def succeeded(self, busy: int) -> None:
        """The destination was reached and a transaction ran, whatever it said to the recipients."""
        self._fail_cohorts = 0.0
        size = self.size
        if size >= self._limit or size >= busy + self._initial:
            return
        feedback = 1.0 / size
        self._success += feedback
        while self._success + feedback / 2 >= 1.0:
            self.size += 1
            self._success -= 1.0
            self._failure = 0.0
        self.size = min(self.size, self._limit)

    def failed(self) -> bool:
        """Connecting or the handshake failed. True: the destination is dead now; `revived` begins anew."""
        self._fail_cohorts += 1.0 / self.size
        if self._fail_cohorts >= self._cohort_limit > 0:
            return True
        if self.size > 1:
            feedback = 1.0 / self.size
            self._failure -= feedback
            while self._failure - feedback / 2 < 0:
                self.size -= 1
                self._success = 0.0
                self._failure += 1.0
            self.size = max(self.size, 1)
        return False

    def revived(self, busy: int) -> None:
        """The time of death is over: the window is what is still under way, or the initial one."""
        self.size = min(busy, self._limit) if busy > 0 else self._initial
        self._success = self._failure = self._fail_cohorts = 0.0
