"""The workers of a server: their generations, their ranges of counters, their deaths and their successors.

A *generation* is the set of workers started for one number of workers and one [listen] table. While a new one takes
over, the old one stops accepting, releases its hops and lets its sessions end. The new one walks its hops only when
every process before it has released its own or been reaped, because with another number of workers the hops are dealt
out anew; within a generation a slot's next process starts only after the last one was reaped.

Sessions of two older generations are kept, so that a change of `workers` and then of [listen] ends no idle session; a
third change ends those of the oldest first, since each generation costs the memory of its processes.
"""

import os
import signal
import time
from collections.abc import Callable
from selectors import EVENT_READ, BaseSelector
from typing import Any, Final, Protocol

from fastmta.policy.limits import LimitMemory
from fastmta.runtime.board import Board
from fastmta.runtime.identity import WorkersUser
from fastmta.runtime.log import Log
from fastmta.runtime.metrics import HEARTBEAT, METRICS, Cells, SharedCells, reset_gauges
from fastmta.supervisor.channel import MESSAGE_FDS, Channel
from fastmta.supervisor.listeners import Endpoint, Listeners, close_endpoint
from fastmta.supervisor.owning import POLL_S, HopsLock
from fastmta.supervisor.process import EX_CONFIG, Worker, sealed_copy, start
from fastmta.supervisor.slots import Restarts
from fastmta.supervisor.watchdog import Watchdog
from fastmta.supervisor.worker import EX_IOERR, Build, Spec, run

RANGES: Final = 4096  # 16 MB of address space; only those that were used cost memory
GENERATIONS: Final = 3  # alive at once, the newest included
STOP_S: Final = 20.0  # for a worker that was told to stop, before it is killed


class PoolConfig(Protocol):
    """What the pool reads of the configuration."""

    @property
    def reload_drain_time(self) -> float: ...
    @property
    def worker_watchdog(self) -> float: ...


class Pool:
    """Starts, watches and replaces workers. `on_message` gets what the pool itself has no use for."""

    def __init__(
        self,
        build: Build,
        config_path: str,
        listeners: Listeners,
        hops_lock: HopsLock,
        selector: BaseSelector,
        log: Log,
        on_message: Callable[[Worker, dict[str, Any]], None],
        launcher_fd: int,
    ) -> None:
        """`launcher_fd`: the workers' end of the socket of who starts commands; not ours to close."""
        self._build = build
        self._config_path = config_path
        self._listeners = listeners
        self._hops_lock = hops_lock
        self._hops_free = False  # no worker of a server before this one walks hops any more
        self._hops_looked_at = 0.0
        self._selector = selector
        self._log = log
        self._on_message = on_message
        self._launcher_fd = launcher_fd
        self.shared = SharedCells.create(RANGES)
        self._limits = LimitMemory(RANGES)
        self.board: Cells = self.shared.range(0)
        self.board[Board.LAYOUT] = METRICS.layout
        self.board[Board.STARTED_AT_S] = int(time.time())
        self.board[Board.RANGES_USED] = 1
        self._free_ranges = list(range(RANGES - 1, 0, -1))
        self.workers: list[Worker] = []
        self.generation = 0
        self.slots = 0
        self.user: WorkersUser | None = None
        self.private_files: dict[str, str] = {}  # configuration key -> path that only we can read
        self._restarts: dict[int, Restarts] = {}
        self._restart_at: dict[int, float] = {}
        self._started: set[int] = set()
        self._adopted: dict[int, Worker] = {}  # slot that waits -> worker that accepts for it
        self._leftover: list[Endpoint] = []  # no longer listed; open until the old generation has let go
        self._drain_s = 600.0
        self._watchdog = Watchdog(self.shared.range, log, self._stuck_changed)
        self.stopping = False
        self.failed_code: int | None = None

    # --- generations ---

    def start_generation(self, slots: int, leftover: list[Endpoint]) -> None:
        """Starts `slots` workers; those that run already are told to drain once the new ones are ready."""
        self.generation += 1
        self.slots = slots
        self._leftover += leftover
        self.board[Board.SLOTS] = slots
        self._restart_at.clear()
        for slot in list(self._adopted):
            self._unadopt(slot)
        for slot in range(slots):
            self._spawn(slot)

    @property
    def current(self) -> list[Worker]:
        """The workers of the newest generation."""
        return [w for w in self.workers if w.generation == self.generation]

    @property
    def old(self) -> list[Worker]:
        """Those of the generations before, still there."""
        return [w for w in self.workers if w.generation != self.generation]

    @property
    def crowded(self) -> bool:
        """Whether the oldest generation has to leave before another can start."""
        return len({w.generation for w in self.workers} | {self.generation}) >= GENERATIONS

    def stop_oldest(self) -> None:
        """Ends the oldest generation."""
        oldest = min((w.generation for w in self.old), default=0)
        for worker in self.old:
            if worker.generation == oldest:
                self.stop_worker(worker)

    @property
    def all_ready(self) -> bool:
        """Every slot has a worker that accepts."""
        return sum(w.serves for w in self.current) == self.slots

    def configure(self, config: PoolConfig, user: WorkersUser | None, private_files: dict[str, str]) -> None:
        """What the next worker is given."""
        self._drain_s = config.reload_drain_time
        self._watchdog.limit_s = config.worker_watchdog
        self.user = user
        self.private_files = private_files if user else {}

    def private_fds(self) -> tuple[dict[str, int], list[int]]:
        """Copies of the files that workers may not read, by the place of each in the list of descriptors."""
        places: dict[str, int] = {}
        fds: list[int] = []
        for key, path in self.private_files.items():
            try:
                fds.append(sealed_copy(path))
            except OSError as error:
                self._log.error("tls.unreadable", key=key, path=path, error=error.strerror)
            else:
                places[key] = len(fds) - 1
        return places, fds

    def _spawn(self, slot: int) -> None:
        if self.stopping:
            return
        self._unadopt(slot)
        first = slot not in self._started
        self._started.add(slot)
        number = self._free_ranges.pop()
        self.board[Board.RANGES_USED] = max(self.board[Board.RANGES_USED], number + 1)
        self.shared.range(number)[HEARTBEAT] = 0
        accept = self._listeners.of_slot(slot, self.slots)
        places, private = self.private_fds()
        sockets = [sock.fileno() for _, sock in accept]

        def work(channel: Channel, fds: list[int]) -> int:
            services = [endpoint.address.service for endpoint, _ in accept]
            keys = {key: fds[len(sockets) + place] for key, place in places.items()}
            listeners = list(zip(services, fds[: len(sockets)], strict=True))
            limits = self._limits.table(number)
            spec = Spec(self._config_path, slot, self.slots, self.shared, number, limits, listeners, keys, fds[-1])
            return run(channel, spec, self._build)

        try:
            worker = start(
                work,
                [*sockets, *private, self._launcher_fd],
                slot=slot,
                generation=self.generation,
                range_number=number,
                user=self.user,
                first=first,
            )
        except OSError as error:  # out of processes or memory: the same as a worker that died at once
            self._free_ranges.append(number)
            self._log.error("worker.not_started", slot=slot, error=error.strerror)
            self._restart_at[slot] = time.monotonic() + max(1.0, self._deaths_of(slot).died(time.monotonic()))
            return
        finally:
            for fd in private:
                os.close(fd)
        self.workers.append(worker)
        self._selector.register(worker.channel, EVENT_READ, lambda: self._readable(worker))
        self._log.info("worker.started", slot=slot, worker_pid=worker.pid, generation=self.generation)
        self._settle()

    def _deaths_of(self, slot: int) -> Restarts:
        return self._restarts.setdefault(slot, Restarts())

    # --- messages ---

    def _readable(self, worker: Worker) -> None:
        while True:
            try:
                received = worker.channel.receive()
            except BlockingIOError:
                return
            if received is None:  # it is dying: SIGCHLD tells the rest
                self._unregister(worker)
                return
            message, fds = received
            for fd in fds:
                os.close(fd)
            self._handle(worker, message)

    def _handle(self, worker: Worker, message: dict[str, Any]) -> None:
        match message.get("do"):
            case "ready":
                if worker.state == "starting":
                    worker.state = "ready"
                self._log.info("worker.ready", slot=worker.slot, worker_pid=worker.pid, seconds=message.get("seconds"))
                for slot in self._restart_at:
                    self._adopt(slot)
                self._settle()
            case "released":
                worker.released = True
                self._settle()
            case "store_unreadable" if self.failed_code is None:
                self._log.error("store.unreadable", error=message.get("error"))
                if not any(w.state == "ready" for w in self.workers):
                    self.failed_code = EX_IOERR  # no restart can mend it: who listens on must not seem to serve
            case "store_failed":
                self._log.error("store.failed", slot=worker.slot, worker_pid=worker.pid, error=message.get("error"))
                self.board[Board.STORE_FAILED] = 1
                for other in self.workers:  # the environment is one: all reopen it, and each first checks it
                    self.stop_worker(other)
        self._on_message(worker, message)

    def _settle(self) -> None:
        """Takes the steps that a worker's new state allows: drain the old generation, own its hops, close leftovers."""
        self.board[Board.READY] = sum(w.serves for w in self.current)
        self.board[Board.STUCK] = sum(bool(w.stuck_at) for w in self.current)
        old = self.old
        if old and self.all_ready:
            for worker in old:
                if not worker.leaving:
                    worker.state = "draining"
                    worker.kill_at = time.monotonic() + self._drain_s + STOP_S
                    worker.channel.send("drain", seconds=self._drain_s)
        if all(w.released for w in old):
            for worker in self.current:
                if self._hops_free and not worker.leaving and not worker.owns:
                    share = self._hops_lock.share()
                    worker.owns = worker.channel.send("own", [share])
                    os.close(share)
            if not old or self.all_ready:
                for endpoint in self._leftover:
                    close_endpoint(endpoint)
                self._leftover.clear()

    # --- deaths ---

    def reap(self) -> None:
        """Takes leave of the workers that have died and decides when their successors start."""
        for worker in [w for w in self.workers if w.process.poll() is not None]:
            self._died(worker)

    def _died(self, worker: Worker) -> None:
        code = worker.process.returncode or 0
        expected = worker.leaving
        how: dict[str, Any] = {"signal": signal.Signals(-code).name} if code < 0 else {"exit_code": code}
        tell = self._log.info if expected and code == 0 else self._log.error
        tell(
            "worker.left" if expected and code == 0 else "worker.died",
            slot=worker.slot,
            worker_pid=worker.pid,
            uptime_s=round(time.time() - worker.started_at),
            **how,
        )
        self._unregister(worker)
        worker.channel.close()
        os.close(worker.stack_fd)
        self.workers.remove(worker)
        reset_gauges(self.shared.range(worker.range))
        self._limits.bury(worker.range)
        self._free_ranges.append(worker.range)
        for slot in [slot for slot, by in self._adopted.items() if by is worker]:
            del self._adopted[slot]
            self._adopt(slot)
        if self.board[Board.STORE_FAILED] and not any(w.state == "stopping" for w in self.workers):
            self.board[Board.STORE_FAILED] = 0
        if code == EX_CONFIG and worker.state == "starting" and self.generation == 1 and not self._ever_ready():
            self.failed_code = code
        if worker.generation == self.generation and not self.stopping:
            self.board[Board.RESTARTS] += 1
            now = time.monotonic()
            alone = not any(w.serves for w in self.current)
            wait = self._deaths_of(worker.slot).died(now, alone=alone)
            self._restart_at[worker.slot] = now + wait
            if wait:
                self._log.warning("worker.restart_delayed", slot=worker.slot, seconds=wait)
                self._adopt(worker.slot)
        self._settle()

    def _ever_ready(self) -> bool:
        return any(w.state != "starting" for w in self.workers) or self.board[Board.RESTARTS] > 0

    def _adopt(self, slot: int) -> None:
        """Lets a sibling accept from the sockets of a slot that waits, so nobody hangs in their backlog."""
        siblings = [w for w in self.current if w.serves and w.slot != slot]
        if not siblings or slot in self._adopted or slot >= self.slots:
            return
        accept = [(e, s) for e, s in self._listeners.of_slot(slot, self.slots) if not e.shared]
        for at in range(0, len(accept), MESSAGE_FDS):
            part = accept[at : at + MESSAGE_FDS]
            listeners = [(endpoint.address.service, endpoint.bound) for endpoint, _ in part]
            siblings[0].channel.send("adopt", [s.fileno() for _, s in part], slot=slot, listeners=listeners)
        self._adopted[slot] = siblings[0]

    def _unadopt(self, slot: int) -> None:
        worker = self._adopted.pop(slot, None)
        if worker is not None:
            worker.channel.send("unadopt", slot=slot)

    def _stuck_changed(self, worker: Worker) -> None:
        """A worker's loop stands still, or turns again."""
        if worker.generation == self.generation and not self.stopping:
            if worker.stuck_at:
                for slot in [slot for slot, by in self._adopted.items() if by is worker]:
                    del self._adopted[slot]
                    self._adopt(slot)
                self._adopt(worker.slot)
            else:
                self._unadopt(worker.slot)
        self._settle()

    def _unregister(self, worker: Worker) -> None:
        if worker.channel.fileno() in self._selector.get_map():
            self._selector.unregister(worker.channel)

    # --- time ---

    def next_deadline(self) -> float | None:
        """When `tick` has something to do, in monotonic seconds."""
        times = [*self._restart_at.values(), *(w.kill_at for w in self.workers if w.kill_at)]
        look = self._watchdog.next_look(self.workers)
        times += [look] if look is not None else []
        times += [] if self._hops_free else [self._hops_looked_at + POLL_S]
        return min(times, default=None)

    def tick(self, now: float) -> None:
        """Starts the successors that are due and kills who did not leave in time."""
        if not self._hops_free and now >= self._hops_looked_at + POLL_S:
            self._hops_looked_at = now
            self._hops_free = self._hops_lock.is_free()
            self._settle()
        self._watchdog.look(self.workers, now)
        for slot in [slot for slot, at in self._restart_at.items() if at <= now]:
            del self._restart_at[slot]
            if not self.stopping and slot < self.slots:
                self._spawn(slot)
        for worker in self.workers:
            if worker.kill_at and worker.kill_at <= now:
                self._log.error(
                    "worker.killed", slot=worker.slot, worker_pid=worker.pid, reason="did not leave in time"
                )
                worker.kill_at = 0.0
                worker.process.kill()

    def stop_worker(self, worker: Worker) -> None:
        """Asks a worker to finish its transactions and leave; it is killed if it does not."""
        if worker.state == "stopping":
            return
        worker.state = "stopping"
        worker.kill_at = time.monotonic() + STOP_S
        if not worker.channel.send("stop"):
            worker.process.terminate()

    def stop(self) -> None:
        """Stops all of them; no successor starts any more."""
        self.stopping = True
        self._restart_at.clear()
        for worker in self.workers:
            self.stop_worker(worker)

    def kill(self) -> None:
        """Ends all of them at once: the store needs no goodbye."""
        self.stopping = True
        for worker in self.workers:
            worker.process.kill()

    def broadcast(self, do: str, **fields: Any) -> list[Worker]:
        """Sends a message to every worker of the newest generation that is up, and returns those."""
        reached = []
        for worker in self.current:
            places, private = self.private_fds() if do == "reload" else ({}, [])
            if worker.state == "ready" and worker.channel.send(do, private, private=places, **fields):
                reached.append(worker)
            for fd in private:
                os.close(fd)
        return reached
