"""The look at the store after a worker failed, was killed or lost power: beside the mail, not before it.

A thread of its own reads the small tables and the newest messages (store/check.py) in small steps with pauses, so that
clients are served meanwhile; what is damaged is an error to whoever reads it in any case. An operator is told what
was found, and a check that was not finished is made by the next worker.
"""

import asyncio
import threading
import time
from pathlib import Path
from typing import Final

from fastmta.runtime.log import Log
from fastmta.store.check import Report, quick
from fastmta.store.mailstore import MailStore
from fastmta.store.marks import LeftMarks

CHECK_S: Final = 60.0  # at the most, pauses included
PAUSE_S: Final = 0.004  # between two messages, or two thousand rows
CHECK_LINES: Final = 10  # problems that are logged one by one; the rest is counted


class BadEndCheck:
    """One check, where a mark of a dead worker asks for it."""

    def __init__(self, directory: Path, store: MailStore, loop: asyncio.AbstractEventLoop, log: Log) -> None:
        self._store = store
        self._loop = loop
        self._log = log
        self._left = LeftMarks(directory)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        if self._left:
            self._thread = threading.Thread(target=self._run, name="store-check", daemon=True)
            self._thread.start()

    def _clock(self) -> float:
        """Asked between the steps: pauses, and lets the time be up when we must leave."""
        return float("inf") if self._stopping.wait(PAUSE_S) else time.monotonic()

    def _run(self) -> None:
        started = time.monotonic()
        report = quick(self._store, CHECK_S, self._clock)
        if not self._stopping.is_set():
            try:
                self._loop.call_soon_threadsafe(self._tell, report, time.monotonic() - started)
            except RuntimeError:  # the loop has ended: the next worker checks
                return

    def _tell(self, report: Report, seconds: float) -> None:
        for problem in report.problems[:CHECK_LINES]:
            self._log.error("store.problem", problem=problem, remedy="fastmta store check")
        self._log.event(
            "store.checked",
            level="info" if report.is_sound else "error",
            problems=len(report.problems),
            messages=report.blobs,
            complete=report.complete,
            seconds=round(seconds, 3),
        )
        self._left.remove()

    def stop(self) -> None:
        """Ends it, before the store is closed. Blocks for one step."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
