"""Collections of all garbage: rare, whatever comes; in a process of its own, for they are a whole process's."""

import subprocess
import sys

import pytest

_BEGIN = """
import gc
from fastmta.model.limits import GARBAGE_MOST, GARBAGE_S
from fastmta.runtime import garbage

garbage.YOUNG = 7
EVERY = 8 * (garbage.GENERATION + 1)  # objects, of which many times are an occasion

def whole():
    return gc.get_stats()[2]["collections"]

made = garbage.Garbage()
made.begin(100.0)
begun = whole()
kept = []

def grow(times):
    for _ in range(times * EVERY):
        kept.append([])
"""


@pytest.mark.parametrize(
    "then",
    [
        "grow(50); assert whole() == begun, 'one that nobody asked for'",
        "grow(50); made.look(100.5); assert whole() == begun, 'in the middle of what makes them'",
        "made.look(100.0 + GARBAGE_S); assert whole() == begun, 'without need'",
        "grow(50); made.look(100.0 + GARBAGE_S); assert whole() == begun + 1",
        "grow(50); made.look(110.0); grow(50); made.look(111.0); assert whole() == begun + 1, 'soon after the last'",
        "grow(GARBAGE_MOST + 20); made.look(100.5); assert whole() == begun + 1, 'very much waits for nothing'",
        "import weakref\nclass Ring: pass\nring = Ring(); ring.own = ring; told = weakref.ref(ring); del ring\n"
        "grow(50); assert told() is None, 'young garbage is collected as ever'",
    ],
)
def test_all_garbage_is_collected_once_in_a_while(then: str) -> None:
    done = subprocess.run([sys.executable, "-c", _BEGIN + then], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
