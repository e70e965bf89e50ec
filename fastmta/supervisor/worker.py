"""The life of one worker: it is told what it is, builds everything, accepts, and leaves when it is told to or left
alone.

TERM: stops accepting, finishes transactions for a bounded time, says 421 and `* BYE`. HUP: rereads in place. When the
channel closes the supervisor is gone, and the worker leaves as for TERM, so that a successor can have the data
directory.
"""

import asyncio
import os
import signal
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import msgspec
import uvloop

from fastmta._limits import Table
from fastmta.config.load import load
from fastmta.config.schema import Config
from fastmta.model.errors import ConfigError, FastMTAError, StoreUnreadable
from fastmta.model.events import Actor
from fastmta.policy.networks import Networks
from fastmta.runtime.board import Board
from fastmta.runtime.garbage import Garbage
from fastmta.runtime.launching import Launcher
from fastmta.runtime.log import Log, get_logger
from fastmta.runtime.memory import return_large_blocks
from fastmta.runtime.metrics import METRICS, Cells, SharedCells, reset_gauges
from fastmta.supervisor.acceptor import Acceptor, Factory
from fastmta.supervisor.channel import Channel
from fastmta.supervisor.watchdog import beat

FINISH_S: Final = 10.0  # for transactions under way when we must leave
REREAD_S: Final = 1.0  # between two rereads
GOODBYE_S: Final = 1.0  # for the last replies to reach their sockets
_STOPPING: Final = {"ok": False, "error": "the server is stopping; try again"}
EX_OK: Final = 0
EX_SOFTWARE: Final = 70
EX_IOERR: Final = 74
EX_TEMPFAIL: Final = 75
EX_CONFIG: Final = 78


@dataclass(frozen=True, slots=True)
class Spec:
    """What the supervisor gives a new worker; descriptors are those that it inherits."""

    config_path: str
    slot: int
    slots: int
    shared: SharedCells
    range: int
    limits: Table
    listeners: list[tuple[str, int]]  # service, descriptor
    private: dict[str, int]  # configuration key, descriptor of the file's bytes
    launcher: int  # our end of the socket of who starts commands


@dataclass(slots=True)
class Place:
    """Where a worker finds itself: given to whatever builds the server."""

    config: Config
    slot: int
    slots: int
    cells: Cells
    board: Cells
    shared: SharedCells | None
    limits: Table  # what addresses and accounts hold, of all processes
    loop: asyncio.AbstractEventLoop
    log: Log
    launcher: Launcher  # who starts commands
    accepting: Callable[[], bool] = lambda: False
    ask: Callable[..., Awaitable[dict[str, Any]]] | None = None  # a question to all workers, through the supervisor


class Program(Protocol):
    """What a worker runs; supervisor/build.py makes the real one."""

    @property
    def sessions(self) -> int:
        """Client connections open now."""
        ...

    @property
    def failure(self) -> str:
        """Why no commit can succeed any more, or "": then the worker leaves and a fresh one checks the store."""
        ...

    def factory(self, service: str) -> Factory:
        """Makes the plain session of a service; implicit TLS is the acceptor's."""
        ...

    def server_context(self, service: str) -> ssl.SSLContext | None: ...

    def own(self) -> None:
        """Begin to walk this slot's hops: nobody else does now."""
        ...

    async def release(self, timeout_s: float) -> None:
        """Stop walking them; deliveries under way get `timeout_s` to end."""
        ...

    async def reload(self, config: Config) -> None:
        """Take over changed settings without touching a connection; ConfigError leaves all as it was."""
        ...

    def drain(self) -> None:
        """Tell sessions to end at their next quiet moment."""
        ...

    def close_all(self, reason: str) -> None:
        """End every session now, with its protocol's farewell."""
        ...

    def withdraw(self, keys: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Which of these queued recipients (queue id, n) are being delivered now; the others wait a while."""
        ...

    def hops(self, wanted: list[str]) -> list[dict[str, object]]:
        """The state of these next hops, or of the busiest."""
        ...

    def open_sessions(self, wanted: dict[str, Any]) -> list[dict[str, Any]]:
        """Some of the open sessions that fit, which end where that is wanted (supervisor/sessions.py)."""
        ...

    def act(self, fd: int, actor: Actor, name: str, request: dict[str, Any]) -> None:
        """Does what an administrator asks for and answers on the descriptor, which is the program's to close."""
        ...

    async def flush_trace(self) -> None:
        """Returns when the message trace has all that happened up to now."""
        ...

    def tick(self) -> None:
        """Once a second."""
        ...

    def status(self) -> dict[str, Any]:
        """What `fastmta status` shows of the queue and the store."""
        ...

    async def close(self) -> None: ...


Build = Callable[[Place], Program]


class WorkerLife:
    """One worker from its specification to its exit code."""

    def __init__(self, channel: Channel, spec: Spec, build: Build) -> None:
        self._channel = channel
        self._spec = spec
        self._build = build
        self._log = get_logger()
        self._leave = asyncio.Event()
        self._code = EX_OK
        self._patience_s = FINISH_S
        self._releasing = False
        self._owning: list[int] = []  # our share of the right to walk hops (supervisor/owning.py)
        self._rereading: asyncio.TimerHandle | None = None
        self._reread_at = 0.0
        self._messages: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._questions = 0
        self._garbage = Garbage()

    async def run(self) -> int:
        started = time.monotonic()
        spec = self._spec
        loop = asyncio.get_running_loop()
        return_large_blocks()
        self._board = spec.shared.range(0)
        self._cells = spec.shared.range(spec.range)
        reset_gauges(self._cells)
        self._log.attach(loop, self._cells, slot=spec.slot, pid=os.getpid())
        loop.set_exception_handler(self._callback_failed)
        try:
            self._config = self._load(spec.private)
            self._log.set_level(self._config.log_level)
            place = Place(
                config=self._config,
                slot=spec.slot,
                slots=spec.slots,
                cells=self._cells,
                board=self._board,
                shared=spec.shared,
                limits=spec.limits,
                loop=loop,
                log=self._log,
                launcher=Launcher(spec.launcher),
                ask=self._ask,
            )
            self._program = self._build(place)
        except ConfigError as error:
            self._log.error("config.rejected", error=str(error))
            return EX_CONFIG
        except StoreUnreadable as error:
            self._channel.send("store_unreadable", error=str(error))  # the supervisor says it once for all workers
            return EX_IOERR
        except FastMTAError as error:
            self._log.error("worker.not_started", error=str(error))
            return EX_TEMPFAIL
        finally:
            for fd in spec.private.values():
                os.close(fd)
        self._acceptor = Acceptor(loop, self._log)
        await self._trust_proxies()
        place.accepting = lambda: self._acceptor.accepting
        loop.add_signal_handler(signal.SIGTERM, self._handle, {"do": "stop"}, [])
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # Ctrl-C reaches the group; the supervisor decides
        self._channel.socket.setblocking(False)
        loop.add_reader(self._channel.fileno(), self._readable)
        try:
            for service, fd in spec.listeners:
                await self._accept(spec.slot, service, fd)
        except ConfigError as error:
            self._log.error("config.rejected", error=str(error))
            return EX_CONFIG
        self._acceptor.measure()
        self._garbage.begin(loop.time())
        self._channel.send("ready", seconds=round(time.monotonic() - started, 3))
        ticking = loop.create_task(self._tick(), name="worker.tick")
        try:
            await self._leave.wait()
            await self._goodbye()
        finally:
            ticking.cancel()
        return self._code

    def _load(self, private: dict[str, int]) -> Config:
        """Reads the configuration; files that only root may read come as descriptors."""
        config = load(self._spec.config_path)
        if private:
            paths = {key: f"/proc/self/fd/{fd}" for key, fd in private.items()}
            config = msgspec.structs.replace(config, tls=msgspec.structs.replace(config.tls, **paths))
        return config

    async def _trust_proxies(self) -> None:
        config = self._config
        await self._acceptor.trust(Networks(config.haproxy_trusted_networks), config.haproxy_timeout)

    async def _accept(self, tag: int, service: str, fd: int) -> None:
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        context = partial(self._program.server_context, service)
        await self._acceptor.add(tag, service, sock, self._program.factory(service), context)

    def _callback_failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What no connection and no job caught: one line in the log and a count, never a raw traceback."""
        self._cells[METRICS.internal_errors_total["worker"]] += 1
        error = context.get("exception")
        if isinstance(error, BaseException):
            self._log.exception("loop.callback_failed", error, where=str(context.get("message")))
        else:
            self._log.error("loop.callback_failed", where=str(context.get("message")))

    # --- orders ---

    def _readable(self) -> None:
        while True:
            try:
                received = self._channel.receive()
            except BlockingIOError:
                return
            if received is None:
                asyncio.get_running_loop().remove_reader(self._channel.fileno())
                if not self._leave.is_set():
                    self._log.warning("supervisor.lost")
                self._stop(EX_OK)
                return
            self._handle(*received)

    def _handle(self, message: dict[str, Any], fds: list[int]) -> None:
        match message["do"]:
            case "stop":
                self._stop(EX_OK)
            case "own":
                self._own(fds)
            case "reload":
                self._spawn(self._reload(message, fds))
            case "drain":
                self._spawn(self._drain(float(message["seconds"])))
            case "adopt":
                self._spawn(self._adopt(message, fds))
            case "unadopt":
                self._acceptor.remove(int(message["slot"]))
            case "status":
                self._channel.send("status", **self._program.status())
            case "withdraw":
                busy = self._program.withdraw([(q, n) for q, n in message["recipients"]])
                self._channel.send("answer", number=message["number"], found=busy)
            case "act":
                who = msgspec.convert(message["who"], Actor)
                self._program.act(fds[0], who, message["act"], message["request"])
            case "answered":
                asked = self._asked.pop(message["number"], None)
                if asked is not None and not asked.done():
                    asked.set_result(message["answer"])
            case "hops":
                self._channel.send("answer", number=message["number"], found=self._program.hops(message["hops"]))
            case "sessions":
                found = self._program.open_sessions(message["wanted"])
                self._channel.send("answer", number=message["number"], found=found)
            case "flush_trace":
                self._spawn(self._flush_trace(message["number"]))

    async def _ask(self, question: str, **given: Any) -> dict[str, Any]:
        """What all workers say to a question; {"ok": False, ...} where the supervisor does not take it."""
        self._questions = number = self._questions + 1
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            if self._leave.is_set():
                return _STOPPING
            if not self._channel.send("ask", number=number, question=question, **given):
                return {"ok": False, "error": "the supervisor does not answer; try again"}
            return await answer
        finally:
            self._asked.pop(number, None)

    def _hang_up(self) -> None:
        """SIGHUP sent to this process itself: once a second at the most, and the last one counts."""
        if self._rereading is None:
            loop = asyncio.get_running_loop()
            self._rereading = loop.call_at(max(loop.time(), self._reread_at + REREAD_S), self._reread)

    def _reread(self) -> None:
        self._rereading = None
        self._reread_at = asyncio.get_running_loop().time()
        self._handle({"do": "reload"}, [])

    def _own(self, fds: list[int]) -> None:
        """Walks the slot's hops from now on; the descriptors are our share of the right to."""
        if self._releasing:
            self._let_go(fds)
        else:
            self._owning += fds
            self._program.own()

    async def _flush_trace(self, number: int) -> None:
        await self._program.flush_trace()
        self._channel.send("answer", number=number, found=[])

    def _let_go(self, fds: list[int]) -> None:
        for fd in fds:
            os.close(fd)
        fds.clear()

    async def _release(self) -> None:
        """Lets go of the hops, and only then says so."""
        await self._program.release(FINISH_S)
        self._let_go(self._owning)
        self._channel.send("released")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="worker.order")
        self._messages.add(task)
        task.add_done_callback(self._messages.discard)

    async def _reload(self, message: dict[str, Any], fds: list[int]) -> None:
        """One after the other. The files are read in a thread: sessions go on."""
        error = ""
        async with self._reloading:
            try:
                private = {key: fds[place] for key, place in message.get("private", {}).items()}
                config = await asyncio.to_thread(self._load, private)
                self._log.set_level(config.log_level)  # what writes lines by itself asks for it when it is configured
                await self._program.reload(config)
                self._config = config
                await self._trust_proxies()
                await self._acceptor.renew()
            except ConfigError as failure:
                self._log.set_level(self._config.log_level)
                error = str(failure)
            finally:
                for fd in fds:
                    os.close(fd)
        self._channel.send("reloaded", error=error)

    async def _adopt(self, message: dict[str, Any], fds: list[int]) -> None:
        self._log.info("listener.adopted", of_slot=message["slot"])
        for (service, _), fd in zip(message["listeners"], fds, strict=True):
            await self._accept(int(message["slot"]), service, fd)

    async def _drain(self, seconds: float) -> None:
        """Another generation has taken over: accept no more, let go of the hops, and wait for the sessions to end."""
        if self._releasing:
            return
        self._releasing = True
        self._acceptor.close()
        await self._release()
        deadline = time.monotonic() + seconds
        while self._program.sessions and time.monotonic() < deadline and not self._leave.is_set():
            try:
                await asyncio.wait_for(self._leave.wait(), 0.2)
            except TimeoutError:
                continue
        self._stop(EX_OK)

    def _stop(self, code: int) -> None:
        if not self._leave.is_set():
            self._code = code
            self._leave.set()

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            beat(self._cells)
            due = max(due + 1.0, loop.time())
            await asyncio.sleep(due - loop.time())
            self._garbage.look(loop.time())
            try:
                self._program.tick()
            except Exception as error:
                self._cells[METRICS.internal_errors_total["worker"]] += 1
                self._log.exception("worker.tick_failed", error)
            if self._program.failure and not self._leave.is_set():
                self._board[Board.STORE_FAILED] = 1
                self._channel.send("store_failed", error=self._program.failure)
                self._stop(EX_TEMPFAIL)

    async def _goodbye(self) -> None:
        """Finishes what can be finished in FINISH_S, says farewell to the rest, and closes the store."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._channel.fileno())  # no order can mean anything any more
        for asked in self._asked.values():  # nor will an answer come
            if not asked.done():
                asked.set_result(_STOPPING)
        self._acceptor.close()
        deadline = loop.time() + (FINISH_S if self._code == EX_OK else GOODBYE_S)
        self._program.drain()
        release = None if self._releasing else loop.create_task(self._release(), name="worker.release")
        self._releasing = True
        await self._sessions_end(deadline)
        self._program.close_all("shutting down")
        if release is not None:
            await release
        await self._sessions_end(loop.time() + GOODBYE_S)
        await self._program.close()
        self._log.detach()

    async def _sessions_end(self, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        while self._program.sessions and loop.time() < deadline:  # noqa: ASYNC110 - the servers only count
            await asyncio.sleep(0.02)


def run(channel: Channel, spec: Spec, build: Build) -> int:
    """Runs a worker until it leaves; its exit code."""

    async def live() -> int:
        return await WorkerLife(channel, spec, build).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(live())
        except FastMTAError as error:
            get_logger().error("worker.failed", error=str(error))
            return EX_SOFTWARE
        except Exception as error:
            get_logger().exception("worker.failed", error)
            return EX_SOFTWARE
