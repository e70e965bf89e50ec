"""The PROXY protocol: who is believed, what is a header, and that nothing behind it is taken."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from fastmta.policy.networks import Networks
from fastmta.runtime.log import Log
from fastmta.supervisor.acceptor import Acceptor
from fastmta.supervisor.proxy_header import (
    SIGNATURE,
    V1_BYTES,
    V2_EXTRA_BYTES,
    BadHeader,
    Peer,
    parse,
    read_header,
    wanted,
)
from fastmta.tls.certificate import write_self_signed


def v2(command: int, family: int, addresses: bytes, extra: bytes = b"") -> bytes:
    return SIGNATURE + bytes([command, family]) + struct.pack(">H", len(addresses) + len(extra)) + addresses + extra


V4 = socket.inet_aton("198.51.100.7") + socket.inet_aton("192.0.2.1") + struct.pack(">HH", 4711, 25)
V6 = b"".join(socket.inet_pton(socket.AF_INET6, each) for each in ("2001:db8::7", "2001:db8::1")) + struct.pack(
    ">HH", 4712, 25
)
GOOD = [
    (b"PROXY TCP4 198.51.100.7 192.0.2.1 4711 25\r\n", Peer("198.51.100.7", 4711)),
    (b"PROXY TCP6 2001:db8::7 2001:db8::1 4712 25\r\n", Peer("2001:db8::7", 4712)),
    (b"PROXY TCP6 ::ffff:198.51.100.7 ::1 4711 25\r\n", Peer("198.51.100.7", 4711)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN " + b"x" * (V1_BYTES - 16) + b"\r\n", None),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
    (v2(0x21, 0x11, V4), Peer("198.51.100.7", 4711)),
    (v2(0x21, 0x11, V4, b"\x03\x00\x04abcd"), Peer("198.51.100.7", 4711)),
    (v2(0x21, 0x21, V6), Peer("2001:db8::7", 4712)),
    (v2(0x20, 0x00, b""), None),
    (v2(0x21, 0x31, b"\0" * 216), None),
    (v2(0x21, 0x11, V4, b"\0" * (V2_EXTRA_BYTES - len(V4))), Peer("198.51.100.7", 4711)),
]
BAD = [
    b"EHLO a.test\r\n",
    b"PROXY\r\nEHLO x\r\n",
    b"PROXY TCP4 198.51.100.7 192.0.2.1 4711\r\n",
    b"PROXY TCP4 198.51.100.7 192.0.2.1 4711 65536\r\n",
    b"PROXY TCP4 198.51.100.7 192.0.2.1 4711 -1\r\n",
    b"PROXY TCP4 2001:db8::7 2001:db8::1 4711 25\r\n",
    b"PROXY TCP4 1.2.3 192.0.2.1 4711 25\r\n",
    b"PROXY UDP4 198.51.100.7 192.0.2.1 4711 25\r\n",
    b"PROXY TCP4 " + b"1" * V1_BYTES + b"\r\n",
    b"PROXY UNKNOWN " + b"x" * (V1_BYTES - 15) + b"\r\n",
    b"PROXY TCP4 a\nb\r\n",
    SIGNATURE[:-1] + b"X" + b"\x21\x11\x00\x0c" + V4,
    v2(0x11, 0x11, V4),
    v2(0x22, 0x11, V4),
    v2(0x21, 0x11, V4[:8]),
    v2(0x21, 0x11, b"\0" * (V2_EXTRA_BYTES + 1)),
    b"\x16\x03\x01\x02\x00\x01",
]


def take(stream: bytes) -> tuple[Peer | None, bytes]:
    """What a reader comes to that asks for no more than it wants, and what it leaves."""
    raw = b""
    while (more := wanted(raw)) > 0:
        if len(raw) == len(stream):
            raise EOFError
        raw = stream[: len(raw) + min(more, len(stream) - len(raw))]
    return parse(raw), stream[len(raw) :]


@pytest.mark.parametrize(("header", "peer"), GOOD)
@pytest.mark.parametrize("rest", [b"", b"\r\n", b"EHLO a\r\n", b"\x16\x03\x01"])
def test_a_header_is_taken_and_nothing_more(header: bytes, peer: Peer | None, rest: bytes) -> None:
    assert take(header + rest) == (peer, rest)


@pytest.mark.parametrize(("header", "peer"), GOOD)
def test_a_part_of_a_header_waits_for_the_rest(header: bytes, peer: Peer | None) -> None:
    for octets in range(min(len(header), 60)):
        assert wanted(header[:octets]) > 0


@pytest.mark.parametrize("stream", BAD)
def test_what_is_no_header_is_refused(stream: bytes) -> None:
    with pytest.raises(BadHeader):
        take(stream)


class Lines:
    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))

    error = info = warning


class Session(asyncio.Protocol):
    """Says who it takes the client for, and repeats what it gets."""

    told_peer: tuple[str, int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.stream = cast("asyncio.Transport", transport)
        self.stream.write(f"{(self.told_peer or transport.get_extra_info('peername'))[0]}\n".encode())

    def data_received(self, data: bytes) -> None:
        self.stream.write(data)


class Place:
    def __init__(self) -> None:
        self.lines = Lines()
        self.acceptor = Acceptor(asyncio.get_running_loop(), cast("Log", self.lines))
        self.where: dict[str, tuple[str, int]] = {}

    async def listen(self, service: str, context: ssl.SSLContext | None = None) -> None:
        sock = socket.create_server(("127.0.0.1", 0))
        sock.setblocking(False)
        self.where[service] = sock.getsockname()
        await self.acceptor.add(0, service, sock, Session, lambda: context)

    async def dial(self, service: str = "smtp", **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.where[service], **options)


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    place = Place()
    yield place
    place.acceptor.close()


async def test_a_listed_proxy_speaks_for_its_client(place: Place) -> None:
    await place.acceptor.trust(Networks(["127.0.0.0/8"]), 30)
    await place.listen("smtp")
    for header, peer in GOOD[:7]:
        reader, writer = await place.dial()
        writer.write(header + b"hello\n")
        assert await reader.readline() == (peer.ip if peer else "127.0.0.1").encode() + b"\n"
        assert await reader.readline() == b"hello\n"
        writer.close()


async def test_a_header_may_come_octet_by_octet(place: Place) -> None:
    await place.acceptor.trust(Networks(["127.0.0.1"]), 30)
    await place.listen("smtp")
    reader, writer = await place.dial()
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for octet in GOOD[0][0]:
        writer.write(bytes([octet]))
        await asyncio.sleep(0)
    assert await reader.readline() == b"198.51.100.7\n"
    writer.close()


async def test_whoever_is_not_listed_is_served_as_always(place: Place) -> None:
    await place.acceptor.trust(Networks(["192.0.2.1"]), 30)
    await place.listen("smtp")
    reader, writer = await place.dial()
    assert await reader.readline() == b"127.0.0.1\n"
    writer.write(GOOD[0][0])
    assert await reader.readline() == GOOD[0][0]  # a line like any other
    writer.close()


@pytest.mark.parametrize("said", [b"EHLO a.test\r\n", b""])
async def test_a_proxy_without_a_header_is_cut_off_and_named(place: Place, said: bytes) -> None:
    await place.acceptor.trust(Networks(["127.0.0.1"]), 0.05)
    await place.listen("smtp")
    reader, writer = await place.dial()
    writer.write(said)
    with contextlib.suppress(ConnectionResetError):  # what was said and not read resets the connection
        assert await reader.read() == b""
    writer.close()
    assert place.lines.events[0][0] == "listener.no_proxy_header"
    assert place.lines.events[0][1]["client"] == "127.0.0.1"


async def test_trust_comes_and_goes_without_losing_the_socket(place: Place) -> None:
    await place.listen("smtp")
    for networks, first in (([], b""), (["127.0.0.1"], GOOD[0][0]), ([], b"")):
        await place.acceptor.trust(Networks(networks), 30)
        reader, writer = await place.dial()
        writer.write(first)
        assert await reader.readline() == (b"198.51.100.7\n" if first else b"127.0.0.1\n")
        writer.close()


async def test_the_header_comes_before_tls(place: Place, tmp_path: Path) -> None:
    tls_files = tmp_path / "cert.pem", tmp_path / "key.pem"
    write_self_signed(*tls_files, ["mx.example.test"])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*tls_files)
    trusting = ssl.create_default_context(cafile=str(tls_files[0]))
    trusting.check_hostname = False
    await place.acceptor.trust(Networks(["127.0.0.1"]), 30)
    await place.listen("submissions", context)
    sock = socket.create_connection(place.where["submissions"])
    sock.sendall(GOOD[0][0])
    reader, writer = await asyncio.open_connection(sock=sock, ssl=trusting, server_hostname="mx.example.test")
    assert await reader.readline() == b"198.51.100.7\n"
    writer.write(b"hello\n")
    assert await reader.readline() == b"hello\n"
    writer.close()


@pytest.mark.parametrize(("raw", "expected"), GOOD)
async def test_a_header_that_comes_in_two_pieces_leaves_what_follows(raw: bytes, expected: Peer | None) -> None:
    loop = asyncio.get_running_loop()
    for split in {*range(0, min(len(raw), 130), 3), len(raw) - 1, len(raw)}:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            theirs.sendall(raw[:split])
            reading = asyncio.ensure_future(read_header(loop, ours, 60.0))
            await asyncio.sleep(0)
            theirs.sendall(raw[split:] + b"PROXY x\r\n")
            assert await reading == expected
            assert ours.recv(100) == b"PROXY x\r\n"


async def test_a_header_that_is_there_costs_few_calls_of_the_system() -> None:
    calls: list[int] = []

    class Counted(socket.socket):
        def recv(self, octets: int, flags: int = 0, /) -> bytes:
            calls.append(flags)
            return super().recv(octets, flags)

    ours, theirs = socket.socketpair()
    with theirs, Counted(fileno=ours.detach()) as counted:
        counted.setblocking(False)
        theirs.sendall(GOOD[0][0] + b"EHLO a\r\n")
        await read_header(asyncio.get_running_loop(), counted, 60.0)
    assert calls == [socket.MSG_PEEK, 0]
