"""How much a destination gets, and when nothing: the window, its limits, traffic rules, death and revival.

Postfix's queue manager decides the same of a destination: how many deliveries at once (queue/concurrency.py), how many
recipients in each, how long between two; and after a failed cohort it is dead for minimal_backoff_time, unless an
administrator flushes it. Left to remote.py: connections, and what goes over them.
"""

import asyncio
import math
from typing import TYPE_CHECKING, NamedTuple

from fastmta.delivery.job import Job
from fastmta.delivery.owner import HopOwner
from fastmta.model.envelope import RecipientState
from fastmta.model.limits import HOP_REASON_BYTES, PACE_KEPT_S, REVIVAL_PAUSE_S
from fastmta.model.reply import Reply
from fastmta.queue.concurrency import Window

if TYPE_CHECKING:
    from fastmta.config.delivery_keys import DeliveryConfig
    from fastmta.delivery.service import DeliveryService
    from fastmta.smtp.client_connection import Connection


class Limits(NamedTuple):
    """What [delivery] allows the destinations of a transport; each has its own, as in Postfix."""

    initial: int
    concurrency: int
    failed_cohorts: float
    rate_delay_s: float
    recipients: int

    @classmethod
    def of(cls, delivery: "DeliveryConfig", transport: str) -> "Limits":
        names = (
            "initial_destination_concurrency",
            "destination_concurrency_limit",
            "destination_concurrency_failed_cohort_limit",
            "destination_rate_delay",
            "destination_recipient_limit",
        )
        return cls(*(getattr(delivery, f"{transport}_{name}") for name in names))


class Destination(HopOwner):
    """One destination.

    `busy` counts deliveries under way, those that only connect included (Postfix's busy_refcount).
    """

    __slots__ = (
        "_closing",
        "_dead_reason",
        "_dead_until",
        "_died_ms",
        "_next_at",
        "_pace",
        "_pardoned_at",
        "_rate_delay_s",
        "_recipient_limit",
        "_shaper",
        "_waking",
        "busy",
        "has_turn",
        "window",
    )

    is_remote = True

    def __init__(self, service: "DeliveryService", hop: bytes, transport: str) -> None:
        super().__init__(service, hop, transport)
        self.window = self._new_window()
        self.busy = 0
        self.has_turn = False  # a traffic rule lets it go before others that wait
        self._closing = False
        self._dead_until = 0.0
        self._dead_reason: Reply | None = None
        self._died_ms = 0  # by the wall clock, as the schedule counts
        self._pardoned_at = float("-inf")  # when an administrator last had a dead destination tried
        self._shaper = service.shaping.of(self)
        self._read_limits()
        self._next_at = 0.0  # before which nothing is begun; 0: there is no such time
        self._pace = self.service.paces.pace_of(self.hop_text)
        self._waking: asyncio.TimerHandle | None = None

    def _new_window(self) -> Window:
        limits = self.service.limits_of(self.transport)
        return Window(limits.initial, 1 if limits.rate_delay_s else limits.concurrency, limits.failed_cohorts)

    def _read_limits(self) -> None:
        """What is asked for with each message."""
        limits = self.service.limits_of(self.transport)
        self._rate_delay_s = limits.rate_delay_s
        self._recipient_limit = limits.recipients

    @property
    def recipient_limit(self) -> int:
        limit = self._recipient_limit
        rules = self._shaper.recipient_limit if self._shaper is not None else 0
        return min(limit, rules) if rules else limit

    @property
    def wants_to_send(self) -> bool:
        """Whether there may be something to begin."""
        return not self._closing and bool(self.ready or self.book.more)

    @property
    def is_idle(self) -> bool:
        return (
            super().is_idle
            and not self.busy
            and not self._pace.per_second
            and self._dead_reason is None
            and self.window.is_fresh
            and self._next_at <= self.service.clock.monotonic()
        )

    def state(self) -> dict[str, object]:
        state = super().state()
        state["concurrency"] = self.window.size
        if self._pace.per_second:
            state["shaped"] = f"what it said: {self._pace.per_second * 60:.3g} messages a minute since {self._pace.why}"
        elif self._shaper is not None and self.ready:
            state["shaped"] = self._shaper.reason
        if self._dead_reason is not None:
            state["dead_seconds"] = max(0, math.ceil(self._dead_until - self.service.clock.monotonic()))
            state["reason"] = str(self._dead_reason)[:HOP_REASON_BYTES]
        return state

    def partly_answered(self, connection: "Connection") -> None:
        """An LMTP server may take its time between two recipients: what it took so far is noted, lest a kill sends it
        again.
        """
        if isinstance(connection.transaction, Job):
            self.service.recorder.partly_answered(connection.transaction)

    def clock_set_back(self, seconds: float) -> None:
        self._died_ms -= int(seconds * 1000)

    def tick(self, now: float) -> None:
        if self._pace.forgotten(now, PACE_KEPT_S):
            self.service.paces.note(self.hop_text, self._pace)
        if self._dead_reason is not None and now >= self._dead_until:
            self.pump()

    def close(self) -> None:
        super().close()
        self._closing = True
        if self._shaper is not None:
            self._shaper.leave()
        if self._waking is not None:
            self._waking.cancel()
            self._waking = None

    def settings_changed(self) -> None:
        if self._shaper is not None:
            self._shaper.leave()
        self._shaper = self.service.shaping.of(self)
        self._read_limits()
        self._next_at = 0.0
        self.window = self._new_window()

    def close_idle(self) -> bool:
        raise AssertionError("a kind of destination has connections")

    # --- time between deliveries ---

    def asked_for_less(self, reply: Reply) -> None:
        if not self.service.config.delivery.destination_rate_tuning:
            return
        if self._pace.slowed(self.service.clock.monotonic(), str(reply)[:HOP_REASON_BYTES]):
            self.window.size = max(1, self.window.size // 2)
            self._next_at = max(self._next_at, self._pace.next_at)
            self.service.paces.note(self.hop_text, self._pace)
            self.service.log.info(
                "destination.slowed",
                next_hop=self.hop,
                per_minute=round(self._pace.per_second * 60, 2),
                reply=str(reply)[:HOP_REASON_BYTES],
            )

    def _begun(self) -> None:
        """A message is begun: the next may have to wait for its time."""
        pace = self._pace
        pace.begun(self.service.clock.monotonic())
        if pace.next_at:
            self._next_at = max(self._next_at, pace.next_at)

    def _taken(self) -> None:
        """The destination has taken a message."""
        pace, before = self._pace, self._pace.per_second
        if before and pace.eased(self.service.clock.monotonic()):
            self.service.log.info("destination.unslowed", next_hop=self.hop)
        if pace.per_second != before:
            self.service.paces.note(self.hop_text, pace)

    def _ended(self) -> None:
        """A delivery has ended, well or not: the next may have to wait (destination_rate_delay)."""
        if self._rate_delay_s:
            self._next_at = self.service.clock.monotonic() + self._rate_delay_s

    def _holds_back(self) -> bool:
        """Whether the destination is to be left alone for a moment; it is pumped behind it."""
        wait_s = self._next_at - self.service.clock.monotonic()
        if wait_s <= 0:
            return False
        if self._waking is None:
            self._waking = self.service.loop.call_later(wait_s, self._wake)
        return True

    def _wake(self) -> None:
        self._waking = None
        self.pump()

    # --- death ---

    def _die(self, reply: Reply) -> None:
        """Nothing more is tried for a while."""
        backoff_s = self.service.config.delivery.minimal_backoff_time
        self._dead_reason = reply
        self._dead_until = self.service.clock.monotonic() + backoff_s
        self._died_ms = self.service.now_ms()
        self.service.log.info("destination.dead", next_hop=self.hop, seconds=backoff_s, reply=str(reply))

    def _revive(self) -> bool:
        """Ends a death whose time is over; whether the destination lives."""
        if self.service.clock.monotonic() < self._dead_until:
            return False
        self._dead_reason = None
        self.window.revived(self.busy)
        self.service.log.info("destination.revived", next_hop=self.hop)
        return True

    def _suspend(self) -> None:
        """Defers what is due of a dead destination, with the reason; none of it counts as an attempt."""
        service = self.service
        assert self._dead_reason is not None
        until = service.clock.now() + self._dead_until - service.clock.monotonic()
        reason = self._dead_reason
        reply = Reply(450, reason.enhanced or "4.4.1", f"delivery temporarily suspended: {reason.text}")
        while not service.is_stalled(self) and (self.ready or self.refill()):
            job = self.ready.popleft()
            if self._is_pardoned(job):
                self.ready.appendleft(job)
                self._dead_until = 0.0
                self.pump()
                return
            job.decide(reply)
            service.recorder.finish(job, counts=False, not_before_s=until)

    def _is_pardoned(self, job: Job) -> bool:
        """Whether an administrator wants the dead destination tried now, as `postqueue -f` does: once for each wish.

        A recipient that was tried before and is active again was made due by a command, at the time of the command. If
        the destination has died once more since, the wish was granted, and the rest waits with all the others.
        """
        now = self.service.clock.monotonic()
        if now - self._pardoned_at < REVIVAL_PAUSE_S or not any(
            row.state == RecipientState.ACTIVE and row.last_reply and row.due_ms >= self._died_ms for row in job.rows
        ):
            return False
        self._pardoned_at = now
        return True
