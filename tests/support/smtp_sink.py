"""A next hop for tests that does as it is told: an SMTP or LMTP server on a free loopback port.

    async with SmtpSink() as sink:                 # takes everything
        sink.replies["RCPT"] = ["452 4.5.3 too many", None]   # once that, then the usual reply
        ...
        sink.messages                              # what was accepted, unstuffed

`replies` maps a verb (GREETING, EHLO, HELO, LHLO, STARTTLS, MAIL, RCPT, DATA, BDAT, RSET, DOT) to the replies to give,
first to last; None is the usual one, CLOSE drops the connection, HANG never answers. `reply_for(address)` may decide by
recipient. `until(condition)` waits for something to have been said or taken.
"""

import asyncio
import ssl
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.support.sasl_server import Refused, exchange

CLOSE = "CLOSE"
HANG = "HANG"


@dataclass
class Taken:
    """One accepted message."""

    sender: bytes
    recipients: list[bytes]
    data: bytes
    tls: bool = False
    parameters: bytes = b""
    login: str = ""


@dataclass
class SmtpSink:
    pipelining: bool = True
    lmtp: bool = False
    capabilities: tuple[str, ...] = ("SIZE 50000000", "8BITMIME", "DSN", "SMTPUTF8", "ENHANCEDSTATUSCODES")
    tls: ssl.SSLContext | None = None
    replies: dict[str, list[str | None]] = field(default_factory=dict)
    reply_for: Callable[[bytes], str | None] | None = None
    unix_path: str = ""
    passwords: dict[str, str] = field(default_factory=dict)  # of AUTH, which `capabilities` has to offer
    lies: bool = False  # SCRAM's server does not know the password
    logins: list[tuple[str, str]] = field(default_factory=list)  # mechanism and user of each that succeeded
    on_message: Callable[[Taken], None] | None = None
    messages: list[Taken] = field(default_factory=list)
    connections: int = 0
    open_now: int = 0
    most_open: int = 0
    commands: list[bytes] = field(default_factory=list)
    port: int = 0
    host: str = "127.0.0.1"
    wrapped: bool = False  # TLS from the first octet on

    async def __aenter__(self) -> "SmtpSink":
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        if self.unix_path:
            self._server = await asyncio.start_unix_server(self._serve, self.unix_path)
        else:
            context = self.tls if self.wrapped else None
            self._server = await asyncio.start_server(self._serve, self.host, self.port, backlog=1000, ssl=context)
            self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def until(self, condition: Callable[[], bool]) -> None:
        """Looks again whenever a command or a message has come."""
        while not condition():
            self._changed = asyncio.Event()
            await self._changed.wait()

    async def __aexit__(self, *exc_info: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()
        await asyncio.sleep(0)

    def _next(self, verb: str, usual: str) -> str:
        queue = self.replies.get(verb)
        reply = queue.pop(0) if queue else None
        return usual if reply is None else reply

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self.open_now += 1
        self.most_open = max(self.most_open, self.open_now)
        try:
            await self._session(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            pass
        finally:
            self.open_now -= 1
            self._tasks.discard(task)
            writer.transport.abort()

    async def _say(self, writer: asyncio.StreamWriter, reply: str) -> None:
        if reply == CLOSE:
            raise ConnectionError
        if reply == HANG:
            await asyncio.Event().wait()
        writer.write(reply.encode() + b"\r\n")
        await writer.drain()

    def _ehlo(self) -> str:
        lines = [*(["PIPELINING"] if self.pipelining else []), *self.capabilities]
        if self.tls is not None and not self._secure:
            lines.append("STARTTLS")
        return (
            "\r\n".join(f"250-{line}" for line in ["sink.test", *lines[:-1]]) + f"\r\n250 {lines[-1]}"
            if lines
            else ("250 sink.test")
        )

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._secure = secure = self.wrapped
        sender, parameters, recipients, login = b"", b"", [], ""
        chunks: list[bytes] = []
        await self._say(writer, self._next("GREETING", "220 sink.test ESMTP"))
        while True:
            line = (await reader.readuntil(b"\n")).rstrip(b"\r\n")
            self.commands.append(line)
            self._changed.set()
            verb = line.split(b" ")[0].upper().decode("latin-1")
            path, _, rest = line.partition(b":")[2].strip().partition(b">")
            address = path.lstrip(b"<")
            if verb in ("EHLO", "LHLO"):
                self._secure = secure
                await self._say(writer, self._next(verb, self._ehlo()))
            elif verb == "MAIL":
                sender, parameters, recipients, chunks = address, rest.strip(), [], []
                await self._say(writer, self._next("MAIL", "250 2.1.0 ok"))
            elif verb == "RCPT":
                usual = (self.reply_for(address) if self.reply_for else None) or "250 2.1.5 ok"
                reply = self._next("RCPT", usual)
                if reply.startswith("2"):
                    recipients.append(address)
                await self._say(writer, reply)
            elif verb == "DATA":
                reply = self._next("DATA", "354 go ahead" if recipients else "554 5.5.1 no valid recipients")
                await self._say(writer, reply)
                if reply.startswith("354"):
                    data = await self._message(reader)
                    self._changed.set()
                    replies = [
                        self._next("DOT", "250 2.0.0 taken")
                        for _ in (recipients if self.lmtp else recipients[:1] or [b""])
                    ]
                    if any(each.startswith("2") for each in replies) and recipients:
                        self._take(Taken(sender, recipients, data, secure, parameters, login))
                    for each in replies:
                        await self._say(writer, each)
                    recipients = []
            elif verb == "BDAT":  # a reply of BDAT's for each chunk, and of DOT's for a whole message
                _, size, *last = line.split(b" ")
                chunks.append(await reader.readexactly(int(size)))
                reply = self._next("BDAT", "250 2.0.0 got it" if recipients else "503 5.5.1 no valid recipients")
                if not reply.startswith("2") or not last:
                    recipients = recipients if reply.startswith("2") else []
                    await self._say(writer, reply)
                    continue
                replies = [self._next("DOT", reply) for _ in (recipients if self.lmtp else recipients[:1])]
                if any(each.startswith("2") for each in replies):
                    self._take(Taken(sender, recipients, b"".join(chunks), secure, parameters, login))
                for each in replies:
                    await self._say(writer, each)
                recipients = []
            elif verb == "AUTH" and self.passwords:
                login = await self._login(reader, writer, *line.decode().split(" ")[1:]) or login
            elif verb == "STARTTLS" and self.tls is not None:
                reply = self._next("STARTTLS", "220 go")
                await self._say(writer, reply)
                if reply.startswith("220"):
                    await writer.start_tls(self.tls)
                    secure = True
            elif verb == "QUIT":
                await self._say(writer, "221 bye")
                return
            else:
                await self._say(writer, self._next(verb, "250 ok" if verb in ("RSET", "NOOP", "HELO") else "502 what"))

    def _take(self, taken: Taken) -> None:
        self.messages.append(taken)
        self._changed.set()
        if self.on_message is not None:
            self.on_message(taken)

    async def _login(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mechanism: str, initial: str = ""
    ) -> str:
        steps = exchange(mechanism, self.passwords, lies=self.lies)
        challenge = next(steps)
        try:
            if initial:
                challenge = steps.send(b64decode("" if initial == "=" else initial))
            while True:
                await self._say(writer, f"334 {b64encode(challenge).decode()}")
                line = (await reader.readuntil(b"\n")).strip()
                self.commands.append(line)
                challenge = steps.send(b64decode(line))
        except Refused:
            await self._say(writer, self._next("AUTH", f"535 5.7.8 no: {self.commands[-1].decode()}"))
            return ""
        except StopIteration as end:
            self.logins.append((mechanism, end.value))
            await self._say(writer, "235 2.7.0 welcome")
            return str(end.value)

    async def _message(self, reader: asyncio.StreamReader) -> bytes:
        lines = []
        while True:
            line = await reader.readuntil(b"\n")
            if line == b".\r\n":
                return b"".join(lines)
            lines.append(line[1:] if line.startswith(b".") else line)
