"""The life of one worker: it is told what it is, builds everything, accepts, and leaves when it is told to or left
alone.

    python -m fastmta.supervisor.worker FD      FD is its end of the channel (supervisor/channel.py)

TERM: stops accepting, finishes transactions for a bounded time, says 421 and `* BYE`. HUP: rereads in place. When the
channel closes the supervisor is gone, and the worker leaves as for TERM, so that a successor can have the data
directory.
"""

import asyncio
import gc
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Protocol

import msgspec
import uvloop

from fastmta.config.load import load
from fastmta.config.schema import Config
from fastmta.model.errors import ConfigError, FastMTAError
from fastmta.runtime.board import Board
from fastmta.runtime.log import Log, get_logger
from fastmta.runtime.metrics import METRICS, Cells, SharedCells, local_cells, reset_gauges
from fastmta.supervisor.acceptor import Acceptor, Factory
from fastmta.supervisor.channel import Channel

FINISH_S: Final = 10.0  # for transactions under way when we must leave
GOODBYE_S: Final = 1.0  # for the last replies to reach their sockets
EX_OK: Final = 0
EX_SOFTWARE: Final = 70
EX_TEMPFAIL: Final = 75
EX_CONFIG: Final = 78


class Spec(msgspec.Struct):
    """What the supervisor tells a new worker; descriptors follow in the order cells, lock, listeners, private files."""

    config_path: str
    slot: int
    slots: int
    generation: int
    range: int
    ranges: int
    layout: int
    own: bool
    listeners: list[tuple[str, str]]
    private: dict[str, int]
    do: str = "spec"


@dataclass(slots=True)
class Place:
    """Where a worker finds itself: given to whatever builds the server."""

    config: Config
    slot: int
    slots: int
    cells: Cells
    board: Cells
    shared: SharedCells | None
    loop: asyncio.AbstractEventLoop
    log: Log
    accepting: Callable[[], bool] = lambda: False


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

    def server_context(self) -> ssl.SSLContext | None: ...

    def own(self) -> None:
        """Begin to walk this slot's hops: nobody else does now."""
        ...

    async def release(self, timeout_s: float) -> None:
        """Stop walking them; deliveries under way get `timeout_s` to end."""
        ...

    def reload(self, config: Config) -> None:
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

    def __init__(self, channel: Channel, build: Build) -> None:
        self._channel = channel
        self._build = build
        self._log = get_logger()
        self._leave = asyncio.Event()
        self._code = EX_OK
        self._patience_s = FINISH_S
        self._releasing = False
        self._messages: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        started = time.monotonic()
        received = await asyncio.get_running_loop().run_in_executor(None, self._channel.receive)
        if received is None:
            return EX_OK
        message, fds = received
        self._spec = spec = msgspec.convert(message, Spec)
        self._keep = fds[1]  # the data directory's lock, ours while this process lives
        loop = asyncio.get_running_loop()
        self._prepare_cells(fds[0])
        self._log.attach(loop, self._cells, slot=spec.slot, pid=os.getpid())
        loop.set_exception_handler(self._callback_failed)
        accept = fds[2 : 2 + len(spec.listeners)]
        try:
            self._config = self._load(fds[2 + len(spec.listeners) :], spec.private)
            self._log.set_level(self._config.log_level)
            place = Place(self._config, spec.slot, spec.slots, self._cells, self._board, self._shared, loop, self._log)
            self._program = self._build(place)
        except ConfigError as error:
            self._log.error("config.rejected", error=str(error))
            return EX_CONFIG
        except FastMTAError as error:
            self._log.error("worker.not_started", error=str(error))
            return EX_TEMPFAIL
        self._acceptor = Acceptor(loop, self._log)
        place.accepting = lambda: self._acceptor.accepting
        for name, number in (("stop", signal.SIGTERM), ("reload", signal.SIGHUP)):
            loop.add_signal_handler(number, self._handle, {"do": name}, [])
        loop.add_signal_handler(signal.SIGINT, lambda: None)  # Ctrl-C reaches the group; the supervisor decides
        self._channel.socket.setblocking(False)
        loop.add_reader(self._channel.fileno(), self._readable)
        if spec.own:
            self._program.own()
        try:
            for (service, _), fd in zip(spec.listeners, accept, strict=True):
                await self._accept(spec.slot, service, fd)
        except ConfigError as error:
            self._log.error("config.rejected", error=str(error))
            return EX_CONFIG
        gc.collect()
        gc.freeze()  # what is built now lives as long as the process: no collection walks it again
        self._channel.send("ready", seconds=round(time.monotonic() - started, 3))
        ticking = loop.create_task(self._tick(), name="worker.tick")
        try:
            await self._leave.wait()
            await self._goodbye()
        finally:
            ticking.cancel()
        return self._code

    def _prepare_cells(self, fd: int) -> None:
        spec = self._spec
        self._shared: SharedCells | None = SharedCells(fd, spec.ranges)
        self._board = self._shared.range(0)
        self._cells = self._shared.range(spec.range)
        if spec.layout != METRICS.layout:  # the program was upgraded under a supervisor of the version before
            self._log.warning("metrics.layout_differs", remedy="restart the server to count again")
            self._shared, self._cells = None, local_cells()
        reset_gauges(self._cells)

    def _load(self, fds: list[int], private: dict[str, int]) -> Config:
        """Reads the configuration; files that only root may read come as descriptors."""
        config = load(self._spec.config_path)
        if private:
            paths = {key: f"/proc/self/fd/{fds[place]}" for key, place in private.items()}
            config = msgspec.structs.replace(config, tls=msgspec.structs.replace(config.tls, **paths))
        return config

    async def _accept(self, tag: int, service: str, fd: int) -> None:
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        await self._acceptor.add(tag, service, sock, self._program.factory(service), self._program.server_context())

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
                if not self._releasing:
                    self._program.own()
            case "reload":
                self._reload(message, fds)
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
                self._channel.send("withdrawn", number=message["number"], busy=busy)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="worker.order")
        self._messages.add(task)
        task.add_done_callback(self._messages.discard)

    def _reload(self, message: dict[str, Any], fds: list[int]) -> None:
        error = ""
        try:
            config = self._load(fds, message.get("private", {}))
            self._program.reload(config)
            self._config = config
            self._log.set_level(config.log_level)
        except ConfigError as failure:
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
        await self._program.release(FINISH_S)
        self._channel.send("released")
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
            due = max(due + 1.0, loop.time())
            await asyncio.sleep(due - loop.time())
            try:
                self._program.tick()
            except Exception as error:
                self._log.exception("worker.tick_failed", error)
            if self._program.failure and not self._leave.is_set():
                self._board[Board.STORE_FAILED] = 1
                self._channel.send("store_failed", error=self._program.failure)
                self._stop(EX_TEMPFAIL)

    async def _goodbye(self) -> None:
        """Finishes what can be finished in FINISH_S, says farewell to the rest, and closes the store."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._channel.fileno())  # no order can mean anything any more
        self._acceptor.close()
        deadline = loop.time() + (FINISH_S if self._code == EX_OK else GOODBYE_S)
        self._program.drain()
        release = None if self._releasing else loop.create_task(self._program.release(FINISH_S), name="worker.release")
        await self._sessions_end(deadline)
        self._program.close_all("shutting down")
        if release is not None:
            await release
            self._channel.send("released")
        await self._sessions_end(loop.time() + GOODBYE_S)
        await self._program.close()
        self._log.detach()

    async def _sessions_end(self, deadline: float) -> None:
        loop = asyncio.get_running_loop()
        while self._program.sessions and loop.time() < deadline:  # noqa: ASYNC110 - the servers only count
            await asyncio.sleep(0.02)


def run(fd: int, build: Build) -> int:
    """Runs a worker on the channel `fd` until it leaves; its exit code."""
    sock = socket.socket(fileno=fd)
    sock.set_inheritable(False)

    async def live() -> int:
        return await WorkerLife(Channel(sock), build).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(live())
        except FastMTAError as error:
            get_logger().error("worker.failed", error=str(error))
            return EX_SOFTWARE
        except Exception as error:
            get_logger().exception("worker.failed", error)
            return EX_SOFTWARE


def main() -> int:
    from fastmta.supervisor.build import build  # late: a stub worker of the tests builds something else

    return run(int(sys.argv[1]), build)


if __name__ == "__main__":
    raise SystemExit(main())
