"""The server on real sockets: TLS both ways, talk before the greeting, big messages, half-closed clients, draining."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fastmta.config.tables import TlsConfig
from fastmta.runtime.metrics import METRICS
from fastmta.runtime.tasks import Tasks
from fastmta.tls.certificate import write_self_signed
from fastmta.tls.contexts import Contexts
from fastmta.tls.upgrade import SharedBuffer
from tests.support.smtp_rig import SmtpRig

OPEN = b"MAIL FROM:<a@b.test>\r\nRCPT TO:<x@relay.test>\r\n"


class Running:
    """A rig whose store and listeners are on the running loop."""

    def __init__(self, rig: SmtpRig, tls: ssl.SSLContext) -> None:
        self.rig = rig
        self.tls = tls
        self.servers: list[asyncio.Server] = []

    async def listen(self, service: str) -> int:
        factory = self.rig.server.factory(service)
        implicit = service == "submissions"
        server = await asyncio.get_running_loop().create_server(
            (lambda: SharedBuffer(factory())) if implicit else factory,
            "127.0.0.1",
            0,
            ssl=self.rig.contexts.smtpd_context() if implicit else None,
        )
        self.servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def connect(self, service: str = "smtp") -> "Talk":
        port = await self.listen(service)
        context = self.tls if service == "submissions" else None
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        talk = Talk(reader, writer)
        assert (await talk.reply()).startswith(b"220 ")
        return talk


class Talk:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def reply(self) -> bytes:
        out = b""
        async with asyncio.timeout(60):
            while True:
                line = await self.reader.readline()
                out += line
                if line[3:4] != b"-":
                    return out

    async def say(self, data: bytes) -> bytes:
        self.writer.write(data)
        return await self.reply()


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    write_self_signed(tmp_path / "cert.pem", tmp_path / "key.pem", ["localhost"])
    rig = SmtpRig(tmp_path)
    rig.contexts = Contexts(  # type: ignore[assignment]
        TlsConfig(cert_file=str(tmp_path / "cert.pem"), key_file=str(tmp_path / "key.pem"))
    )
    tasks: Any = Tasks(rig.log)  # type: ignore[arg-type]
    rig.tasks = tasks
    client = ssl.create_default_context()
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    rig.store.attach(asyncio.get_running_loop())
    running = Running(rig, client)
    yield running
    for server in running.servers:
        server.close()
    rig.server.close_all()
    await tasks.close()
    tasks.spawned = []
    async with asyncio.timeout(60):
        while rig.server.sessions:  # noqa: ASYNC110 - the server only counts
            await asyncio.sleep(0.01)
    rig.close()


async def test_starttls_forgets_what_was_said_and_takes_mail(running: Running) -> None:
    talk = await running.connect()
    assert b"STARTTLS" in await talk.say(b"EHLO plain.test\r\n")
    assert (await talk.say(b"STARTTLS\r\n")).startswith(b"220 ")
    await talk.writer.start_tls(running.tls)
    assert (await talk.say(b"RCPT TO:<x@relay.test>\r\n")).startswith(b"503 ")
    assert b"STARTTLS" not in await talk.say(b"EHLO secret.test\r\n")
    talk.writer.write(OPEN + b"DATA\r\n")
    assert [(await talk.reply())[:3] for _ in range(3)] == [b"250", b"250", b"354"]
    assert (await talk.say(b"x\r\n.\r\n")).startswith(b"250 2.0.0 Ok: queued as ")
    (blob,) = running.rig.blobs()
    assert blob.startswith(b"Received: from secret.test ") and b"ESMTPS" in blob and b"TLSv1.3" in blob
    assert running.rig.counter(METRICS.tls_connections_total["smtp", "TLSv1.3"]) == 1
    talk.writer.close()


@pytest.mark.parametrize("smuggled", [b"RSET\r\nEHLO evil.test\r\n", b"EHLO evil.test\r\nVRFY ", b"VR", b"x" * 5000])
async def test_a_command_smuggled_before_the_handshake_is_never_run(running: Running, smuggled: bytes) -> None:
    """Nor is a part of one put in front of the first command inside TLS."""
    talk = await running.connect()
    await talk.say(b"EHLO plain.test\r\n")
    assert (await talk.say(b"STARTTLS\r\n" + smuggled)).startswith(b"220 ")
    await talk.writer.start_tls(running.tls)
    assert (await talk.say(b"NOOP\r\n")).startswith(b"250 2.0.0 Ok")
    assert (await talk.say(b"RCPT TO:<x@relay.test>\r\n")).startswith(b"503 ")
    talk.writer.close()


async def test_a_failed_handshake_ends_that_session_alone(running: Running) -> None:
    talk = await running.connect()
    other = await running.connect()
    await talk.say(b"EHLO plain.test\r\n")
    await talk.say(b"STARTTLS\r\n")
    talk.writer.write(b"this is no ClientHello\r\n" * 10)
    async with asyncio.timeout(60):
        await talk.reader.read()
    assert (await other.say(b"NOOP\r\n")).startswith(b"250 ")
    talk.writer.close()
    other.writer.close()


async def test_implicit_tls_takes_a_submitted_message(running: Running) -> None:
    talk = await running.connect("submissions")
    assert b"AUTH PLAIN LOGIN" in await talk.say(b"EHLO me.test\r\n")
    assert (await talk.say(b"AUTH PLAIN AGJpbGxAZXhhbXBsZS50ZXN0AHNlY3JldA==\r\n")).startswith(b"235 ")
    talk.writer.write(b"MAIL FROM:<bill@example.test>\r\nRCPT TO:<x@far.test>\r\nDATA\r\n")
    assert [(await talk.reply())[:3] for _ in range(3)] == [b"250", b"250", b"354"]
    assert (await talk.say(b"x: y\r\n\r\nz\r\n.\r\n")).startswith(b"250 ")
    assert b" with ESMTPSA id " in running.rig.blobs()[0]
    assert (await talk.say(b"QUIT\r\n")).startswith(b"221 ")
    assert await talk.reader.read() == b""
    talk.writer.close()


async def test_who_talks_before_the_greeting_is_turned_away(running: Running) -> None:
    port = await running.listen("smtp")
    loop = asyncio.get_running_loop()
    with socket.socket() as client:  # connected and written to before the loop has had a turn to accept
        client.connect(("127.0.0.1", port))
        client.sendall(b"EHLO eager.test\r\nMAIL FROM:<a@b>\r\n")
        client.setblocking(False)
        said = b""
        async with asyncio.timeout(60):
            while piece := await loop.sock_recv(client, 4096):
                said += piece
    assert said.startswith(b"554 5.5.1 ") and said.count(b"\r\n") == 1


async def test_a_message_of_many_chunks_streams_through(running: Running) -> None:
    talk = await running.connect()
    await talk.say(b"EHLO big.test\r\n")
    talk.writer.write(OPEN + b"DATA\r\n")
    for _ in range(3):
        await talk.reply()
    line = b"0123456789" * 7 + b"\r\n"
    for _ in range(90):
        talk.writer.write(line * 1000)
        await talk.writer.drain()
    assert (await talk.say(b".\r\n")).startswith(b"250 ")
    assert running.rig.blobs()[0].endswith(line * 90_000)
    talk.writer.close()


async def test_a_client_that_closes_its_half_gets_all_answers(running: Running) -> None:
    talk = await running.connect()
    talk.writer.write(b"EHLO one.test\r\n" + OPEN + b"DATA\r\nx\r\n.\r\nQUIT\r\n")
    talk.writer.write_eof()
    async with asyncio.timeout(60):
        said = await talk.reader.read()
    assert said.count(b"\r\n250 2.0.0 Ok: queued as ") == 1 and said.endswith(b"221 2.0.0 Bye\r\n")
    talk.writer.close()


async def test_draining_says_421_at_each_quiet_moment(running: Running) -> None:
    quiet, busy = await running.connect(), await running.connect()
    await quiet.say(b"EHLO quiet.test\r\n")
    await busy.say(b"EHLO busy.test\r\n")
    busy.writer.write(OPEN + b"DATA\r\n")
    for _ in range(3):
        await busy.reply()
    running.rig.server.drain()
    assert (await quiet.reply()).startswith(b"421 4.3.2 ")
    assert (await busy.say(b"x\r\n.\r\n")).startswith(b"250 ")
    assert (await busy.reply()).startswith(b"421 4.3.2 ")
    assert await busy.reader.read() == b""
    quiet.writer.close()
    busy.writer.close()


async def test_one_client_may_not_have_more_connections_than_its_limit(tmp_path: Path) -> None:
    rig = SmtpRig(tmp_path)
    clients = [rig.connect(ip="198.51.100.1") for _ in range(50)]
    over = rig.connect_silently(ip="198.51.100.1")
    assert over.take().startswith(b"421 4.7.0 ") and over.ended
    over.lose()
    assert not rig.connect(ip="198.51.100.2").ended and not rig.connect(ip="127.0.0.1").ended
    clients.pop().lose()
    assert not rig.connect(ip="198.51.100.1").ended
    rig.close()
