"""Nothing that was answered 250 before a power cut is lost; `make faults` cuts many more times."""

import os

import pytest

from tests.faults import power_cut

LONG_CUTS = 20


def test_what_was_promised_survives_a_power_cut() -> None:
    reason = power_cut.missing()
    if reason:
        pytest.skip(reason)
    first = int(os.environ.get("FASTMTA_SEED") or int.from_bytes(os.urandom(3), "big"))
    for seed in range(first, first + (LONG_CUTS if os.environ.get("FASTMTA_LONG") else 1)):
        judged, problems = power_cut.cut_once(seed)
        assert not problems, "\n".join([f"seed {seed}", *problems])
        assert judged > 0


def test_the_cut_finds_out_a_server_that_does_not_flush() -> None:
    reason = power_cut.missing()
    if reason:
        pytest.skip(reason)
    _, problems = power_cut.cut_once(1, sync=False)
    assert problems
