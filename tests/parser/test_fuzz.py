"""The short form of tests/fuzz/fuzz_parser.py, with a fixed seed."""

import subprocess
import sys
from pathlib import Path

TARGET = Path(__file__).parents[1] / "fuzz" / "fuzz_parser.py"


def test_a_second_of_damaged_input() -> None:
    done = subprocess.run(
        [sys.executable, TARGET, "--seconds", "1", "--seed", "1", "--mutate"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
