"""IMAP connections without sockets: bytes in, bytes out, the loop turned until nothing is left to do."""

import asyncio
import re
import time
from pathlib import Path
from typing import Any

from fastmta.imap.server import ImapServer
from fastmta.runtime.clock import ManualClock
from fastmta.store import MailStore
from tests.imap.fakes import fake_services


class FakeTransport(asyncio.Transport):
    """Collects what is written; `full` says pause at every write, as a peer does that does not read."""

    def __init__(self, peer: tuple[str, int] = ("127.0.0.1", 40000)) -> None:
        super().__init__({"peername": peer})
        self.out = bytearray()
        self.writes = 0
        self.reading = True
        self.closed = False
        self.full = False
        self.protocol: Any = None

    def write(self, data: Any) -> None:
        self.writes += 1
        self.out += data
        if self.full:
            self.protocol.pause_writing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close


class Client:
    """One connection. `do` sends a command under a fresh tag and gives the response lines, the tagged one last."""

    def __init__(self, server: ImapServer, *, peer: str = "127.0.0.1", service: str = "imap") -> None:
        self.protocol: Any = server.factory(service)()
        self.transport = FakeTransport((peer, 40000))
        self.transport.protocol = self.protocol
        self.protocol.connection_made(self.transport)
        self._tag = 0

    async def settle(self, turns: int = 30) -> None:
        """Turns the loop until this connection waits for nothing but its peer."""
        for _ in range(turns):
            await asyncio.sleep(0)
        deadline = time.monotonic() + 60
        while self.protocol.waiting and not self.transport.full and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def send(self, data: bytes) -> bytes:
        """Sends bytes and gives all that came back."""
        self.protocol.data_received(data)
        await self.settle()
        return self.take()

    def take(self) -> bytes:
        out = bytes(self.transport.out)
        self.transport.out.clear()
        return out

    async def do(self, command: str | bytes) -> list[bytes]:
        self._tag += 1
        tag = b"t%d" % self._tag
        raw = command.encode() if isinstance(command, str) else command
        out = await self.send(tag + b" " + raw + b"\r\n")
        lines = split_responses(out)
        assert lines, "no answer"
        assert lines[-1].startswith(tag + b" "), out
        lines[-1] = lines[-1][len(tag) + 1 :]
        return lines

    async def ok(self, command: str | bytes) -> list[bytes]:
        """`do` that must be answered OK; gives untagged lines, without words of progress, which come by the clock."""
        lines = await self.do(command)
        assert lines[-1].startswith(b"OK"), lines
        return [line for line in lines[:-1] if not line.startswith(b"* OK [INPROGRESS ")]

    async def append(self, message: bytes, mailbox: str = "INBOX", arguments: str = "") -> bytes:
        """APPEND with a non-synchronising literal; gives the tagged line."""
        arguments = f"{arguments} " if arguments else ""
        lines = await self.do(
            b"APPEND %b %b{%d+}\r\n%b" % (mailbox.encode(), arguments.encode(), len(message), message)
        )
        return lines[-1]


_LITERAL = re.compile(rb"\{(\d+)\}\r\n")


def split_responses(out: bytes) -> list[bytes]:
    """Response lines without CRLF; a literal stays inside its line."""
    lines: list[bytes] = []
    start = position = 0
    while position < len(out):
        end = out.find(b"\r\n", position)
        assert end >= 0, f"a response without its CRLF: {out[start:]!r}"
        match = re.compile(rb".*\{(\d+)\}\r\n", re.DOTALL).fullmatch(out[position : end + 2])
        if match:
            position = end + 2 + int(match.group(1))
            continue
        lines.append(out[start:end])
        start = position = end + 2
    return lines


class World:
    """A server over a store, with its clients."""

    def __init__(self, services: Any, account: Any) -> None:
        self.services = services
        self.server = ImapServer(services)
        self.account_id = account.id
        self.inbox = account.inbox_id
        self.random: Any = None

    @property
    def store(self) -> Any:
        return self.services.store

    def connect(self, *, peer: str = "127.0.0.1", service: str = "imap") -> Client:
        return Client(self.server, peer=peer, service=service)

    async def login(self, mailbox: str = "", *, peer: str = "127.0.0.1") -> Client:
        client = self.connect(peer=peer)
        await client.settle()
        client.take()
        await client.ok("LOGIN user@example.test secret")
        if mailbox:
            await client.ok(f"SELECT {mailbox}")
        return client

    async def close(self) -> None:
        await self.services.tasks.close()
        self.store.close()


async def make_world(
    path: Path, *, engine: str | None = None, message_size_limit: int = 1_000_000, trash_delay_ms: int = 60_000
) -> World:
    """A world over a store in `path`; its account, user@example.test with the password "secret", has INBOX and Sent."""
    loop, clock = asyncio.get_running_loop(), ManualClock()
    store = MailStore.open(path, sync=False, clock=clock, engine=engine, trash_delay_ms=trash_delay_ms)
    store.attach(loop)
    account = await store.accounts.add("user@example.test", "x")
    for mailbox in store.mailboxes.list(account.id):
        if mailbox.name not in ("INBOX", "Sent"):
            await store.mailboxes.unsubscribe(account.id, mailbox.name)
            await store.mailboxes.delete(mailbox.id)
    services = fake_services(store, loop, clock, message_size_limit)
    services.authenticator.accounts["user@example.test"] = ("secret", account)
    return World(services, account)
