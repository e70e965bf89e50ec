"""The speed of a destination that asks for less: halved once for each lot of refusals, raised again slowly."""

import random

import pytest

from fastmta.queue.tuning import FLOOR, RAISE_S, SETTLE_S, Pace


def test_nothing_is_limited_until_somebody_says_so():
    pace = Pace()
    for n in range(1000):
        pace.begun(n * 0.01)
        assert pace.next_at == 0.0 and not pace.eased(n * 0.01)


def test_a_lot_of_refusals_counts_once_and_halves_what_was_sent():
    pace = Pace()
    for n in range(600):
        pace.begun(n * 0.1)
    assert pace.slowed(60.0, "less") and pace.per_second == pytest.approx(5.0, rel=0.1)
    for n in range(100):
        assert not pace.slowed(60.0 + n * SETTLE_S / 101, "less")
    assert pace.slowed(60.0 + SETTLE_S, "still") and pace.per_second == pytest.approx(2.5, rel=0.1)
    assert pace.why == "still"


def test_one_message_a_minute_is_always_tried():
    pace = Pace()
    now = 0.0
    for _ in range(100):
        pace.begun(now)
        pace.slowed(now, "less")
        assert pace.per_second >= FLOOR and pace.next_at <= now + 61.0
        now += SETTLE_S


def test_it_is_raised_by_successes_alone_and_gone_in_the_end():
    pace = Pace()
    for n in range(60):
        pace.begun(float(n))
    pace.slowed(60.0, "less")
    now, steps = 60.0, 0
    while pace.per_second:
        assert not pace.eased(now + RAISE_S / 2)
        now += RAISE_S
        pace.eased(now)
        steps += 1
    assert 10 <= steps <= 20 and pace.next_at == 0.0 and not pace.why


def test_what_is_long_ago_is_forgotten():
    pace = Pace()
    pace.begun(0.0)
    pace.slowed(0.0, "less")
    assert not pace.forgotten(3599.0, 3600.0) and pace.forgotten(3600.0, 3600.0) and not pace.per_second


@pytest.mark.parametrize("seed", range(50))
def test_beside_a_server_with_a_limit_few_are_refused_and_most_of_it_is_used(seed):
    """The server takes so many a minute, and says so; nobody knows how many but by asking."""
    chance = random.Random(seed)
    limit = chance.choice([0.2, 1.0, 3.0, 10.0])
    pace = Pace()
    now, tokens, filled = 0.0, limit * 60, 0.0
    taken, refused = [], []
    while now < 4 * 3600.0:
        tokens = min(limit * 60, tokens + (now - filled) * limit)
        filled = now
        pace.begun(now)
        if tokens >= 1:
            tokens -= 1
            taken.append(now)
            pace.eased(now)
        else:
            refused.append(now)
            pace.slowed(now, "less")
        now = max(now + chance.uniform(0.005, 0.05), pace.next_at)
    late_taken = sum(at >= 3600.0 for at in taken)
    late_refused = sum(at >= 3600.0 for at in refused)
    assert late_taken >= 0.3 * limit * 3 * 3600.0
    assert late_refused <= 0.2 * late_taken
