"""A worker's surroundings for Pop3Server: records in memory, a password without a hash, real loop, sockets and TLS."""

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
from fastmta.auth.sasl import Credentials, Sasl
from fastmta.config.schema import Config
from fastmta.model.appended import Appended
from fastmta.model.errors import StorageFailure
from fastmta.pop3.server import Pop3Server
from fastmta.runtime.log import Log
from fastmta.runtime.metrics import local_cells
from fastmta.runtime.tasks import Sweep, Tasks
from fastmta.runtime.turns import Turns
from fastmta.store import MailStore
from fastmta.store.access import Access
from fastmta.store.mailboxes import Mailboxes
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


class WatchedMailboxes(Mailboxes):
    """The store's, with its reads counted and its failures made."""

    failing = False
    reaped = False  # whether the bytes of messages have gone under whoever reads them
    reads = 0
    gate: asyncio.Event | None = None

    def read(self, mailbox_id: int, uid: int, offset: int, length: int) -> bytes | None:
        self.reads += 1
        return super().read(mailbox_id, uid, offset, length)

    def read_on(self, row: Any, offset: int, length: int, hot: bool = False) -> bytes | None:
        self.reads += 1
        return None if self.reaped else super().read_on(row, offset, length, hot)

    async def expunge(self, mailbox_id: int, uids: Any = None, only_deleted: bool = True) -> Any:
        if self.gate is not None:
            await self.gate.wait()
        if self.failing:
            raise StorageFailure("disk full")
        return await super().expunge(mailbox_id, uids, only_deleted)

    async def change_flags(self, *arguments: Any) -> Any:
        if self.failing:
            raise StorageFailure("full")
        return await super().change_flags(*arguments)


class FakeAuthenticator:
    """bill's password is "secret word". With `gate`, a check waits for it; `remembers` answers at once."""

    def __init__(self, account: Any) -> None:
        self.account = account
        self.remembers = False
        self.gate: asyncio.Event | None = None
        self.plain_text = True

    def login_allowed(self, tls: bool, loopback: bool) -> bool:
        return tls or self.plain_text

    def mechanisms(self, tls: bool, loopback: bool, certified: str = "") -> tuple[str, ...]:
        return ("PLAIN", "LOGIN") if self.login_allowed(tls, loopback) else ()

    def exchange(self, allowed: tuple[str, ...], certified: str = "") -> Sasl:
        return Sasl(allowed)

    def opened_by(self, credentials: Credentials) -> bytes:
        return b""

    def try_now(self, credentials: Credentials, service: str) -> Any:
        return self._check(credentials) if self.remembers else None

    async def authenticate(self, credentials: Credentials, service: str, peer_ip: str) -> Any:
        if self.gate is not None:
            await self.gate.wait()
        return self._check(credentials)

    def _check(self, credentials: Credentials) -> Any:
        right = credentials.authcid == "bill" and credentials.password == "secret word"
        return self.account if right else None


class Running:
    """The server on a loopback port. Use `async with`."""

    def __init__(
        self,
        directory: Path,
        *,
        context: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        engine: str = "memory",
        **keys: Any,
    ) -> None:
        self.keys = keys
        self.engine = engine
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
        self.store = MailStore.open(self.directory / "store", sync=False, engine=self.engine)
        self.store.mailboxes = self.mailboxes = WatchedMailboxes(self.store)
        self.store.access = Access(self.mailboxes, self.store.accounts, self.store.access_lists)
        self.store.attach(loop)
        self.account = await self.store.accounts.add("bill@example.test", "x")
        self.authenticator = FakeAuthenticator(self.account)
        self.tasks = Tasks(log)
        self.sweep = Sweep(loop)
        self.services: Any = SimpleNamespace(
            config=Config(data_directory=str(self.directory), **self.keys),
            store=self.store,
            authenticator=self.authenticator,
            contexts=SimpleNamespace(server_context=lambda: self.context, login_name=lambda tls: ""),
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
        self.store.close()

    async def fill(self, *texts: bytes) -> None:
        """Files messages in INBOX, in one unit."""
        messages = []
        for text in texts:
            blob, structure = self.mailboxes.new_blob(), _mime.Structure()
            for start in range(0, len(text), 65_536):
                blob.feed(text[start : start + 65_536])
                structure.feed(text[start : start + 65_536])
            messages.append(Appended(blob, structure.finish(), 1, prefix=PREFIX))
        await self.mailboxes.append_many(self.account.inbox_id, messages)

    def flags(self) -> dict[int, int]:
        """The messages' flags by their uids."""
        uids, flags, *_ = self.mailboxes.summary(self.account.inbox_id)
        return dict(zip(uids, flags, strict=True))

    async def lose(self, uid: int) -> None:
        """Another session expunges a message."""
        await self.mailboxes.expunge(self.account.inbox_id, array("I", (uid,)), only_deleted=False)

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
        return await asyncio.wait_for(self.reader.readline(), 60)

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
            return await asyncio.wait_for(self.reader.read(1), 60) == b""
        except ConnectionResetError:
            return True

    def close(self) -> None:
        self.writer.close()
