"""Times in the schedule that the machine's clock has since taken back: found and put right.

Due times are those of the wall clock, so that they hold over a restart. Where the clock stood an hour fast and goes
back, what was deferred meanwhile would wait an hour longer than its rule says, and what was accepted meanwhile would
not be tried at all for an hour. So a recipient is never due later than the retry rule could say now: what lies beyond
that is given a new time. Looked for at start (the clock may have been set while we were down) and whenever the wall
clock is seen to fall behind the monotonic one, or behind a time that a delivery has seen; a page at a time, so that a
backlog of a million holds nobody up.

A clock that jumps forward needs nothing: what becomes due early is tried early.
"""

import random
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from fastmta.delivery.seams import QueuedMessage, QueuedRecipient
from fastmta.model.envelope import RecipientState
from fastmta.model.limits import REDATED_A_PAGE, REDATED_HOPS, REDATED_S
from fastmta.queue.retry import JITTER

if TYPE_CHECKING:
    from fastmta.delivery.service import DeliveryService

STEP_S: Final = 2.0  # of the wall clock against the monotonic one: less is ordinary adjustment, a millisecond a second
SLACK_MS: Final = 1000
_FAR_MS: Final = 2**62


class Redating:
    """The walk over one slot's schedule; `look` is called once a second."""

    __slots__ = ("_offset", "_redated", "_service", "_walk")

    def __init__(self, service: "DeliveryService") -> None:
        self._service = service
        self._offset = self._measure()
        self._walk: Iterator[list[tuple[int, int]]] | None = None
        self._redated = 0

    def begin(self, partitions: frozenset[int]) -> None:
        """Walks over the schedule of these partitions, from the next `look` on."""
        self._walk = self._pages(partitions)

    def look(self, partitions: frozenset[int]) -> float:
        """Goes on with a walk under way, and begins one where the clock was set back; by how many seconds it was."""
        offset, before = self._measure(), self._offset
        self._offset = offset
        # A clock that went forth and back between two looks was only seen by whoever asked for the time meanwhile.
        now = self._service.clock.now()
        back_s = max(before - offset, self._service.latest_s - now)
        self._service.latest_s = now
        if abs(back_s) > STEP_S:
            event = "clock.set_back" if back_s > 0 else "clock.set_forward"
            self._service.log.warning(event, seconds=round(abs(back_s), 3))
        if back_s > STEP_S:
            self.begin(partitions)
        if self._walk is not None:
            self._go_on(self._walk)
        return max(0.0, back_s) if abs(back_s) > STEP_S else 0.0

    def _measure(self) -> float:
        clock = self._service.clock
        return clock.now() - clock.monotonic()

    def _go_on(self, walk: Iterator[list[tuple[int, int]]]) -> None:
        clock = self._service.clock
        until = clock.monotonic() + REDATED_S
        for pairs in walk:
            if pairs:
                self._page(pairs)
            if clock.monotonic() >= until:
                return
        self._walk = None
        if self._redated:
            self._service.log.info("queue.redated", recipients=self._redated)
            self._redated = 0

    def _pages(self, partitions: frozenset[int]) -> Iterator[list[tuple[int, int]]]:
        """The recipients that are not due yet, by pages of one hop; [] where a page has none."""
        queue = self._service.queue
        for partition in sorted(partitions):
            for _, hop in queue.hops((partition,), _FAR_MS, REDATED_HOPS):
                token = b""
                while rows := queue.due(hop, _FAR_MS, REDATED_A_PAGE, token):
                    token = queue.position(rows, token)
                    soon_ms = self._service.now_ms() + SLACK_MS
                    yield [(queue_id, n) for due_ms, _, queue_id, n in rows if due_ms > soon_ms]

    def _page(self, pairs: list[tuple[int, int]]) -> None:
        store = self._service.services.store
        for message, rows in self._service.queue.load(pairs):
            unit = None
            for row in rows:
                due_ms = self._right_due_ms(message, row)
                if due_ms is None:
                    continue
                if unit is None:
                    unit = store.new_unit()
                # What was never tried counts as deferred until it is, in a moment: a move to where it is is none.
                to_state = int(RecipientState.DEFERRED)
                unit.move_recipient(row.queue_id, row.n, row.state, to_state, row.attempts, due_ms, row.last_reply)
                self._redated += 1
            if unit is not None:
                store.submit(unit, None)  # refused where somebody has moved one meanwhile: then it has a new time

    def _right_due_ms(self, message: QueuedMessage, row: QueuedRecipient) -> int | None:
        """When the recipient ought to be due; None where it is due early enough."""
        now_ms = self._service.now_ms()
        if row.state == RecipientState.ACTIVE:
            return now_ms if row.due_ms > now_ms + SLACK_MS else None
        policy = self._service.recorder.policy
        age_s = (now_ms - message.envelope.received_at_ms) / 1000
        delay_s = policy.delay_s(age_s, row.attempts, 0.0)
        if row.due_ms <= now_ms + int(delay_s * (1 + JITTER) * 1000) + SLACK_MS:
            return None
        return now_ms + int(delay_s * (1 + JITTER * random.random()) * 1000)
