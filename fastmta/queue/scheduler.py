"""What the owner of a hop tries next: lanes, pages, and the memory of what is in flight. Pure: no clock, no store.

The schedule itself lies in the store, ordered by lane and time; a `HopBook` only remembers the recipients that were
taken from it and have no committed result yet. Its memory is bounded by the page and the window, not by the backlog.
"""

from collections.abc import Iterable
from typing import Final

from fastmta.model.envelope import Lane
from fastmta.model.limits import LANE_BULK_BYTES, LANE_BULK_RECIPIENTS, LANE_SMALL_BYTES, LANE_SMALL_RECIPIENTS

PAGE: Final = 64  # recipients that a refill asks for; twice the greatest window keeps connections busy

Key = tuple[int, int]  # queue_id, n


def lane_for(size_bytes: int, recipients: int) -> Lane:
    """The lane of a message's recipients: a mailing or a huge message must not stand in front of a short letter."""
    if recipients > LANE_BULK_RECIPIENTS or size_bytes > LANE_BULK_BYTES:
        return Lane.BULK
    if recipients <= LANE_SMALL_RECIPIENTS and size_bytes <= LANE_SMALL_BYTES:
        return Lane.SMALL
    return Lane.NORMAL


class HopBook:
    """The recipients of one hop that are in its owner's hands."""

    __slots__ = ("in_flight", "more")

    def __init__(self) -> None:
        self.in_flight: set[Key] = set()
        self.more = True  # the schedule may hold due recipients that are not in flight

    def page_limit(self) -> int:
        """How many rows to ask for: those in flight are still in the schedule and come first."""
        return PAGE + len(self.in_flight)

    def took(self, keys: Iterable[Key], *, found: int, limit: int) -> None:
        """These are in flight now, of a page of `found` rows; one that was not full means no more are due."""
        self.more = found >= limit
        self.in_flight.update(keys)

    def forget(self, queue_id: int, numbers: Iterable[int]) -> None:
        """These have a committed result, or nobody knows them any more."""
        for n in numbers:
            self.in_flight.discard((queue_id, n))
