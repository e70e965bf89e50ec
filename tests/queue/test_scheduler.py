"""Lanes, and the book of what is in flight."""

from fastmta.model.envelope import Lane
from fastmta.queue.scheduler import PAGE, HopBook, lane_for


def test_lanes_by_size_and_recipients():
    assert lane_for(4096, 1) == Lane.SMALL
    assert lane_for(1 << 20, 1) == Lane.NORMAL
    assert lane_for(4096, 6) == Lane.NORMAL
    assert lane_for(4096, 51) == Lane.BULK
    assert lane_for(11 << 20, 1) == Lane.BULK


def test_what_is_in_flight_is_not_taken_again():
    book = HopBook()
    rows = [(1, 0, 10, 0), (1, 0, 10, 1), (2, 1, 11, 0)]
    assert book.take(rows, 3) == [(10, 0), (10, 1), (11, 0)]
    assert book.more
    assert book.take(rows, book.page_limit()) == []
    assert not book.more
    assert book.page_limit() == PAGE + 3
    book.forget(10, [0, 1])
    assert book.take(rows, book.page_limit()) == [(10, 0), (10, 1)]
