"""A server of fakes around Pop3Server: mailboxes and passwords in memory, but real loop, sockets and TLS."""

import asyncio
import inspect
import ssl
from array import array
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from fastmta import _mime
from fastmta.auth.sasl import Credentials
from fastmta.model.errors import StorageFailure
from fastmta.pop3.server import Pop3Server
from fastmta.runtime.log import Log
from fastmta.runtime.metrics import local_cells
from fastmta.runtime.tasks import Sweep, Tasks
from fastmta.runtime.turns import Turns
from fastmta.tls.upgrade import SharedBuffer
from tests.support.limits import local_limits

PREFIX = b"Return-Path: <x@y.z>\r\n"


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs a test on uvloop, as the server does, and on asyncio's loop: they differ in writing, pausing and ending."""

    def run(*, loop_factory: Callable[[], asyncio.AbstractEventLoop], **fixtures: Any) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(test(**fixtures))

    named = inspect.signature(test)
    factory = inspect.Parameter("loop_factory", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = named.replace(parameters=[*named.parameters.values(), factory])  # type: ignore[attr-defined]
    run.__name__ = test.__name__
    run.__doc__ = test.__doc__
    run.pytestmark = getattr(test, "pytestmark", [])  # type: ignore[attr-defined]
    factories = [asyncio.new_event_loop, uvloop.new_event_loop]
    return pytest.mark.parametrize("loop_factory", factories, ids=["asyncio", "uvloop"])(run)


class FakeMailboxes:
    def __init__(self) -> None:
        self.boxes: dict[int, dict[int, bytes]] = {}
        self.flags: dict[int, dict[int, int]] = {}
        self.uid_validity = 7
        self.failing = False
        self.reaped = False  # whether the bytes of messages have gone under whoever reads them
        self.reads = 0
        self.gate: asyncio.Event | None = None

    def fill(self, mailbox_id: int, messages: list[bytes]) -> None:
        self.boxes[mailbox_id] = {10 + n: PREFIX + text for n, text in enumerate(messages)}
        self.flags[mailbox_id] = dict.fromkeys(self.boxes[mailbox_id], 0)

    def by_id(self, mailbox_id: int) -> Any:
        return SimpleNamespace(uid_validity=self.uid_validity) if mailbox_id in self.boxes else None

    def summary(self, mailbox_id: int, after: int = 0, limit: int = -1) -> Any:
        box = self.boxes[mailbox_id]
        uids = array("I", sorted(uid for uid in box if uid > after))
        uids = uids if limit < 0 else uids[:limit]
        flags = array("I", (self.flags[mailbox_id][uid] for uid in uids))
        return uids, flags, array("Q", [1] * len(uids)), array("I", (len(box[uid]) for uid in uids)), set()

    def rows(self, mailbox_id: int, uids: Any) -> list[Any]:
        box = self.boxes[mailbox_id]
        return [
            SimpleNamespace(uid=uid, size=len(box[uid]), prefix=PREFIX, text=box[uid]) for uid in uids if uid in box
        ]

    def structure(self, mailbox_id: int, uid: int) -> bytes | None:
        text = self.boxes[mailbox_id].get(uid)
        if text is None:
            return None
        structure = _mime.Structure()
        structure.feed(text[len(PREFIX) :])
        return structure.finish()

    def read(self, mailbox_id: int, uid: int, offset: int, length: int) -> bytes | None:
        assert length <= 262_144
        self.reads += 1
        text = self.boxes[mailbox_id].get(uid)
        return None if text is None else text[offset : offset + length]

    def read_on(self, row: Any, offset: int, length: int) -> bytes | None:
        assert length <= 262_144
        self.reads += 1
        return None if self.reaped else bytes(row.text[offset : offset + length])

    async def expunge(self, mailbox_id: int, uids: Any = None, only_deleted: bool = True) -> Any:
        assert not only_deleted
        if self.gate is not None:
            await self.gate.wait()
        if self.failing:
            raise StorageFailure("disk full")
        for uid in uids:
            self.boxes[mailbox_id].pop(uid, None)
        return uids

    async def set_flags(self, mailbox_id: int, uids: Any, mode: int, flags: int, keywords: bytes) -> Any:
        if self.failing:
            raise StorageFailure("full")
        assert mode == 1
        for uid in uids:
            if uid in self.flags[mailbox_id]:
                self.flags[mailbox_id][uid] |= flags
        return array("I")


class FakeAuthenticator:
    """bill's password is "secret word"; inbox 1. With `gate`, a check waits for it; `remembers` answers at once."""

    def __init__(self) -> None:
        self.remembers = False
        self.gate: asyncio.Event | None = None
        self.plain_text = True

    def login_allowed(self, tls: bool, loopback: bool) -> bool:
        return tls or self.plain_text

    def mechanisms(self, tls: bool, loopback: bool) -> tuple[str, ...]:
        return ("PLAIN", "LOGIN") if self.login_allowed(tls, loopback) else ()

    def try_now(self, credentials: Credentials, service: str) -> Any:
        return self._check(credentials) if self.remembers else None

    async def authenticate(self, credentials: Credentials, service: str, peer_ip: str) -> Any:
        if self.gate is not None:
            await self.gate.wait()
        return self._check(credentials)

    @staticmethod
    def _check(credentials: Credentials) -> Any:
        right = credentials.authcid == "bill" and credentials.password == "secret word"
        return SimpleNamespace(id=5, address="bill@example.test", inbox_id=1) if right else None


class Running:
    """The server on a loopback port. Use `async with`."""

    def __init__(self, directory: Path, *, context: ssl.SSLContext | None = None, implicit_tls: bool = False) -> None:
        self.mailboxes = FakeMailboxes()
        self.authenticator = FakeAuthenticator()
        self.context = context
        self.implicit_tls = implicit_tls
        self.directory = directory
        self.port = 0
        self.now_ns = 1
        self.tick_ns = 0
        self._clients: list[Client] = []

    def _look(self) -> int:
        """The clock of turns: it moves by `tick_ns` a look; at 0 no turn ends by itself."""
        self.now_ns += self.tick_ns
        return self.now_ns

    async def __aenter__(self) -> "Running":
        loop = asyncio.get_running_loop()
        log = Log(level="error")
        self.tasks = Tasks(log)
        self.sweep = Sweep(loop)
        self.services: Any = SimpleNamespace(
            config=SimpleNamespace(data_directory=self.directory),
            store=SimpleNamespace(mailboxes=self.mailboxes),
            authenticator=self.authenticator,
            contexts=SimpleNamespace(server_context=lambda: self.context),
            cells=local_cells(),
            limits=local_limits(),
            log=log,
            loop=loop,
            tasks=self.tasks,
            sweep=self.sweep,
            turns=Turns(loop, self._look),
        )
        self.server = Pop3Server(self.services)
        factory: Any = self.server.factory("pop3s" if self.implicit_tls else "pop3")
        if self.implicit_tls:
            plain = factory
            factory = lambda: SharedBuffer(plain())  # noqa: E731
        self._listener = await loop.create_server(
            factory, "127.0.0.1", 0, ssl=self.context if self.implicit_tls else None
        )
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._listener.close()
        self.server.close_all()
        await self.tasks.close()
        for connection in list(self.server.connections):
            if connection._transport is not None:
                connection._transport.abort()
        self.sweep.close()
        for client in self._clients:
            client.writer.transport.abort()
        for _ in range(5):
            await asyncio.sleep(0)
        if self.server._locks is not None:
            self.server._locks.close()

    async def connect(self) -> "Client":
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self._clients.append(client)
        assert await client.line() == b"+OK FastMTA ready\r\n"
        return client


class Client:
    """Says lines and reads replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, raw: bytes) -> None:
        self.writer.write(raw)

    async def line(self) -> bytes:
        return await asyncio.wait_for(self.reader.readline(), 5)

    async def say(self, command: bytes) -> bytes:
        self.send(command + b"\r\n")
        return await self.line()

    async def body(self) -> bytes:
        """A multi-line response after its status line, unstuffed, without the end."""
        out = []
        while (line := await self.line()) != b".\r\n":
            assert line, "the connection ended within a response"
            out.append(line[1:] if line.startswith(b".") else line)
        return b"".join(out)

    async def log_in(self) -> bytes:
        assert await self.say(b"USER bill") == b"+OK\r\n"
        return await self.say(b"PASS secret word")

    async def ended(self) -> bool:
        try:
            return await asyncio.wait_for(self.reader.read(1), 5) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.writer.close()
