"""Limits of events: granted, or how long to wait, counted by all who share the table."""

from fastmta._limits import HOLDINGS_BYTES, TABLE_BYTES, Table
from fastmta.runtime.rates import Rate

KEY = (7, 1, 2)


class Clock:
    now = 100.9

    def __call__(self) -> float:
        return self.now


def test_events_are_granted_up_to_the_limit_and_wait_for_the_windows_end_beyond() -> None:
    clock, memory = Clock(), bytearray(TABLE_BYTES)
    one, other = (Rate(Table(memory, bytearray(HOLDINGS_BYTES), n), 3, 60, clock) for n in (1, 2))
    assert [one.take(KEY), other.take(KEY, 2)] == [0, 0], "at the limit"
    clock.now += 20
    assert one.take(KEY) == other.take(KEY) == 40, "over it, whoever asks; and what is refused counts"
    assert one.take((7, 1, 3), 3) == one.take((8, 1, 2), 3) == 0, "another key is another count"
    clock.now += 40
    assert one.take(KEY, 4) == 60, "more than all at once"
    clock.now += 60
    assert other.take(KEY, 3) == 0


def test_what_is_lacking_is_told_without_counting() -> None:
    clock = Clock()
    rate = Rate(Table(bytearray(TABLE_BYTES), bytearray(HOLDINGS_BYTES), 1), 2, 10, clock)
    assert [rate.lacks(KEY) for _ in range(5)] == [0] * 5
    assert rate.take(KEY) == 0 and rate.lacks(KEY) == 0 and rate.lacks(KEY, 2) == 10
    assert rate.take(KEY) == 0 and rate.lacks(KEY) == 10
    clock.now += 10
    assert rate.lacks(KEY, 2) == 0


def test_no_limit_is_none() -> None:
    rate = Rate(Table(bytearray(TABLE_BYTES), bytearray(HOLDINGS_BYTES), 1), 0, 10, Clock())
    assert rate.take(KEY, 10**6) == rate.lacks(KEY, 10**6) == 0
