"""Waiting for another process to get there: polling with a deadline, never a bare sleep of a guessed length."""

import time
from collections.abc import Callable

import pytest


def wait_for(condition: Callable[[], object], what: Callable[[], str] | str, timeout_s: float = 60.0) -> None:
    """Returns when `condition` is true; fails the test with `what` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s} s: {what if isinstance(what, str) else what()}")
        time.sleep(0.02)
