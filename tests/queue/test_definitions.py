"""Retry, window and hourly budgets against their definitions, written out slowly, and against traces known by hand."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from fastmta.config.shaping import ShapingConfig
from fastmta.delivery.shaping import Rule, spread
from fastmta.policy.limits import local_table
from fastmta.queue.concurrency import Window
from fastmta.queue.retry import JITTER, RetryPolicy

# --- the window: Postfix's qmgr, feedback 1/N with hysteresis ---


class Defined:
    """The definition, in exact numbers."""

    def __init__(self, initial, limit, cohorts):
        self.initial, self.limit, self.cohorts = min(initial, limit), limit, cohorts
        self.window, self.success, self.failure, self.failed_cohorts = self.initial, Fraction(0), Fraction(0), 0

    def succeeded(self, busy):
        self.failed_cohorts = Fraction(0)
        if self.window < self.limit and self.window < busy + self.initial:
            n = self.window
            self.success += Fraction(1, n)
            while self.success + Fraction(1, 2 * n) >= 1:
                self.window, self.failure, self.success = (
                    min(self.window + 1, self.limit),
                    Fraction(0),
                    self.success - 1,
                )

    def failed(self):
        n = self.window
        self.failed_cohorts += Fraction(1, n)
        if self.cohorts and self.failed_cohorts >= self.cohorts:
            return True
        if n > 1:
            self.failure -= Fraction(1, n)
            while self.failure - Fraction(1, 2 * n) < 0:
                self.window, self.success, self.failure = max(self.window - 1, 1), Fraction(0), self.failure + 1
        return False

    def revived(self, busy):
        self.window = min(busy, self.limit) if busy else self.initial
        self.success = self.failure = Fraction(0)
        self.failed_cohorts = Fraction(0)


STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 20)), max_size=200)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 10), st.integers(1, 20), st.sampled_from([0, 2, 3]), STEPS)
def test_the_window_is_as_it_is_defined(initial, limit, cohorts, steps):
    window, defined = Window(initial, limit, cohorts), Defined(initial, limit, cohorts)
    for well, busy in steps:
        busy = min(busy, window.size)
        if well:
            window.succeeded(busy)
            defined.succeeded(busy)
        elif window.failed() | defined.failed():
            window.revived(busy)
            defined.revived(busy)
        assert window.size == defined.window


def test_a_known_trace_of_the_window():
    """Start 5, limit 20, always full: N successes for the next place; then failures, each a step down at first."""
    window, sizes = Window(5, 20, 1), []
    for _ in range(5 + 6 + 7):
        window.succeeded(window.size)
        sizes.append(window.size)
    assert sizes == [5] * 4 + [6] * 6 + [7] * 7 + [8]
    down = []
    for _ in range(4):
        assert not window.failed()
        down.append(window.size)
    assert down == [7, 7, 7, 7]  # one at once, the next after as many failures as the window has places


# --- the retry rule: the age of the message, between two bounds, with a tenth of chance upwards ---


@given(st.floats(0, 1e6), st.floats(1, 4000), st.floats(1, 50), st.integers(1, 50), st.floats(0, 1), st.floats(0, 1e5))
def test_the_delay_is_as_it_is_defined(age_s, least_s, factor, attempts, chance, asked_s):
    most_s = least_s * factor
    policy = RetryPolicy(minimal_backoff_s=least_s, maximal_backoff_s=most_s)
    delay_s = policy.delay_s(age_s, attempts, chance, asked_s)
    base_s = asked_s if 0 < asked_s <= most_s else sorted((least_s, age_s, most_s))[1]
    assert base_s <= delay_s <= base_s * (1 + JITTER) * 1.000001
    assert policy.delay_s(age_s * 2, attempts, chance) >= policy.delay_s(age_s, attempts, chance)


def test_a_known_trace_of_retries():
    """Postfix's defaults without chance: the age doubles up to 4,000 s, and five days end with the 113th try."""
    policy, age_s, tries = RetryPolicy(), 0.0, []
    while True:
        tries.append(age_s)
        if policy.is_expired(age_s, b"ann@example.org"):
            break
        age_s += policy.delay_s(age_s, len(tries), 0.0)
    assert tries[:9] == [0, 300, 600, 1200, 2400, 4800, 8800, 12800, 16800]
    assert len(tries) == 113 and 432_000 <= tries[-1] < 436_000


# --- an hour's budget ---


def test_known_budgets():
    assert [spread(n) for n in (1, 59, 60, 90, 600, 3600, 7200)] == [
        (1, 3600),
        (1, 62),
        (1, 60),
        (1, 40),
        (1, 6),
        (1, 1),
        (2, 1),
    ]


@given(st.integers(1, 1_000_000_000))
def test_the_pieces_of_an_hour_are_never_more_than_it_nor_much_less(messages):
    most, seconds = spread(messages)
    in_all = Fraction(most * 3600, seconds)
    assert in_all <= messages
    assert in_all >= messages * Fraction(9, 10) or messages < 60


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5000), st.lists(st.floats(0.01, 90), min_size=1, max_size=300))
def test_no_hour_has_more_than_its_budget_and_the_piece_under_way(messages, gaps):
    now, taken = 1000.0, []
    rule = Rule(ShapingConfig(domain=("b.test",), messages_per_hour=messages), local_table(), lambda: now)
    for gap in gaps:
        now += gap
        while not rule.take(0):
            taken.append(now)
    most, _ = spread(messages)
    for at in taken:
        assert sum(at <= each < at + 3600 for each in taken) <= messages + most
