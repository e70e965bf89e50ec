"""How fast a destination is sent to that has said "too much": a pure state machine, with the caller's clock.

Unlimited at first. An answer that means "less" halves what was sent, or what is allowed; further ones within a moment
mean the same. A minute without one allows a tenth more, and at twice of what was once too much the limit goes.
"""

from typing import Final

SETTLE_S: Final = 30.0  # in which further refusals count as one: they answer to what was sent before
RAISE_S: Final = 60.0  # without a refusal, and a little more is tried
RAISE: Final = 1.1
FLOOR: Final = 1 / 60.0  # messages a second: one a minute is always tried
_COUNT_S: Final = 60.0  # over which the present speed is taken


class Pace:
    """One destination's. `per_second`: messages; 0: as many as there are."""

    __slots__ = ("_before", "_changed_at", "_count", "_since", "_too_much", "next_at", "per_second", "why")

    def __init__(self) -> None:
        self.per_second = 0.0
        self.next_at = 0.0  # before which no further message is begun; 0: there is no such time
        self.why = ""  # what was answered
        self._since = 0.0
        self._count = self._before = 0  # messages of the present _COUNT_S and of those before
        self._changed_at = float("-inf")
        self._too_much = 0.0

    @classmethod
    def restored(cls, per_second: float, too_much: float, why: str, changed_at: float) -> "Pace":
        """One that was kept; `changed_at` by the caller's clock."""
        made = cls()
        made.per_second = max(FLOOR, per_second)
        made._too_much = too_much
        made.why = why
        made._changed_at = changed_at
        return made

    @property
    def too_much(self) -> float:
        """The most that was once too much."""
        return self._too_much

    def begun(self, now: float) -> None:
        """A message is begun."""
        if now - self._since >= _COUNT_S:
            self._before = self._count if now - self._since < 2 * _COUNT_S else 0
            self._count, self._since = 0, now
        self._count += 1
        if self.per_second:
            self.next_at = max(now, self.next_at) + 1.0 / self.per_second

    def slowed(self, now: float, why: str) -> bool:
        """The destination said "less"; whether that changed anything."""
        if now - self._changed_at < SETTLE_S:
            return False
        speed = self.per_second or self._speed(now)
        self._too_much = max(self._too_much if self.per_second else 0.0, speed)
        self.per_second = max(FLOOR, speed / 2)
        self.next_at = now + 1.0 / self.per_second
        self.why = why
        self._changed_at = now
        return True

    def eased(self, now: float) -> bool:
        """The destination took a message; whether the limit has gone by it."""
        if not self.per_second or now - self._changed_at < RAISE_S:
            return False
        self._changed_at = now
        self.per_second *= RAISE
        if self.per_second < 2 * self._too_much:
            return False
        self.per_second = self.next_at = 0.0
        self.why = ""
        return True

    def forgotten(self, now: float, after_s: float) -> bool:
        """Forgets what is older than `after_s`, counted from the last change; whether it has."""
        if self.per_second and now - self._changed_at >= after_s:
            self.per_second = self.next_at = 0.0
            self.why = ""
            return True
        return False

    def _speed(self, now: float) -> float:
        """Messages a second of late."""
        elapsed = max(1.0, min(now - self._since, _COUNT_S))
        if elapsed >= _COUNT_S / 2 or not self._before:
            return self._count / elapsed
        return (self._count + self._before) / (elapsed + _COUNT_S)
