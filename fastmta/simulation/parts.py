"""A worker's delivery in a box: router, directory, queue, scheduler, connections and recorder are the real ones; the
clock, the network, the name servers and the committer's signal are made.

The store is the real one too, with its records in memory; its commits happen on the virtual clock (store/virtual.py).
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from fastmta.config.schema import Config
from fastmta.delivery.answers import Answers
from fastmta.delivery.routing import Router
from fastmta.delivery.service import DeliveryService
from fastmta.directory.recipients import Directory
from fastmta.dns.resolver import Resolver
from fastmta.queue.ownership import partitions_of
from fastmta.runtime.log import Log
from fastmta.runtime.metrics import Cells, local_cells
from fastmta.runtime.tasks import Sweep, Tasks
from fastmta.runtime.turns import Turns
from fastmta.simulation.loop import VirtualLoop
from fastmta.simulation.names import Zone, ZoneResolver
from fastmta.store import MailStore
from fastmta.store.virtual import VirtualStore
from fastmta.tls.contexts import Contexts

_WORK_NS: Final = 20_000  # what a pass of the loop is taken to have worked between two looks at the clock
_FAR_S: Final = 1e9
_FAR_MS: Final = 2**62


class VirtualClock:
    """The loop's time, and a wall clock that somebody may set."""

    def __init__(self, loop: VirtualLoop, now: float) -> None:
        self._loop = loop
        self._offset = now - loop.time()

    def now(self) -> float:
        return self._loop.time() + self._offset

    def monotonic(self) -> float:
        return self._loop.time()

    def step(self, seconds: float) -> None:
        """Somebody sets the wall clock; no time passes."""
        self._offset += seconds


class Worked:
    """A clock of work done, in nanoseconds: time that passes while the loop's stands still."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._worked = 0

    def __call__(self) -> int:
        self._worked += _WORK_NS
        return int(self._loop.time() * 1e9) + self._worked


class LineLog(Log):
    """A log whose lines are taken by a function, with the virtual clock's instants."""

    def __init__(self, clock: VirtualClock, take: Callable[[bytes], None]) -> None:
        super().__init__(-1)
        self._clock = clock
        self._take = take

    def timestamp(self) -> str:
        return stamp(self._clock.now())

    def flush(self) -> None:
        lines = self.gathered.take()
        if lines:
            self._take(lines)


def stamp(at: float) -> str:
    """An instant in UTC, to the millisecond, as lines of the log have it."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


class Parts:
    """One worker: what delivery is given, and the service. `start`, then `stop` or `kill`."""

    slot = 0
    slots = 1
    launcher: Any = None  # no program is started
    site_policy: Any = None
    verifier: Any = None

    def __init__(
        self,
        config: Config,
        store: VirtualStore,
        loop: VirtualLoop,
        clock: VirtualClock,
        zone: Zone,
        take_line: Callable[[bytes], None],
        answers: Path | None = None,
    ) -> None:
        """`answers`: where notes of next hops' answers are kept, for whoever comes after a kill."""
        self.config = config
        self.store: MailStore = store
        self.loop = loop
        self.clock = clock
        self.cells: Cells = local_cells()
        self.log = LineLog(clock, take_line)
        self.router = Router(config)
        self.directory = Directory(config, store, self.router, clock=clock)
        self.contexts = Contexts(config.tls)
        self.tasks = Tasks(self.log)
        self.sweep = Sweep(loop)
        self.turns = Turns(loop)
        self.resolver: Resolver = ZoneResolver(loop, zone)
        self.service = DeliveryService(
            self,
            Answers(answers) if answers is not None else None,
            resolver=lambda: ZoneResolver(loop, zone),
            now_ns=Worked(loop),
        )
        self.looks: list[Callable[[], None]] = [self.service._tick, self.sweep._run]  # once a second, whatever happens
        self._partitions = partitions_of(0, 1)

    async def offload(self, operation: Callable[..., Any], *arguments: Any) -> Any:
        return operation(*arguments)

    def start(self) -> None:
        self.store.observer = lambda mailboxes, hops: self.service.hops_changed(hops)
        self.loop.ahead = self.ahead
        self.service.start()

    async def stop(self) -> None:
        await self.service.stop(600.0)
        await self.tasks.close()
        self.sweep.close()

    def ahead(self, at: float) -> float:
        """The loop may go on at the instant of the next thing that happens: while nothing is under way, the looks that
        delivery takes once a second find nothing.
        """
        service = self.service
        if service.connections or service.unrecorded or len(self.tasks) or service.status()["in_flight"]:
            return at
        looks = self.looks
        until = min(
            (handle.when() for handle in self.loop.timers() if handle._callback not in looks),  # type: ignore[attr-defined]
            default=at + _FAR_S,
        )
        due_ms = self.store.queue.next_due(self._partitions)
        if due_ms is not None and due_ms <= self.clock.now() * 1000 and len(service._suspended):
            rows = self.store.queue.hops(self._partitions, _FAR_MS)
            due_ms = next((due for due, hop in rows if hop not in service._suspended), None)
        if due_ms is not None:
            until = min(until, self.loop.time() + due_ms / 1000 - self.clock.now())
        for owner in service.owners:
            until = min(until, getattr(owner, "_dead_until", until) or until)
        return at + max(0, int(until - at))  # whole seconds: looks stay where they were


def seeded(seed: int) -> random.Random:
    """The randomness of a simulation; the program's own draws are from it too."""
    random.seed(seed)
    return random.Random(seed)
