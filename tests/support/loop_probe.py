"""How much processor time one pass of a worker's loop takes, measured inside the worker (support/probe/).

It is the thread's own time, so it is the same on a busy machine: a pass that holds the loop for 50 ms of work is seen
as that, and one that was only not scheduled is not.
"""

import contextlib
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.support.server import REPOSITORY


class Passes(NamedTuple):
    """What was measured. `most_ms`: the longest pass; `worked_ms`: all of them."""

    count: int
    most_ms: float
    worked_ms: float


class LoopProbe:
    """For a server of one worker: start it with `environment`, then `measure` around whatever it is to do."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(bytes(32))
        self._path = path
        with path.open("r+b") as file:
            self._cells = memoryview(mmap.mmap(file.fileno(), 32)).cast("Q")

    @property
    def environment(self) -> Mapping[str, str]:
        probe = Path(__file__).parent / "probe"
        return {"FASTMTA_TEST_LOOP_PROBE": str(self._path), "PYTHONPATH": f"{probe}:{REPOSITORY}"}

    @contextlib.contextmanager
    def measuring(self) -> Iterator[None]:
        cells = self._cells
        cells[1] = cells[2] = cells[3] = 0
        cells[0] = 1
        try:
            yield
        finally:
            cells[0] = 0

    @property
    def passes(self) -> Passes:
        return Passes(self._cells[2], self._cells[1] / 1e6, self._cells[3] / 1e6)
