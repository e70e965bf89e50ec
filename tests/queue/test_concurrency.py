"""Postfix's concurrency feedback, step by step."""

import random

from fastmta.queue.concurrency import Window


def test_a_window_of_successes_adds_one():
    window = Window(5, 20)
    sizes = []
    for _ in range(5):
        window.succeeded(busy=5)
        sizes.append(window.size)
    # 1/5 each, and one more as soon as success + 1/(2N) reaches 1: at the fifth
    assert sizes == [5, 5, 5, 5, 6]


def test_the_window_grows_to_the_limit_and_no_further():
    window = Window(5, 20)
    for _ in range(2000):
        window.succeeded(busy=window.size)
    assert window.size == 20


def test_the_window_grows_only_while_it_is_used():
    window = Window(5, 20)
    for _ in range(2000):
        window.succeeded(busy=1)
    assert window.size == 6  # busy + initial


def test_one_failed_cohort_kills_the_destination():
    window = Window(5, 20, 1)
    assert [window.failed() for _ in range(5)] != [True] * 5
    assert window.failed()


def test_a_success_forgives_the_cohort():
    window = Window(5, 20, 1)
    for _ in range(50):
        assert not window.failed() or window.size == 1
        window.succeeded(busy=window.size)


def test_failures_shrink_the_window_to_one_at_least():
    window = Window(10, 20, failed_cohort_limit=1000)
    for _ in range(200):
        window.failed()
    assert window.size == 1


def test_a_single_failure_already_shrinks_because_of_the_hysteresis():
    window = Window(10, 20, failed_cohort_limit=10)
    window.failed()
    assert window.size == 9


def test_a_revived_destination_begins_with_what_is_under_way_or_the_initial_window():
    window = Window(5, 20, 1)
    while not window.failed():
        pass
    window.revived(busy=0)
    assert window.size == 5 and window.is_fresh
    window.revived(busy=3)
    assert window.size == 3


def test_any_sequence_keeps_the_window_between_one_and_the_limit():
    chance = random.Random(7)
    window = Window(5, 20, 1)
    for _ in range(20_000):
        if chance.random() < 0.6:
            window.succeeded(busy=chance.randint(0, window.size))
        elif window.failed():
            window.revived(busy=chance.randint(0, 3))
        assert 1 <= window.size <= 20
