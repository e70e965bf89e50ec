"""BODY[HEADER.FIELDS ...] as the store's loop writes it, against the slow way, for every place a header can lie in."""

import pytest

from fastmta import _mime
from tests.imap.harness import World

HEADERS = [
    b"From: a@b\r\nTo: c@d\r\n\r\nbody",
    b"From: a@b\nTo: c@d\n\nbody\n",
    b"From : spaced\r\nfrom: second\r\n\r\n",
    b"From: folded\r\n\tacross\r\n lines\r\nTo: x\r\n\r\nFrom: in body\r\n",
    b"From: no end of header",
    b"From: no end of header\r\nTo: last",
    b"no colon at all\r\nTo: x\r\n\r\n",
    b"\r\nFrom: body only\r\n",
    b"\n",
    b"Subject: a\r\r\n\r\n",
    b"To: x\r\n" + b"X-Fill: " + b"y" * 900 + b"\r\nFrom: behind\r\n\r\nbody",
    b"To: x\r\n" + b"X-Fill: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 1300 + b"From: behind\r\n\r\nbody",
    b"To: x\r\n" + b"X-Fill: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 9000 + b"From: behind\r\n\r\nbody",
    b"To: x\r\n\r\n" + b"z" * 200_000,
]
SECTIONS = [
    "HEADER.FIELDS (FROM)",
    "HEADER.FIELDS (from to)",
    "HEADER.FIELDS.NOT (X-Fill)",
    "HEADER.FIELDS.NOT (from)",
    "HEADER.FIELDS (Nosuch)",
    'HEADER.FIELDS ("From" {2+}\r\nTo)',
]


@pytest.mark.parametrize("section", SECTIONS)
async def test_the_loop_gives_what_the_slow_way_gives(world: World, section: str) -> None:
    client = await world.login("INBOX")
    for header in HEADERS:
        assert (await client.append(header)).startswith(b"OK")
    await client.ok("NOOP")
    lines = await client.ok(f"UID FETCH 1:* (FLAGS BODY.PEEK[{section}])")
    assert len(lines) == len(HEADERS)
    names = [b"From", b"To"] if "{" in section else section.partition("(")[2].rstrip(")").encode().split()
    for seq, (line, header) in enumerate(zip(lines, HEADERS, strict=True), 1):
        expected = _mime.header_fields(header, names, ".NOT" in section)
        begin = b"* %d FETCH (UID %d FLAGS (\\Recent) BODY[" % (seq, seq)
        assert line.startswith(begin), (line[:80], begin)
        assert line.endswith(b"]" + b" {%d}\r\n%b)" % (len(expected), expected)), header[:60]


async def test_several_sections_come_in_order(world: World) -> None:
    client = await world.login("INBOX")
    for header in HEADERS:
        await client.append(header)
    await client.ok("NOOP")
    sections = ["HEADER.FIELDS (TO)", "HEADER.FIELDS.NOT (TO)", "HEADER.FIELDS (FROM)", "HEADER.FIELDS (SUBJECT)"]
    items = " ".join(f"BODY.PEEK[{each}]" for each in sections)
    together = await client.ok(f"FETCH 1:* ({items})")
    apart = [await client.ok(f"FETCH 1:* BODY.PEEK[{each}]") for each in sections]
    for n, line in enumerate(together):
        pieces = [lines[n].partition(b"(")[2][:-1] for lines in apart]
        assert line == b"* %d FETCH (%b)" % (n + 1, b" ".join(pieces))


async def test_a_header_subset_that_is_no_peek_marks_as_seen(world: World) -> None:
    client = await world.login("INBOX")
    await client.append(HEADERS[0])
    await client.ok("NOOP")
    (line,) = await client.ok("FETCH 1 BODY[HEADER.FIELDS (FROM)]")
    assert line == b"* 1 FETCH (FLAGS (\\Seen \\Recent) BODY[HEADER.FIELDS (FROM)] {13}\r\nFrom: a@b\r\n\r\n)"
