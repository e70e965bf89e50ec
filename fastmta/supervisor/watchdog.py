"""Whether each worker's loop still turns: its heartbeat, what it hangs in, and when it is given up.

A worker notes the time in its own cells each second, from its loop. One that has not done so for STUCK_S is named in
the log with its Python stack (written by a signal's handler into a descriptor that we share, while the loop is held),
or with the kernel's word where it cannot even take a signal; it counts as not ready, and a sibling accepts for it. One
that stays so for `worker_watchdog` is killed, and then its slot has a new process as after any death.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from fastmta.runtime.log import Log
from fastmta.runtime.metrics import HEARTBEAT, Cells
from fastmta.supervisor.process import STACK_SIGNAL, Worker

LOOK_S: Final = 1.0  # between looks at the heartbeats
STUCK_S: Final = 2.5  # without one: the loop is held; with the look and the stack it is told within 5 s
STACK_S: Final = 0.3  # for the stack to be written
STARTING_S: Final = 8.0  # more for a worker that has not accepted yet
LATE_S: Final = 2.0  # between two looks of our own: then the whole machine stood still, and nobody is judged
STACK_BYTES: Final = 16_384
STACK_FRAMES: Final = 30
_STATES: Final = {"T": "stopped by a signal", "t": "stopped by a tracer", "D": "waiting for a device", "Z": "dead"}


class Watchdog:
    """Looks at all workers once a second. `changed` is called when one became stuck or came back."""

    def __init__(self, cells_of: Callable[[int], Cells], log: Log, changed: Callable[[Worker], None]) -> None:
        self._cells_of = cells_of
        self._log = log
        self._changed = changed
        self._looked_at = 0.0
        self.limit_s = 30.0  # worker_watchdog; 0: never

    def next_look(self, workers: list[Worker]) -> float | None:
        """When `look` is due, in monotonic seconds."""
        if not workers:
            return None
        telling = [w.stuck_at + STACK_S for w in workers if w.stuck_at and not w.stuck_told]
        return min([self._looked_at + LOOK_S, *telling])

    def look(self, workers: list[Worker], now: float) -> None:
        """Judges the heartbeats at `now`, monotonic seconds."""
        for worker in workers:
            if worker.stuck_at and not worker.stuck_told and now >= worker.stuck_at + STACK_S:
                self._tell(worker, now)
        if now < self._looked_at + LOOK_S:
            return
        late = self._looked_at and now - self._looked_at > LOOK_S + LATE_S
        self._looked_at = now
        if not late:
            for worker in workers:
                self._judge(worker, now)

    def _silent_s(self, worker: Worker, now: float) -> float:
        beat = self._cells_of(worker.range)[HEARTBEAT] / 1000
        if worker.state == "starting":
            return now - max(beat, worker.started_monotonic) - STARTING_S
        return now - beat

    def _judge(self, worker: Worker, now: float) -> None:
        silent_s = self._silent_s(worker, now)
        if silent_s < STUCK_S:
            if worker.stuck_at:
                self._log.warning(
                    "worker.recovered",
                    slot=worker.slot,
                    worker_pid=worker.pid,
                    seconds=round(now - worker.stuck_at + STUCK_S),
                )
                worker.stuck_at, worker.stuck_told = 0.0, False
                self._changed(worker)
            return
        if not worker.stuck_at:
            worker.stuck_at = now
            os.ftruncate(worker.stack_fd, 0)
            os.lseek(worker.stack_fd, 0, os.SEEK_SET)  # its file offset is the worker's too
            if state_of(worker.pid)["state"] not in ("T", "t"):  # a stopped one would write it much later
                worker.process.send(STACK_SIGNAL)
            self._changed(worker)
        elif self.limit_s and silent_s >= self.limit_s and not worker.condemned:
            worker.condemned = True
            self._log.error(
                "worker.killed", slot=worker.slot, worker_pid=worker.pid, reason=f"stuck for {silent_s:.0f} s"
            )
            worker.process.kill()

    def _tell(self, worker: Worker, now: float) -> None:
        worker.stuck_told = True
        fields: dict[str, Any] = state_of(worker.pid)
        stack = stack_of(os.pread(worker.stack_fd, STACK_BYTES, 0))
        self._log.error(
            "worker.stuck",
            slot=worker.slot,
            worker_pid=worker.pid,
            silent_s=round(self._silent_s(worker, now), 1),
            replaced_after_s=round(self.limit_s) or None,
            **fields,
            stack=stack or None,
        )


def stack_of(raw: bytes) -> list[str]:
    """What faulthandler wrote, a frame an item, the innermost first: "deliver at fastmta/delivery/owner.py:42"."""
    frames = []
    for line in raw.decode("utf-8", "replace").splitlines():
        line = line.strip()
        if line.startswith('File "'):
            path, _, rest = line.removeprefix('File "').partition('", line ')
            number, _, function = rest.partition(" in ")
            frames.append(f"{function} at {_short(path)}:{number}")
        elif line and frames:
            frames.append(line)  # the next thread's headline
    return frames[:STACK_FRAMES]


def _short(path: str) -> str:
    """Without the place of the installation, which tells nothing."""
    _, found, tail = path.rpartition("/fastmta/")
    return f"fastmta/{tail}" if found else "/".join(Path(path).parts[-2:])


def state_of(pid: int) -> dict[str, str]:
    """The kernel's word on a process: the letter of its state, what that means, and where it waits."""
    try:
        letter = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        waits_in = Path(f"/proc/{pid}/wchan").read_text().strip("0\n")
    except (OSError, IndexError):
        return {"state": "?"}
    out = {"state": letter}
    if letter in _STATES:
        out["process"] = _STATES[letter]
    if waits_in:
        out["waits_in"] = waits_in
    return out


def beat(cells: Cells) -> None:
    """A worker's heartbeat, from its loop."""
    cells[HEARTBEAT] = time.monotonic_ns() // 1_000_000
