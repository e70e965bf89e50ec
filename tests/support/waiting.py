"""Waiting for another process to get there: polling with a deadline, never a bare sleep of a guessed length; and what
must be done within a time, on a machine that may be busy with others.
"""

import time
from collections.abc import Callable

import pytest

Clock = Callable[[], float]


def wait_for(condition: Callable[[], object], what: Callable[[], str] | str, timeout_s: float = 60.0) -> None:
    """Returns when `condition` is true; fails the test with `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.02)


def assert_within(limit_s: float, act: Callable[[], object], what: str = "", *, clock: Clock = time.monotonic) -> None:
    """`act`, which can be done again, takes less than that; only once in five times where others use the machine too.

    `clock`: `time.process_time` where the act is this process's alone.
    """
    took = []
    for _ in range(5):
        began = clock()
        act()
        took.append(clock() - began)
        if took[-1] < limit_s:
            return
    pytest.fail(f"{what or 'it'} took {min(took):.3f} s, of {limit_s} s")
