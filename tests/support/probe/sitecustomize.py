"""In a worker of a test's server: how much processor time the passes of its loop take (tests/support/loop_probe.py)."""

import mmap
import os
import time

_PATH = os.environ.get("FASTMTA_TEST_LOOP_PROBE", "")
_LOOK_S = 0.005


def _watch(loop):
    """Measures while the test says so. Asked for in every pass, so the loop never sleeps meanwhile."""
    with open(_PATH, "r+b") as file:
        cells = memoryview(mmap.mmap(file.fileno(), 32)).cast("Q")
    last = 0

    def look():
        nonlocal last
        now = time.thread_time_ns()
        if not cells[0]:
            last = 0
            loop.call_later(_LOOK_S, look)
            return
        if last:
            cells[1] = max(cells[1], now - last)
            cells[2] += 1
            cells[3] += now - last
        last = now
        loop.call_soon(look)

    look()


if _PATH:
    import uvloop

    _new_event_loop = uvloop.new_event_loop

    def _watched():
        loop = _new_event_loop()
        with open("/proc/self/comm") as file:
            if file.read().startswith("fastmta-w"):
                loop.call_soon(_watch, loop)
        return loop

    uvloop.new_event_loop = _watched
