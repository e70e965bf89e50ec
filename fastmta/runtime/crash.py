"""Crash points: FASTMTA_CRASH_AT="name:n" kills this process with SIGKILL at the n-th passage of the named point.

Names: append, commit (inside the store's committer), before_250, after_250, after_remote_250, before_done,
before_spool_unlink, between_units (of a local message of very many recipients).
Used by tests/faults; costs one comparison of a module constant where the variable is not set.
"""

import os
import signal

NAME, _, _count = os.environ.get("FASTMTA_CRASH_AT", "").partition(":")
_remaining = int(_count or "1")


def crash_point(name: str) -> None:
    """Dies here if this is the configured passage. Guard hot calls with `if crash.NAME:`."""
    global _remaining
    if name != NAME:
        return
    _remaining -= 1
    if _remaining <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
