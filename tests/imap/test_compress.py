"""COMPRESS=DEFLATE (RFC 4978)."""

import random
import tracemalloc
import zlib
from typing import Any

import pytest

from fastmta.imap.compression import BadStream, Compression
from fastmta.model.limits import IMAP_DEFLATE_BYTES, IMAP_INFLATE_BYTES
from tests.imap.harness import Client, World, split_responses


class Compressed:
    """A client whose connection is compressed; `cut` octets of its stream come at a time."""

    def __init__(self, client: Client, cut: int = 0) -> None:
        self.client = client
        self.cut = cut
        self.deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
        self.inflater = zlib.decompressobj(-15)

    def packed(self, plain: bytes) -> bytes:
        return self.deflater.compress(plain) + self.deflater.flush(zlib.Z_SYNC_FLUSH)

    async def send(self, plain: bytes) -> bytes:
        raw = self.packed(plain)
        out = b""
        step = self.cut or len(raw)
        for begin in range(0, len(raw), step):
            out += await self.client.send(raw[begin : begin + step])
        out += await self.client.send(b"") if not out else b""
        return self.inflater.decompress(out)


async def compressed(world: World, cut: int = 0) -> Compressed:
    client = await world.login("INBOX")
    assert await client.do("COMPRESS DEFLATE") == [b"OK DEFLATE active"]
    return Compressed(client, cut)


@pytest.mark.parametrize("cut", [0, 1, 5])
async def test_everything_after_the_ok_is_compressed(world: World, cut: int) -> None:
    peer = await compressed(world, cut)
    assert b"c1 OK NOOP completed\r\n" in await peer.send(b"c1 NOOP\r\n")
    out = await peer.send(b"c2 CAPABILITY\r\nc3 COMPRESS DEFLATE\r\nc4 NOOP\r\n")
    assert b"COMPRESS=DEFLATE" not in out
    assert b"c3 NO [COMPRESSIONACTIVE] " in out
    assert out.endswith(b"c4 OK NOOP completed\r\n")


async def test_compress_is_offered_after_login_and_knows_deflate_alone(world: World) -> None:
    client = world.connect()
    await client.settle()
    client.take()
    assert (await client.do("COMPRESS DEFLATE"))[-1].startswith(b"BAD")
    await client.ok("LOGIN user@example.test secret")
    assert b"COMPRESS=DEFLATE" in (await client.ok("CAPABILITY"))[0]
    assert (await client.do("COMPRESS LZ4"))[-1].startswith(b"NO")
    assert (await client.do("COMPRESS"))[-1].startswith(b"BAD")


async def test_what_is_pipelined_behind_compress_is_compressed(world: World) -> None:
    client = await world.login()
    peer = Compressed(client)
    out = await client.send(b"x COMPRESS DEFLATE\r\n" + peer.packed(b"y NOOP\r\n"))
    plain, _, rest = out.partition(b"\r\n")
    assert plain == b"x OK DEFLATE active"
    assert peer.inflater.decompress(rest) == b"y OK NOOP completed\r\n"


async def test_a_large_message_goes_in_and_out(world: World) -> None:
    peer = await compressed(world, 10_000)
    message = random.Random(1).randbytes(700_000).hex().encode()[:900_000]
    out = await peer.send(b"a APPEND INBOX {%d+}\r\n%b\r\n" % (len(message), message))
    assert b"a OK [APPENDUID" in out
    out = await peer.send(b"b FETCH 1 BODY.PEEK[]\r\nc NOOP\r\n")
    lines = split_responses(out)
    assert lines[0].partition(b"\r\n")[2][:-1] == message
    assert lines[-2:] == [b"b OK FETCH completed", b"c OK NOOP completed"]


async def test_a_peer_that_does_not_read_holds_what_it_is_owed(world: World) -> None:
    peer = await compressed(world)
    message = random.Random(1).randbytes(400_000).hex().encode()
    await peer.send(b"a APPEND INBOX {%d+}\r\n%b\r\n" % (len(message), message))
    transport = peer.client.transport
    transport.full = True
    peer.client.protocol.data_received(peer.packed(b"b FETCH 1 BODY.PEEK[]\r\n"))
    await peer.client.settle()
    assert len(transport.out) < 3 * IMAP_DEFLATE_BYTES
    out = peer.inflater.decompress(peer.client.take())
    while b"b OK" not in out:
        peer.client.protocol.resume_writing()
        await peer.client.settle()
        out += peer.inflater.decompress(peer.client.take())
    assert message in out


async def test_a_bomb_costs_no_memory_and_ends_the_session(world: World) -> None:
    peer = await compressed(world)
    bomb = zlib.compressobj(9, zlib.DEFLATED, -15)
    raw = bomb.compress(b"a" * 40_000_000) + bomb.flush(zlib.Z_SYNC_FLUSH)
    assert len(raw) < 60_000
    tracemalloc.start()
    out = await peer.client.send(raw)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert b"* BYE [TOOBIG]" in peer.inflater.decompress(out)
    assert peak < 2_000_000
    assert peer.client.transport.closed


async def test_a_bomb_of_commands_leaves_others_their_turns(world: World) -> None:
    peer = await compressed(world)
    other = await world.login()
    peer.client.protocol.data_received(peer.packed(b"x NOOP\r\n" * 50_000))
    assert (await other.do("NOOP"))[-1] == b"OK NOOP completed"
    assert peer.client.protocol.waiting
    await peer.client.settle()


@pytest.mark.parametrize("raw", [b"a NOOP\r\n", b"\xff\xff\xff\xff"])
async def test_what_is_not_compressed_ends_the_session(world: World, raw: bytes) -> None:
    peer = await compressed(world)
    out = await peer.client.send(raw)
    assert peer.inflater.decompress(out).startswith(b"* BYE ")
    assert peer.client.transport.closed


async def test_the_end_of_the_stream_ends_the_session(world: World) -> None:
    peer = await compressed(world)
    raw = peer.deflater.compress(b"a NOOP\r\n") + peer.deflater.flush(zlib.Z_FINISH)
    out = peer.inflater.decompress(await peer.client.send(raw))
    assert out.startswith(b"a OK NOOP completed\r\n* BYE ")


@pytest.mark.parametrize("size", [IMAP_INFLATE_BYTES - 1, IMAP_INFLATE_BYTES, IMAP_INFLATE_BYTES + 1])
def test_a_stream_is_expanded_a_piece_at_a_time(size: int) -> None:
    deflater: Any = zlib.compressobj(9, zlib.DEFLATED, -15)
    stream = Compression()
    stream.feed(deflater.compress(b"a" * size) + deflater.flush(zlib.Z_SYNC_FLUSH))
    pieces = []
    while stream.has_input:
        pieces.append(stream.inflate())
    assert b"".join(pieces) == b"a" * size
    assert max(map(len, pieces)) <= IMAP_INFLATE_BYTES
    with pytest.raises(BadStream):
        stream.feed(b"\xff\xff\xff\xff\xff")
        stream.inflate()
