"""BINARY: decoding in any pieces, parts larger than a chunk, partials, and who leaves or expunges meanwhile."""

import base64
import binascii
import quopri
import random

import pytest

from fastmta.imap.fetch_binary import Base64, QuotedPrintable
from fastmta.model.limits import IMAP_BINARY_BYTES, IMAP_CHUNK_BYTES
from tests.imap.harness import World


def pieces(decoder: Base64 | QuotedPrintable, data: bytes, size: int) -> bytes:
    cuts = [data[at : at + size] for at in range(0, len(data), size)] or [b""]
    return b"".join(decoder.feed(piece, final=n == len(cuts)) for n, piece in enumerate(cuts, 1))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_decoding_is_the_same_in_any_pieces(size: int) -> None:
    rng = random.Random(size)
    plain = bytes(rng.randrange(256) for _ in range(500))
    assert pieces(Base64(), binascii.b2a_base64(plain), size) == plain
    assert pieces(Base64(), base64.encodebytes(plain).replace(b"\n", b" \r\n"), size) == plain
    assert pieces(QuotedPrintable(), quopri.encodestring(plain), size) == plain


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", b""),
        (b"====", b""),
        (b"A", b""),
        (b"QQ", b"A"),
        (b"QUI", b"AB"),
        (b"QQ==QkM=", b"A"),
        (b"Q\0Q\xff==", b"A"),
    ],
)
def test_damaged_base64_gives_what_there_is(raw: bytes, expected: bytes) -> None:
    assert pieces(Base64(), raw, 1000) == expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"a=", b"a"),
        (b"a=\r\nb", b"ab"),
        (b"a  \r\nb\t\n", b"a\r\nb\n"),
        (b"a= \r\nb", b"ab"),
        (b"=ZZ=4", b"=ZZ=4"),
    ],
)
def test_damaged_quoted_printable_gives_what_there_is(raw: bytes, expected: bytes) -> None:
    assert pieces(QuotedPrintable(), raw, 1000) == expected


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_a_line_without_an_end_is_not_kept(over: int) -> None:
    decoder = QuotedPrintable()
    out = decoder.feed(b"=41" * ((IMAP_BINARY_BYTES + over) // 3 + 1), final=False)
    assert len(out) + len(decoder._rest) // 3 == (IMAP_BINARY_BYTES + over) // 3 + 1
    assert len(decoder._rest) <= 3 or over < 0


async def message_with(world: World, plain: bytes) -> bytes:
    """A message of one base64 part is in the mailbox; its raw octets."""
    world.services.config.message_size_limit = 50_000_000
    head = b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
    raw = head + base64.encodebytes(plain).replace(b"\n", b"\r\n")
    client = await world.login()
    assert (await client.append(raw)).startswith(b"OK")
    client.transport.close()
    return raw


@pytest.mark.parametrize("size", [10, IMAP_BINARY_BYTES, IMAP_CHUNK_BYTES * 3 + 1])
async def test_a_part_of_any_size(world: World, size: int) -> None:
    plain = random.Random(size).randbytes(size).replace(b"\0", b"\1")
    raw = await message_with(world, plain)
    client = await world.login("INBOX")
    for item, expected in [
        (b"BINARY.PEEK[1]", b"BINARY[1] {%d}\r\n%b" % (size, plain)),
        (b"BINARY.PEEK[1]<5.100000>", b"BINARY[1]<5> {%d}\r\n%b" % (len(plain[5:100_005]), plain[5:100_005])),
        (b"BINARY.PEEK[1]<%d.10>" % size, b"BINARY[1]<%d> {0}\r\n" % size),
        (b"BINARY.PEEK[1]<4294967295.4294967295>", b"BINARY[1]<4294967295> {0}\r\n"),
        (b"BINARY.SIZE[1]", b"BINARY.SIZE[1] %d" % size),
        (b"BINARY.SIZE[]", b"BINARY.SIZE[] %d" % len(raw)),
    ]:
        out = await client.send(b"a FETCH 1 %b\r\n" % item)
        assert out == b"* 1 FETCH (%b)\r\na OK FETCH completed\r\n" % expected


async def test_the_whole_message_is_as_it_is(world: World) -> None:
    raw = await message_with(world, b"x" * 300_000)
    client = await world.login("INBOX")
    out = await client.send(b"a FETCH 1 BINARY.PEEK[]\r\n")
    assert out == b"* 1 FETCH (BINARY[] ~{%d}\r\n%b)\r\na OK FETCH completed\r\n" % (len(raw), raw)


async def test_sections_of_the_whole_and_of_its_parts_in_any_order(world: World) -> None:
    raw = await message_with(world, b"Hello")
    client = await world.login("INBOX")
    out = await client.send(b"a FETCH 1 (BINARY.SIZE[] BINARY.PEEK[1] BODY.PEEK[1]<0.4> BINARY.SIZE[1])\r\n")
    expected = b"BINARY.SIZE[] %d BINARY[1] {5}\r\nHello BODY[1]<0> {4}\r\nSGVs BINARY.SIZE[1] 5" % len(raw)
    assert out == b"* 1 FETCH (%b)\r\na OK FETCH completed\r\n" % expected


async def test_no_more_than_a_chunk_is_decoded_ahead_of_a_peer_that_does_not_read(world: World) -> None:
    await message_with(world, b"x" * 700_000)
    client = await world.login("INBOX")
    client.transport.full = True
    client.protocol.data_received(b"a FETCH 1 (BINARY.PEEK[1] BINARY.PEEK[1])\r\n")
    await client.settle()
    assert len(client.take()) <= IMAP_CHUNK_BYTES
    client.transport.close()
    await client.settle()
    assert world.server.sessions == 0


async def test_a_reader_gets_a_part_that_is_expunged_meanwhile(world: World) -> None:
    plain = b"x" * 700_000
    await message_with(world, plain)
    slow, other = await world.login("INBOX"), await world.login("INBOX")
    slow.transport.full = True
    slow.protocol.data_received(b"a FETCH 1 BINARY.PEEK[1]\r\n")
    await slow.settle()
    await other.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    await other.ok("EXPUNGE")
    slow.transport.full = False
    slow.protocol.resume_writing()
    await slow.settle()
    assert plain in slow.take()


async def test_what_a_message_is_stays_with_its_copies(world: World) -> None:
    """RFC 8474: COPY and MOVE keep EMAILID, RENAME keeps MAILBOXID."""
    client = await world.login()
    assert (await client.append(b"A: b\r\n\r\none")).startswith(b"OK")
    assert (await client.append(b"A: b\r\n\r\ntwo")).startswith(b"OK")
    await client.ok("SELECT INBOX")
    lines = await client.ok("FETCH 1:2 EMAILID")
    first, second = (line.split(b"(", 2)[2].rstrip(b")") for line in lines)
    assert first != second
    await client.ok("COPY 1 Sent")
    await client.ok("MOVE 2 Sent")
    box = await client.ok("STATUS Sent (MAILBOXID)")
    await client.ok("RENAME Sent Elsewhere")
    assert [line.split(b"(")[-1] for line in await client.ok("STATUS Elsewhere (MAILBOXID)")] == [
        line.split(b"(")[-1] for line in box
    ]
    await client.ok("SELECT Elsewhere")
    assert await client.ok("FETCH 1:2 EMAILID") == [
        b"* 1 FETCH (EMAILID (%b))" % first,
        b"* 2 FETCH (EMAILID (%b))" % second,
    ]
    assert await client.ok(b"SEARCH EMAILID " + second) == [b"* SEARCH 2"]
