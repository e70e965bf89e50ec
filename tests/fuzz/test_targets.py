"""The short form of every fuzz target, with a fixed seed: a second or two of inputs, each within its budget."""

import subprocess
import sys
from pathlib import Path

import pytest

TARGETS = sorted(Path(__file__).parent.glob("fuzz_*.py"))


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.stem)
def test_damaged_inputs_are_answered_and_cost_no_more_than_their_budget(target: Path) -> None:
    done = subprocess.run(
        [sys.executable, target, "--seconds", "1", "--seed", "1", *(["--mutate"] if "mime" not in target.stem else [])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
