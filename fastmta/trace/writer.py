"""Writes the trace: lines are gathered on the loop and appended a second later, in another thread.

The hot path only puts an object into a list. A process that is killed loses what the last second has told of; mail
never depends on any of it: where the disk is full or fails, lines are dropped and counted, and mail goes on. Nothing is
ever synced to the disk.

All files together take at most `size_bytes` (0: no bound) and one part more; `retention_s` 0: nothing is traced.
"""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fastmta._intake import Lines
from fastmta.model.limits import (
    TRACE_GATHERED_BYTES,
    TRACE_GATHERED_S,
    TRACE_GIVEN_BACK_BYTES,
    TRACE_PART_SHARE,
    TRACE_PRUNE_S,
    TRACE_UNLIMITED_BYTES,
)
from fastmta.runtime.log import Log
from fastmta.runtime.metrics import METRICS, Cells
from fastmta.trace.files import FOLDER, PARTS, Part, day_of, give_back, parts, prune

_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Trace:
    """One process's pen. `add` belongs to the loop's thread."""

    def __init__(
        self,
        directory: Path,
        log: Log,
        cells: Cells,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._log = log
        self._cells = cells
        self._loop = loop
        self._now = now
        self._gathered = Lines(self._begun, self._full, TRACE_GATHERED_BYTES)
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None
        self._part = Part("", 0)
        self._fd = -1
        self._torn = False  # the file ends within a line
        self._silent = False  # a failure has been told, and not ended
        self._prune_at = 0.0
        self._gives_back = False  # there may be pruned files that still take room
        self.reserve_bytes = 0  # of the disk, which the trace leaves to mail
        self.retention_s = 0.0
        self.size_bytes = 0

    def configure(self, retention_s: float, size_bytes: int) -> None:
        """Takes over settings, and has the log's events from now on, or no more."""
        self.retention_s = retention_s
        self.size_bytes = size_bytes
        self._prune_at = 0.0
        self._log.trace = self._gathered if retention_s else None

    def add(self, lines: bytes) -> None:
        """One line or several, each with its newline."""
        self._gathered.add(lines)

    def _begun(self) -> None:
        if self._loop is None:
            self.flush()
        elif self._timer is None:
            self._timer = self._loop.call_later(TRACE_GATHERED_S, self._due)

    def _full(self) -> None:
        if self._writing is None:
            self._due()

    def _due(self) -> None:
        assert self._loop is not None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is not None:  # the disk is slow: what has come meanwhile waits, up to a bound
            if self._gathered.size > 4 * TRACE_GATHERED_BYTES:
                self._drop(self._gathered.take())
            self._timer = self._loop.call_later(TRACE_GATHERED_S, self._due)
            return
        lines = self._gathered.take()
        if lines:
            self._writing = self._loop.run_in_executor(None, self._write, lines)
            self._writing.add_done_callback(self._written)

    def _written(self, writing: asyncio.Future[None]) -> None:
        self._writing = None
        if not writing.cancelled() and (error := writing.exception()) is not None:
            self._log.error("trace.failed", error=str(error))

    async def flushed(self) -> None:
        """Returns when everything that was told up to now can be read."""
        while self._writing is not None:
            await asyncio.wait([self._writing])
        self.flush()

    def flush(self) -> None:
        """Writes what was gathered, in this thread."""
        if lines := self._gathered.take():
            self._write(lines)

    def close(self) -> None:
        """The last of this process. Nothing may be on its way (`flushed`)."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.flush()
        self._close_file()

    # --- in another thread, one call at a time ---

    def _write(self, lines: bytes) -> None:
        try:
            now = self._now()
            if now >= self._prune_at:
                self._prune_at = now + TRACE_PRUNE_S
                self._prune()
            if self._gives_back:
                self._give_back()
            fd = self._file(now)
            disk = os.fstatvfs(fd)
            if disk.f_bavail * disk.f_frsize < self.reserve_bytes:
                raise OSError(28, "what is left of the disk is kept for mail")
            data = b"\n" + lines if self._torn else lines
            written = os.write(fd, data)
            self._torn = False
            if written < len(data):
                lines = data[written:]
                raise OSError(28, "no space left")
        except OSError as error:
            self._drop(lines)
            self._close_file()
            if not self._silent:
                self._silent = True
                self._log.warning("trace.stopped", cause=error.strerror, effect="mail goes on, untraced")
            return
        if self._silent:
            self._silent = False
            self._log.warning("trace.resumed")

    def _file(self, now: float) -> int:
        """Today's last part, or a new one where that is full."""
        day = day_of(now)
        most = max((self.size_bytes or TRACE_UNLIMITED_BYTES) // TRACE_PART_SHARE, 1)
        if self._fd >= 0 and self._part.day == day:
            found = os.fstat(self._fd)
            if self._is_there(found) and (found.st_size < most or self._part.number == PARTS - 1):
                return self._fd
        known = [part.number for part in parts(self._directory) if part.day == day]
        number = max(known, default=0)
        self._open(Part(day, number))
        if os.fstat(self._fd).st_size >= most and number < PARTS - 1:
            self._open(Part(day, number + 1))
            self._prune()
        return self._fd

    def _is_there(self, found: os.stat_result) -> bool:
        """Whether the open file, of which this is found, still has its name: another process may have pruned it."""
        try:
            return os.path.samestat(found, os.stat(self._directory / FOLDER / self._part.name))
        except FileNotFoundError:
            return False

    def _open(self, part: Part) -> None:
        self._close_file()
        folder = self._directory / FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        self._fd = os.open(folder / part.name, _FLAGS, 0o600)
        self._part = part
        size = os.fstat(self._fd).st_size
        self._torn = size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"

    def _close_file(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _prune(self) -> None:
        self._gives_back = True  # what another process began, which was killed, too
        try:
            prune(self._directory, self._now(), self.retention_s, self.size_bytes)
        except OSError as error:
            self._log.warning("trace.not_pruned", cause=error.strerror)

    def _give_back(self) -> None:
        """A piece of what was pruned: more than is written at once, so that the bound holds in the long run."""
        self._gives_back = False
        try:
            self._gives_back = give_back(self._directory, TRACE_GIVEN_BACK_BYTES)
        except OSError as error:
            self._log.warning("trace.not_pruned", cause=error.strerror)

    def _drop(self, lines: bytes) -> None:
        self._cells[METRICS.trace_dropped_total] += lines.count(b"\n")
