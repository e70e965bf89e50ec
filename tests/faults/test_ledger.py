"""Nothing that was answered 250 is lost, under five rounds of kill -9; `make faults` does many more."""

import os

import pytest

from tests.faults import ledger

ROUNDS = 5


@pytest.mark.timeout(300)
def test_what_was_promised_is_delivered_whatever_is_killed() -> None:
    seed = int(os.environ.get("FASTMTA_SEED") or int.from_bytes(os.urandom(3), "big"))
    rounds = int(os.environ.get("FASTMTA_LEDGER_ROUNDS") or ROUNDS)
    problems = ledger.run(rounds, seed, load_s=0.7)
    assert not problems, "\n".join(problems)
