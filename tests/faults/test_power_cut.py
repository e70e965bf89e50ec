"""Nothing that was answered 250 before a power cut is lost; `make faults` cuts many more times."""

import os

import pytest

from tests.faults import power_cut


def test_what_was_promised_survives_a_power_cut() -> None:
    reason = power_cut.missing()
    if reason:
        pytest.skip(reason)
    seed = int(os.environ.get("FASTMTA_SEED") or int.from_bytes(os.urandom(3), "big"))
    judged, problems = power_cut.cut_once(seed)
    assert not problems, "\n".join([f"seed {seed}", *problems])
    assert judged > 0
