"""FETCH where the store's loop ends and the streams begin."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.imap.harness import World, make_world

SMALL = b"Subject: small\r\n\r\nhi\r\n"
LARGE = b"Subject: large\r\n\r\n" + b"y" * 300_000


@pytest.mark.parametrize("peek", [".PEEK", ""])
async def test_large_messages_between_small_ones_come_whole_and_in_order(world: World, peek: str) -> None:
    client = await world.login("INBOX")
    for message in (SMALL, LARGE, SMALL, LARGE):
        assert (await client.append(message)).startswith(b"OK")
    await client.ok("NOOP")
    lines = await client.ok(f"UID FETCH 1:* BODY{peek}[]")
    seen = b" FLAGS (\\Seen \\Recent)" if not peek else b""
    for seq, message in enumerate((SMALL, LARGE, SMALL, LARGE), 1):
        expected = b"* %d FETCH (UID %d%b BODY[] {%d}\r\n%b)" % (seq, seq, seen, len(message), message)
        assert lines[seq - 1] == expected
    assert len(lines) == 4


async def test_a_message_is_marked_as_seen_once_and_never_in_a_read_only_mailbox(world: World) -> None:
    client = await world.login("INBOX")
    await client.append(SMALL)
    await client.ok("EXAMINE INBOX")
    lines = await client.ok("FETCH 1 BODY[TEXT]")
    assert lines == [b"* 1 FETCH (BODY[TEXT] {4}\r\nhi\r\n)"]
    await client.ok("SELECT INBOX")
    assert b"\\Seen" in (await client.ok("FETCH 1 BODY[TEXT]"))[-1]
    assert await client.ok("FETCH 1 BODY[TEXT]") == [b"* 1 FETCH (BODY[TEXT] {4}\r\nhi\r\n)"]
    for command in ("STORE 1 FLAGS ()", "EXPUNGE"):
        await client.ok("EXAMINE INBOX")
        assert (await client.do(command))[-1].startswith(b"NO [READ-ONLY]")


@pytest.mark.parametrize(
    "items",
    [
        "",
        "()",
        "FOO",
        "(FLAGS",
        "FLAGS)",
        "BODY[",
        "BODY[FOO]",
        "BODY[0]",
        "BODY[MIME]",
        "BODY[1.]",
        "BODY[HEADER.FIELDS]",
        "BODY[HEADER.FIELDS ()]",
        "BODY[]<0>",
        "BODY[]<0.0>",
        "BODY.PEEK",
        "(ALL)",
        "BODY[1.HEADER.FIELDS.FOO (A)]",
    ],
)
@pytest.mark.parametrize("store_kind", ["memory"])
async def test_what_is_no_fetch_att_is_bad(world: World, items: str) -> None:
    client = await world.login("INBOX")
    await client.append(SMALL)
    await client.ok("NOOP")
    lines = await client.do(f"FETCH 1 {items}")
    assert lines[-1].startswith(b"BAD"), lines


async def test_new_keywords_are_named_before_they_are_used(world: World) -> None:
    one, two = await world.login("INBOX"), await world.login("INBOX")
    await one.append(SMALL)
    await one.ok("NOOP")
    await two.ok("NOOP")
    await one.ok("STORE 1 +FLAGS.SILENT (NewWord)")
    lines = await two.ok("FETCH 1 FLAGS")
    assert lines[0].startswith(b"* FLAGS (") and b"NewWord" in lines[0]
    assert b"NewWord" in lines[-1]


async def test_searches(world: World) -> None:
    client = await world.login("INBOX")
    encoded = (
        b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nFrom: Fred <f@x.example>\r\n"
        b"Date: Mon, 1 Jan 2024 23:00:00 -0800\r\n\r\nb\r\n"
    )
    base64 = (
        b"Subject: two\r\nContent-Transfer-Encoding: base64\r\n"
        b"Content-Type: text/plain; charset=utf-8\r\n\r\nSGVsbG8gV8O2cmxk\r\n"
    )
    await client.append(encoded, arguments='(\\Flagged) " 5-Feb-2024 23:30:00 -0500"')
    await client.append(base64)
    for n in range(30):
        await client.append(b"Subject: filler %d\r\n\r\nx\r\n" % n)
    await client.ok("NOOP")
    for keys, expected in {
        "FLAGGED": b" 1",
        "FROM fred": b" 1",
        "FROM F@X.EXAMPLE": b" 1",
        "SENTON 1-Jan-2024": b" 1",
        "ON 5-Feb-2024": b" 1",
        "BEFORE 5-Feb-2024": b"",
        "SENTBEFORE 2-Jan-2024 SENTSINCE 1-Jan-2024": b" 1",
        "SUBJECT two": b" 2",
        'SUBJECT "filler 29"': b" 32",
        "OR SUBJECT two FROM fred": b" 1 2",
        "NOT SUBJECT filler": b" 1 2",
        "BODY hello": b" 2",
        "2:3 NOT 3": b" 2",
        "UID 32:*": b" 32",
        'HEADER Content-Transfer-Encoding ""': b" 2",
        "LARGER 100": b" 1 2",
        "(FLAGGED UNSEEN) UNDELETED": b" 1",
        "UNKEYWORD x 1": b" 1",
        "NEW 1": b" 1",
        "OLD": b"",
    }.items():
        assert await client.ok(f"SEARCH {keys}") == [b"* SEARCH" + expected], keys
    needle = "GRÜSSE".encode()
    assert await client.ok(b"SEARCH CHARSET UTF-8 SUBJECT {%d+}\r\n%b" % (len(needle), needle)) == [b"* SEARCH 1"]
    needle = "wörld".encode()
    assert await client.ok(b"UID SEARCH CHARSET utf-8 TEXT {%d+}\r\n%b" % (len(needle), needle)) == [b"* SEARCH 2"]
    assert (await client.do("SEARCH CHARSET X-NONE ALL"))[-1].startswith(b"NO [BADCHARSET (")
    assert await client.ok("SEARCH 33") == [b"* SEARCH"]
    assert (await client.do("SEARCH ON 31-Feb-2024"))[-1].startswith(b"BAD")
    assert await client.ok("UID SEARCH UID 500") == [b"* SEARCH"]


@pytest.mark.parametrize("item", ["BODY.PEEK[]", "BODY.PEEK[TEXT]", "BODY[]<10.900000>"])
async def test_a_slow_reader_gets_its_message_to_the_end_though_it_is_expunged(tmp_path: Path, item: str) -> None:
    """However long it takes: all that is due in the trash goes while the reader is in the middle."""
    world = await make_world(tmp_path, trash_delay_ms=0)
    reader, other = await world.login("INBOX"), await world.login("INBOX")
    message = b"Subject: slow\r\n\r\n" + b"".join(b"line %d\r\n" % n for n in range(100_000))
    world.services.config.message_size_limit = 0
    await reader.append(message)
    await reader.ok("NOOP")
    await other.ok("NOOP")
    reader.transport.full = True
    reader.protocol.data_received(f"x UID FETCH 1 {item}\r\n".encode())
    await reader.settle(5)
    await other.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    await other.ok("EXPUNGE")
    raw = world.store.raw
    blobs = _blobs(raw)
    assert blobs > 3
    while not reader.transport.out.endswith(b"completed\r\n"):
        await asyncio.to_thread(raw.reap)
        assert _blobs(raw) == blobs
        reader.protocol.resume_writing()
        await reader.settle(5)
    out = reader.take()
    wanted = {"BODY.PEEK[]": message, "BODY.PEEK[TEXT]": message.partition(b"\r\n\r\n")[2]}
    assert b"{%d}\r\n%b" % (len(wanted.get(item, message[10:900_010])), wanted.get(item, message[10:900_010])) in out
    async with asyncio.timeout(60):
        while _blobs(raw):
            await asyncio.sleep(0.05)
            await asyncio.to_thread(raw.reap)
    await world.close()


def _blobs(raw: Any) -> int:
    from fastmta._store import TABLE_BLOB

    return len(raw.scan(TABLE_BLOB, b"", b"", 100_000))


_NULS = (
    b"Subject: a\0b\r\nFrom: \0 <\0@\0>\r\nTo: x@y.test\r\nMIME-Version: 1.0\r\nX-Long: " + b"\0" * 70 + b"\r\n"
    b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n\0\r\n--b\r\nContent-Type: text/plain; name="a\0"\r\n\r\n'
    b"text \0 with it\r\n--b\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    b"\0\1\2\0" + b"\0x" * 60_000 + b"\r\n--b--\r\n"
)


@pytest.mark.parametrize(
    "items",
    [
        "BODY.PEEK[]",
        "BODY.PEEK[]<100.30000>",
        "BODY.PEEK[1]",
        "BODY.PEEK[2]",
        "BODY.PEEK[TEXT]",
        "BODY.PEEK[HEADER]",
        "BODY.PEEK[1.MIME]",
        "BODY.PEEK[HEADER.FIELDS (SUBJECT X-LONG)]",
        "BODY.PEEK[HEADER.FIELDS.NOT (TO)]",
        "RFC822",
        "RFC822.TEXT",
        "RFC822.HEADER",
        "ENVELOPE",
        "BODYSTRUCTURE",
        "BODY",
        "PREVIEW",
    ],
)
@pytest.mark.parametrize("size", ["small", "large"])
async def test_no_literal_but_a_binary_one_holds_a_nul(world: World, items: str, size: str) -> None:
    client = await world.login("INBOX")
    message = _NULS if size == "large" else _NULS.replace(b"\0x" * 60_000, b"")
    lines = await client.do(b"APPEND INBOX ~{%d+}\r\n%b" % (len(message), message))
    assert lines[-1].startswith(b"OK")
    await client.ok("NOOP")
    lines = await client.ok(f"FETCH 1 ({items})")
    assert b"\0" not in b"".join(lines)
    if items == "BODY.PEEK[]":
        assert message.replace(b"\0", b"\x80") in lines[0]
    (binary,) = [line for line in await client.ok("FETCH 1 BINARY.PEEK[2]<0.4>") if b"FETCH" in line]
    assert b"~{4}\r\n\0\1\2\0" in binary
