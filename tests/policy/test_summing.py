"""What several checks' verdicts come to."""

import pytest

from fastmta.model.verdict import Outcome, Verdict
from fastmta.policy.summing import note

Cuts = tuple[tuple[int, int], ...]


@pytest.mark.parametrize(
    ("first", "second", "both"),
    [
        (((20, 10),), ((0, 10),), ((0, 10), (20, 10))),
        (((0, 40),), ((10, 10), (50, 5)), ((0, 40), (50, 5))),
        (((0, 20), (30, 5)), ((15, 10), (25, 5)), ((0, 35),)),
        (((0, 12),), ((0, 12), (0, 12)), ((0, 12),)),
    ],
)
def test_cuts_of_several_checks_are_in_order_and_apart(first: Cuts, second: Cuts, both: Cuts) -> None:
    outcome = Outcome()
    note(outcome, Verdict(cuts=first))
    note(outcome, Verdict(cuts=second))
    assert outcome.cuts == both
