"""STARTTLS on both sides, on asyncio's loop and on uvloop."""

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
import uvloop

from fastmta.tls.certificate import write_self_signed
from fastmta.tls.contexts import client_context, server_context
from fastmta.tls.upgrade import SharedBuffer, start_tls


class Settings:
    ssl_min_protocol = "TLSv1.2"
    smtpd_tls_eccert_file = ""
    smtp_tls_CAfile = ""

    def __init__(self, directory: Path) -> None:
        self.cert_file = str(directory / "cert.pem")
        self.key_file = str(directory / "key.pem")


class Session(asyncio.Protocol):
    """Notes what it is told, and on which transport it would answer."""

    def __init__(self):
        self.transport = None
        self.got = []
        self.lost = []
        self.arrived = asyncio.Event()
        self.gone = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        assert type(data) is bytes
        self.got.append((data, self.transport.get_extra_info("ssl_object") is not None))
        self.arrived.set()

    def connection_lost(self, exc):
        self.lost.append(exc)
        self.gone.set()


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def runner(coroutine):
        with asyncio.Runner(loop_factory=factory) as loop:
            return loop.run(coroutine)

    return runner


@pytest.fixture
def settings(tmp_path):
    found = Settings(tmp_path)
    write_self_signed(tmp_path / "cert.pem", tmp_path / "key.pem", ["mx.example.test", "127.0.0.1"])
    return found


async def pair():
    """Two connected plain sessions."""
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    server, client = Session(), Session()
    await loop.connect_accepted_socket(lambda: server, ours)
    await loop.connect_accepted_socket(lambda: client, theirs)
    return loop, server, client


async def upgrade(loop, session, context, **options):
    session.transport = await start_tls(loop, session.transport, session, context, **options)


def test_both_sides_upgrade_and_bytes_flow(run, settings):
    async def scenario():
        loop, server, client = await pair()
        await asyncio.gather(
            upgrade(loop, server, server_context(settings)),
            upgrade(loop, client, client_context("may"), server_side=False, server_hostname="mx.example.test"),
        )
        client.transport.write(b"EHLO a\r\n")
        await asyncio.wait_for(server.arrived.wait(), 60)
        assert server.got == [(b"EHLO a\r\n", True)]
        client.transport.close()
        await asyncio.wait_for(server.gone.wait(), 60)
        server.transport.close()
        assert len(server.lost) == 1

    run(scenario())


def test_bytes_sent_with_the_end_of_the_handshake_wait_for_the_new_transport(run, settings):
    def blocking_client(sock, context):
        sock.setblocking(True)
        with context.wrap_socket(sock, server_hostname="x", do_handshake_on_connect=True) as tls:
            tls.sendall(b"EHLO early\r\n" * 1000)
            return tls.recv(100)

    async def scenario():
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        server = Session()
        await loop.connect_accepted_socket(lambda: server, ours)
        client = asyncio.create_task(asyncio.to_thread(blocking_client, theirs, client_context("may")))
        await upgrade(loop, server, server_context(settings))
        while sum(len(data) for data, _ in server.got) < 12_000:
            server.arrived.clear()
            await asyncio.wait_for(server.arrived.wait(), 60)
        assert all(encrypted for _, encrypted in server.got)
        server.transport.write(b"250 ok\r\n")
        assert await client == b"250 ok\r\n"
        await asyncio.wait_for(server.gone.wait(), 60)

    run(scenario())


def test_adopt_is_given_the_transport_before_any_byte_is(run, settings):
    async def scenario():
        loop, server, client = await pair()

        def adopt(transport):
            assert not server.got
            server.transport = transport

        task = asyncio.create_task(
            start_tls(loop, server.transport, server, server_context(settings), adopt=adopt),
        )
        await upgrade(loop, client, client_context("may"), server_side=False, server_hostname="x")
        client.transport.write(b"x")
        await asyncio.wait_for(server.arrived.wait(), 60)
        await task
        assert server.got == [(b"x", True)]
        client.transport.abort()
        server.transport.abort()
        await asyncio.wait_for(server.gone.wait(), 60)

    run(scenario())


def test_plain_text_instead_of_a_handshake_raises_and_loses_the_connection_once(run, settings):
    async def scenario():
        loop, server, client = await pair()
        client.transport.write(b"EHLO still plain\r\n" * 50)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await upgrade(loop, server, server_context(settings))
        await asyncio.wait_for(client.gone.wait(), 60)
        assert len(server.lost) == 1
        assert server.got == []

    run(scenario())


@pytest.mark.parametrize("reset", [False, True])
def test_a_peer_that_leaves_in_the_handshake_raises(run, settings, reset):
    async def scenario():
        loop, server, client = await pair()
        if reset:
            client.transport.abort()
        else:
            client.transport.close()
        with pytest.raises((ssl.SSLError, OSError, TimeoutError)):
            await upgrade(loop, server, server_context(settings), timeout_s=1)
        assert len(server.lost) == 1

    run(scenario())


def test_a_silent_peer_meets_the_deadline(run, settings):
    async def scenario():
        loop, server, client = await pair()
        with pytest.raises((TimeoutError, ConnectionError)):
            await upgrade(loop, server, server_context(settings), timeout_s=0.1)
        assert len(server.lost) == 1
        await asyncio.wait_for(client.gone.wait(), 60)

    run(scenario())


def test_implicit_tls_wraps_the_session_in_the_shared_buffer(run, settings):
    async def scenario():
        loop = asyncio.get_running_loop()
        session, client = Session(), Session()
        listener = await loop.create_server(lambda: SharedBuffer(session), "127.0.0.1", 0, ssl=server_context(settings))
        port = listener.sockets[0].getsockname()[1]
        await loop.create_connection(lambda: client, "127.0.0.1", port, ssl=client_context("may"), server_hostname="x")
        client.transport.write(b"a1 NOOP\r\n")
        await asyncio.wait_for(session.arrived.wait(), 60)
        assert session.got == [(b"a1 NOOP\r\n", True)]
        client.transport.close()
        await asyncio.wait_for(session.gone.wait(), 60)
        listener.close()
        await listener.wait_closed()

    run(scenario())


def test_two_sessions_never_share_bytes():
    first, second = Session(), Session()
    for session in (first, second):
        session.transport = asyncio.Transport()
    one, two = SharedBuffer(first), SharedBuffer(second)
    for wrapped, data in ((one, b"first"), (two, b"other"), (one, b"again")):
        wrapped.get_buffer(-1)[: len(data)] = data
        wrapped.buffer_updated(len(data))
    assert [data for data, _ in first.got] == [b"first", b"again"]
    assert [data for data, _ in second.got] == [b"other"]


def test_nothing_held_is_delivered_after_the_connection_is_lost():
    session = Session()
    wrapped = SharedBuffer(session, hold=True)
    wrapped.get_buffer(-1)[:1] = b"x"
    wrapped.buffer_updated(1)
    wrapped.connection_lost(None)
    wrapped.release()
    wrapped.connection_lost(None)
    assert session.got == []
    assert session.lost == [None]
