"""Lanes, and the book of what is in flight."""

from fastmta.model.envelope import Lane
from fastmta.queue.scheduler import PAGE, HopBook, lane_for


def test_lanes_by_size_and_recipients():
    assert lane_for(4096, 1) == Lane.SMALL
    assert lane_for(1 << 20, 1) == Lane.NORMAL
    assert lane_for(4096, 6) == Lane.NORMAL
    assert lane_for(4096, 51) == Lane.BULK
    assert lane_for(11 << 20, 1) == Lane.BULK


def test_a_page_that_was_not_full_means_that_no_more_are_due():
    book = HopBook()
    book.took([(10, 0), (10, 1), (11, 0)], found=3, limit=3)
    assert book.more
    assert book.page_limit() == PAGE + 3
    book.took([], found=3, limit=book.page_limit())
    assert not book.more
    book.forget(10, [0, 1])
    assert book.in_flight == {(11, 0)}
