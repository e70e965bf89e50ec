"""When a failed recipient is tried again, and when it is given up: Postfix's rules, as pure functions of the clock.

The delay is the message's age, clamped to minimal_backoff_time .. maximal_backoff_time: early trouble is met early, and
the delays double by themselves. Up to 10 % is added so that a burst does not come back as a burst.
"""

import re
from typing import Final, Protocol

import msgspec

from fastmta.model.reply import Reply

JITTER: Final = 0.1

# The note that a recipient's last reply carries once its sender was told of the delay; an administrator reads it too.
DELAY_NOTED: Final = b" (the sender has been told of the delay)"


class RetryConfig(Protocol):
    @property
    def maximal_queue_lifetime(self) -> float: ...
    @property
    def bounce_queue_lifetime(self) -> float: ...
    @property
    def minimal_backoff_time(self) -> float: ...
    @property
    def maximal_backoff_time(self) -> float: ...
    @property
    def delay_warning_time(self) -> float: ...


class RetryPolicy(msgspec.Struct, frozen=True, gc=False):
    """Postfix's queue times, in seconds. `delays`: where not empty, the delay after each try, instead of the age."""

    maximal_queue_lifetime_s: float = 5 * 86400.0
    bounce_queue_lifetime_s: float = 5 * 86400.0
    minimal_backoff_s: float = 300.0
    maximal_backoff_s: float = 4000.0
    delay_warning_s: float = 0.0
    delays: tuple[float, ...] = ()

    @classmethod
    def of(cls, config: RetryConfig) -> "RetryPolicy":
        return cls(
            config.maximal_queue_lifetime,
            config.bounce_queue_lifetime,
            config.minimal_backoff_time,
            config.maximal_backoff_time,
            config.delay_warning_time,
        )

    def delay_s(self, age_s: float, attempts: int, chance: float, asked_s: float = 0.0) -> float:
        """Seconds until the next try. `attempts` counts the one that failed; `chance` is in 0..1.

        `asked_s`: what the server itself asked for (greylisting); used where it does not pass the maximum.
        """
        if self.delays:
            base = self.delays[min(max(attempts, 1), len(self.delays)) - 1]
        else:
            base = min(max(age_s, self.minimal_backoff_s), self.maximal_backoff_s)
        if 0 < asked_s <= self.maximal_backoff_s:
            base = asked_s
        return base * (1.0 + JITTER * chance)

    def lifetime_s(self, reverse_path: bytes) -> float:
        """How long a message is tried; a DSN (null reverse path) has its own time."""
        return self.maximal_queue_lifetime_s if reverse_path else self.bounce_queue_lifetime_s

    def is_expired(self, age_s: float, reverse_path: bytes) -> bool:
        return age_s >= self.lifetime_s(reverse_path)

    def owes_delay_warning(self, age_s: float, reverse_path: bytes, last_reply: bytes) -> bool:
        """Whether the sender is to be told now that the message is late; once, and never the null sender."""
        return 0 < self.delay_warning_s <= age_s and reverse_path != b"" and not last_reply.endswith(DELAY_NOTED)


_ASKED: Final = re.compile(
    r"(?:again|retry|back|wait)\b[^0-9]{0,40}?(\d{1,5}) *(s|sec|seconds?|m|min|minutes?|h|hours?)?\b", re.IGNORECASE
)
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600}


def asked_delay_s(reply: Reply) -> float:
    """The delay that a greylisting server asks for ("try again in 300 seconds"); 0.0 where it asks for none."""
    if reply.code not in (450, 451) or not (reply.enhanced in ("", "4.7.1", "4.7.0", "4.2.0") or "grey" in reply.text):
        return 0.0
    found = _ASKED.search(reply.text)
    return float(int(found[1]) * _UNITS[(found[2] or "")[:1].lower()]) if found else 0.0
