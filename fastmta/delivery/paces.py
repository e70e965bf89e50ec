"""What destinations have asked for (queue/tuning.py), kept in a file of each worker, so that a restart forgets nothing.

A file is written some seconds after a change, whole, in a thread, and put in the place of the one before; what cannot
be read or written is as good as forgotten, and mail never waits for it. Each worker reads the files of all when it
starts, since a hop may have another owner by then.
"""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from fastmta.delivery.seams import Tasks
from fastmta.model.limits import PACES_BYTES, PACES_KEPT, PACES_WRITTEN_S
from fastmta.queue.tuning import Pace
from fastmta.runtime.clock import Clock

FOLDER: Final = "tuning"


class Kept(msgspec.Struct, array_like=True, gc=False):
    """One destination's pace. `at_s`: of its last change, by the wall clock."""

    per_second: float
    too_much: float
    at_s: float
    why: str


class Paces:
    """The paces that a worker knows."""

    def __init__(self, directory: Path, slot: int, clock: Clock, kept_s: float, tell: Callable[[str], None]) -> None:
        """`kept_s`: after which one is forgotten; `tell` hears why the file cannot be written."""
        self._directory = directory / FOLDER
        self._path = self._directory / f"{slot}.json"
        self._clock = clock
        self._kept_s = kept_s
        self._tell = tell
        self._known: dict[str, Kept] = {}
        self._changed = False
        self._written_at = clock.monotonic()
        self._load()

    def pace_of(self, hop: str) -> Pace:
        """The pace of a destination as it was left."""
        kept = self._known.get(hop)
        age_s = self._clock.now() - kept.at_s if kept is not None else 0.0
        if kept is None or not 0 <= age_s < self._kept_s:
            return Pace()
        return Pace.restored(kept.per_second, kept.too_much, kept.why, self._clock.monotonic() - age_s)

    def note(self, hop: str, pace: Pace) -> None:
        """A pace has changed."""
        self._changed = True
        self._known.pop(hop, None)
        if pace.per_second and len(self._known) < PACES_KEPT:
            self._known[hop] = Kept(pace.per_second, pace.too_much, self._clock.now(), pace.why)

    def look(self, tasks: Tasks) -> None:
        """Once a second: has the file written where that is due."""
        now = self._clock.monotonic()
        if self._changed and now - self._written_at >= PACES_WRITTEN_S:
            tasks.spawn("delivery keeps paces", self._write_beside(now))
            self._changed = False

    def close(self) -> None:
        """Writes what is not written."""
        if self._changed:
            self._changed = False
            self._write(self._encoded())

    async def _write_beside(self, now: float) -> None:
        self._written_at = now
        await asyncio.to_thread(self._write, self._encoded())

    def _encoded(self) -> bytes:
        oldest = self._clock.now() - self._kept_s
        self._known = {hop: kept for hop, kept in self._known.items() if kept.at_s > oldest}
        return msgspec.json.encode(self._known)

    def _write(self, data: bytes) -> None:
        temporary = self._path.with_suffix(f".{os.getpid()}")
        try:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            temporary.write_bytes(data)
            temporary.replace(self._path)
        except OSError as error:
            self._tell(str(error))

    def _load(self) -> None:
        for path in sorted(self._directory.glob("*.json"))[:64]:
            try:
                with open(path, "rb") as file:
                    found = msgspec.json.decode(file.read(PACES_BYTES), type=dict[str, Kept])
            except (OSError, msgspec.MsgspecError):
                continue
            for hop, kept in found.items():
                known = self._known.get(hop)
                if known is None or known.at_s < kept.at_s:
                    self._known[hop] = kept
