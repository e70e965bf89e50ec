"""A site's own policy module (policy/api.py), run in a process beside each worker and asked over a socket.

Nothing that the module does reaches the worker: what it raises, a wait that is too long, a busy loop, a crash of the
interpreter are all a question without an answer. A process that does not answer a ping either is killed, and another
begins with the next question, once a second at the most. A changed file is loaded into a new process beside the old
one, which goes on where the new file cannot be loaded; questions under way are answered by whom they were asked.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from fastmta.model.limits import SITE_POLICY_QUESTIONS, SITE_POLICY_START_S
from fastmta.policy.api import Context
from fastmta.policy.api import Verdict as Said
from fastmta.policy.site_host import FRAME_BYTES
from fastmta.runtime.log import Log

RESTART_S: Final = 1.0
PING_S: Final = 1.0
LOOK_S: Final = 1.0  # between two looks whether the file has changed


class NoAnswer(Exception):
    """The module has not answered; the text says why, for the log."""


class _Process:
    """One process with the module as it was when it began."""

    def __init__(self, child: "subprocess.Popen[bytes]", reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.child = child
        self.reader = reader
        self.writer = writer
        self.stages: frozenset[str] = frozenset()
        self.waiting: dict[int, asyncio.Future[Said | None]] = {}
        self.number = 0
        self.listening: asyncio.Task[None] | None = None
        self.ended = False

    async def start(self) -> None:
        """Raises NoAnswer with the reason where the module cannot be loaded."""
        try:
            async with asyncio.timeout(SITE_POLICY_START_S):
                _, stages, problem = await self._frame()
        except (TimeoutError, asyncio.IncompleteReadError, OSError, msgspec.MsgspecError) as error:
            self.kill()
            raise NoAnswer(f"it does not begin: {type(error).__name__}") from error
        if problem:
            self.kill()
            raise NoAnswer(problem)
        self.stages = frozenset(stages)
        self.listening = asyncio.create_task(self._listen(), name="site policy")

    async def _frame(self) -> Any:
        size = int.from_bytes(await self.reader.readexactly(4), "big")
        if size > FRAME_BYTES:
            raise OSError("a frame is too long")
        return msgspec.msgpack.decode(await self.reader.readexactly(size))

    async def _listen(self) -> None:
        try:
            while True:
                number, said, problem = await self._frame()
                future = self.waiting.pop(number, None)
                if future is None or future.done():
                    continue
                if problem:
                    future.set_exception(NoAnswer(str(problem)))
                else:
                    future.set_result(msgspec.convert(said, Said) if said is not None else None)
        except (asyncio.IncompleteReadError, OSError, ValueError, msgspec.MsgspecError) as error:
            self.kill(f"its process has ended ({type(error).__name__})")

    async def ask(self, stage: str, raw: bytes, timeout_s: float) -> Said | None:
        """NoAnswer; TimeoutError."""
        self.number += 1
        number = self.number
        future: asyncio.Future[Said | None] = asyncio.get_running_loop().create_future()
        self.waiting[number] = future
        frame = msgspec.msgpack.encode([number, stage, raw])
        try:
            self.writer.write(len(frame).to_bytes(4, "big") + frame)
            async with asyncio.timeout(timeout_s):
                return await future
        finally:
            self.waiting.pop(number, None)

    def kill(self, why: str = "it was stopped") -> None:
        if self.ended:
            return
        self.ended = True
        if self.listening is not None:
            self.listening.cancel()
        self.writer.close()
        with suppress(ProcessLookupError):
            self.child.send_signal(signal.SIGKILL)
        asyncio.get_running_loop().run_in_executor(None, self.child.wait)
        for future in self.waiting.values():
            if not future.done():
                future.set_exception(NoAnswer(why))


class SitePolicy:
    """The module of one worker."""

    def __init__(self, log: Log, monotonic: Callable[[], float]) -> None:
        self._log = log
        self._monotonic = monotonic
        self._path: Path | None = None
        self._timeout_s = 1.0
        self._process: _Process | None = None
        self._starting: asyncio.Task[_Process] | None = None
        self._failed_at = float("-inf")
        self._problem = ""
        self._seen: tuple[int, int, int] | None = None  # of the file
        self._looked_at = 0.0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._open = 0

    def configure(self, path: str, timeout_s: float) -> None:
        """The configuration was read: another module, or another budget."""
        self._timeout_s = timeout_s
        wanted = Path(path) if path else None
        if wanted != self._path:
            self._path = wanted
            self._seen = None
            self.close()

    def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def tick(self) -> None:
        """Once a second: whether the file has changed."""
        now = self._monotonic()
        if self._path is None or self._process is None or now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        if _signature(self._path) != self._seen and self._starting is None:
            self._keep(asyncio.create_task(self._replace(), name="site policy reload"))

    async def _replace(self) -> None:
        before = self._process
        try:
            await self._begin()
        except NoAnswer as error:
            self._log.error(
                "policy.module_not_loaded", module=str(self._path), reason=str(error), goes_on="the old one"
            )
            return
        if before is not None and before is not self._process:
            await asyncio.gather(*before.waiting.values(), return_exceptions=True)
            before.kill()

    async def ask(self, context: Context) -> Said | None:
        """What the module says; None where it has no function for the stage. NoAnswer, within the time budget."""
        if self._open >= SITE_POLICY_QUESTIONS:
            raise NoAnswer("too many questions wait for it")
        self._open += 1
        try:
            process = await self._ready()
            if context.stage not in process.stages:
                return None
            try:
                return await process.ask(context.stage, msgspec.msgpack.encode(context), self._timeout_s)
            except TimeoutError as error:
                self._keep(asyncio.create_task(self._look_after(process), name="site policy ping"))
                raise NoAnswer(f"{context.stage} took longer than {self._timeout_s:g} s") from error
        finally:
            self._open -= 1

    async def _look_after(self, process: _Process) -> None:
        """After a time-out: whether the process as a whole still lives."""
        try:
            await process.ask("", b"", PING_S)
        except (TimeoutError, NoAnswer, OSError):
            if not process.ended:
                self._log.error("policy.module_killed", module=str(self._path), reason="it holds its own loop")
                process.kill("it was killed, since it held its own loop")

    async def _ready(self) -> _Process:
        process = self._process
        if process is not None and not process.ended:
            return process
        if self._starting is None and self._monotonic() - self._failed_at < RESTART_S:
            raise NoAnswer(self._problem or "its process has ended")
        return await self._begin()

    async def _begin(self) -> _Process:
        if self._starting is None:
            self._failed_at = self._monotonic()
            self._starting = self._keep(asyncio.create_task(self._start(), name="site policy start"))
        return await asyncio.shield(self._starting)

    async def _start(self) -> _Process:
        assert self._path is not None
        try:
            self._seen = _signature(self._path)
            process = await _spawn(self._path)
            await process.start()
        except OSError as error:
            self._problem = str(error)
            raise NoAnswer(self._problem) from error
        except NoAnswer as error:
            self._problem = str(error)
            raise
        finally:
            self._starting = None
        self._problem = ""
        self._process = process
        self._log.info("policy.module_loaded", module=str(self._path), stages=",".join(sorted(process.stages)))
        return process

    def _keep(self, task: asyncio.Task[Any]) -> asyncio.Task[Any]:
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has met it


async def _spawn(path: Path) -> _Process:
    ours, theirs = socket.socketpair()
    try:
        command = [sys.executable, "-m", "fastmta.policy.site_host", str(theirs.fileno()), str(path)]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        child = await asyncio.to_thread(
            subprocess.Popen,
            command,
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # the log is lines of JSON; what it raises is told by frames
            stderr=subprocess.DEVNULL,
            env=environment,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    ours.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=ours, limit=FRAME_BYTES)
    return _Process(child, reader, writer)


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


Asked = Callable[[Context], Awaitable[Said | None]]
