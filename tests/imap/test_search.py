"""What SEARCH finds, and what it costs: parts, headers, attachment names, addresses; bounded whatever the keys."""

import time
from array import array
from typing import Any

import pytest

from fastmta import _mime
from tests.imap.harness import World

REPORT = b"""\
From: MAILER-DAEMON@example.test (Mail System)\r
Subject: Undelivered\r
MIME-Version: 1.0\r
Content-Type: multipart/report; report-type=delivery-status; boundary=b\r
\r
preambleword\r
--b\r
\r
notification text\r
--b\r
Content-Type: message/delivery-status\r
\r
Reporting-MTA: dns; reporter.example.test\r
\r
Final-Recipient: rfc822; lost@example.test\r
Diagnostic-Code: smtp; 550 no such mailboxword\r
--b\r
Content-Type: message/rfc822\r
\r
Subject: inner =?utf-8?q?=C3=BCberschrift?=\r
\r
innerbody\r
--b\r
Content-Type: text/rfc822-headers\r
\r
Subject: quotedheader\r
--b--\r
"""
ATTACHED = b"""\
From: "Doe, John" <john.doe@example.test>\r
To: =?utf-8?q?J=C3=BCrgen?= <juergen@example.test>,\r
 second@example.test\r
Cc: list: a@b.test, c@d.test;\r
Subject: files\r
Message-ID: <one.two@example.test>\r
In-Reply-To: <earlier@example.test>\r
Date: Mon, 31 Dec 2024 23:59:59 -0800\r
Content-Type: multipart/mixed; boundary="x y"\r
\r
--x y\r
Content-Type: text/plain; charset=iso-8859-1\r
Content-Transfer-Encoding: quoted-printable\r
\r
bo=\r
dy with gr=FC=DFe\r
--x y\r
Content-Type: application/pdf; name="report.pdf"\r
Content-Disposition: attachment; filename*=utf-8''J%C3%A4nner%202025.pdf\r
Content-Transfer-Encoding: base64\r
\r
c2VjcmV0d29yZA==\r
--x y\r
Content-Type: image/png; name="=?utf-8?b?w7xiZXJibGljaw==?=.png"\r
\r
secretword\r
--x y\r
Content-Type: text/html; charset=utf-8\r
Content-Transfer-Encoding: base64\r
Content-Description: markupdescription\r
Content-Disposition: inline; filename*0*=iso-8859-1''zusammen; filename*1=gesetzt.html\r
\r
PGI+aHRtbHdvcmQ8L2I+\r
--x y--\r
"""

FOUND = {
    # reports
    "BODY lost@example.test": {1},
    "BODY mailboxword": {1},
    "TEXT reporter.example": {1},
    "BODY message/delivery-status": {1},
    "BODY innerbody": {1},
    "BODY überschrift": {1},
    "BODY quotedheader": {1},
    # names of attachments and headers of parts
    "BODY report.pdf": {2},
    "BODY jänner": {2},
    "TEXT überblick": {2},
    "BODY zusammengesetzt.html": {2},
    "BODY markupdescription": {2},
    "BODY application/pdf": {2},
    # text in its encodings; nothing in what is not text
    "BODY body": {1, 2},
    "BODY grüße": {2},
    "BODY GRÜSSE": {2},
    "BODY htmlword": {2},
    "BODY secretword": set(),
    # the message's own header is not its body
    "BODY files": set(),
    "TEXT files": {2},
    "BODY Undelivered": set(),
    "TEXT Undelivered": {1},
    # addresses as the ENVELOPE has them
    "FROM john.doe@example.test": {2},
    "FROM DOE": {2},
    'FROM "Doe, John <john"': {2},
    "TO Jürgen": {2},
    "TO second@example": {2},
    'TO "jürgen <juergen@example.test>, second"': {2},
    "CC a@b.test": {2},
    "CC list": {2},
    "BCC a": set(),
    'BCC ""': set(),
    'FROM ""': {1, 2},
    "FROM MAILER-DAEMON@example.test": {1},
    'FROM "Mail System"': {1},
    # fields of the ENVELOPE and others
    "HEADER Message-ID one.two": {2},
    "HEADER MESSAGE-ID nosuch": set(),
    'HEADER Message-ID ""': {2},
    "HEADER In-Reply-To earlier": {2},
    "HEADER DATE -0800": {2},
    "HEADER From doe": {2},
    "HEADER Mime-Version 1": {1},
    "SUBJECT files": {2},
    "SENTON 31-Dec-2024": {2},
    "SENTBEFORE 31-Dec-2024": set(),
    "SENTSINCE 1-Jan-2024": {2},
    "NOT SENTSINCE 1-Jan-2024": {1},
    # put together
    "OR FROM doe BODY mailboxword": {1, 2},
    "NOT (OR FROM doe BODY mailboxword)": set(),
    "OR (BODY nosuch) (NOT TEXT files)": {1},
    "NOT BODY nosuch": {1, 2},
    "BODY grüße TEXT report.pdf SUBJECT files": {2},
    "1:*,1:*,2 BODY grüße": {2},
    "NOT 2 TEXT e": {1},
}


@pytest.mark.parametrize("keys", sorted(FOUND))
async def test_what_a_search_finds(world: World, keys: str) -> None:
    client = await world.login("INBOX")
    await client.append(REPORT)
    await client.append(ATTACHED)
    await client.ok("NOOP")
    expected = b"".join(b" %d" % n for n in sorted(FOUND[keys]))
    words = keys
    raw = words.encode()
    if not words.isascii():
        # A quoted string is 7-bit: the words come as literals.
        pieces = words.split('"')
        if len(pieces) == 3:
            needle = pieces[1].encode()
            raw = pieces[0].encode() + b"{%d+}\r\n%b" % (len(needle), needle) + pieces[2].encode()
        else:
            raw = b" ".join(
                word.encode() if word.isascii() else b"{%d+}\r\n%b" % (len(word.encode()), word.encode())
                for word in words.split(" ")
            )
        raw = b"CHARSET UTF-8 " + raw
    assert await client.ok(b"SEARCH " + raw) == [b"* SEARCH" + expected]


async def test_a_word_across_pieces_is_found(world: World) -> None:
    client = await world.login("INBOX")
    filler = b"0123456789abcdef" * 64 + b"\r\n"
    for encoding, body in (
        (b"7bit", filler * 15 + b"x" * 990 + b"needle-in-hay" + filler * 40),
        (b"quoted-printable", filler * 15 + b"x" * 1000 + b"nee=\r\ndle-i=6E-h=\r\nay" + filler * 20),
    ):
        for shift in range(0, 40, 7):
            await client.append(
                b"Subject: s\r\nContent-Transfer-Encoding: %b\r\n\r\n%b%b" % (encoding, b"y" * shift, body)
            )
    count = (await client.ok("STATUS INBOX (MESSAGES)"))[0].split()[-1].rstrip(b")")
    await client.ok("NOOP")
    assert len((await client.ok("SEARCH BODY needle-in-hay"))[0].split()) - 2 == int(count)
    assert (await client.ok("SEARCH BODY needle-in-hax")) == [b"* SEARCH"]


@pytest.mark.parametrize("size", [16_380, 16_384, 16_390, 40_000])
async def test_a_header_longer_than_a_piece_is_seen_to_its_end(world: World, size: int) -> None:
    client = await world.login("INBOX")
    for end in (b"\r\n", b"\n"):
        fields = end.join(b"X-%d: %b" % (n, b"v" * 70) for n in range(size // 75))
        await client.append(fields + end + b"X-Last: lastword" + end + end + b"X-Body: bodyword" + end)
        long_field = b"X-Long: " + b"w" * size + end + b"X-Last: lastword" + end + end + b"X-Body: bodyword"
        await client.append(long_field)
    await client.ok("NOOP")
    assert await client.ok("SEARCH HEADER X-Last lastword") == [b"* SEARCH 1 2 3 4"]
    assert await client.ok("SEARCH TEXT lastword NOT BODY lastword") == [b"* SEARCH 1 2 3 4"]
    assert await client.ok("SEARCH HEADER X-Body bodyword") == [b"* SEARCH"]
    assert await client.ok("SEARCH BODY bodyword") == [b"* SEARCH 1 2 3 4"]


@pytest.mark.parametrize("store_kind", ["memory"])
async def test_each_part_is_decoded_once_whatever_the_number_of_keys(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await world.login("INBOX")
    await client.append(b"Subject: s\r\n\r\n" + b"word " * 100_000)
    await client.ok("NOOP")
    fed = 0

    class Counting:
        def __init__(self, *arguments: Any) -> None:
            self._decoder = decoder(*arguments)

        def feed(self, data: Any, final: bool = False) -> str:
            nonlocal fed
            fed += len(data)
            return str(self._decoder.feed(data, final))

    decoder = _mime.TextDecoder
    monkeypatch.setattr(_mime, "TextDecoder", Counting)
    keys = " ".join(f"NOT BODY absent{n}" for n in range(300))
    assert await client.ok(f"SEARCH {keys}") == [b"* SEARCH 1"]
    assert fed == 500_000


@pytest.mark.parametrize("store_kind", ["memory"])
@pytest.mark.parametrize(
    ("keys", "bound_s"),
    [
        (" ".join(["NOT BODY x"] * 500), 1),
        (" ".join(f"NOT BODY x{n}y" for n in range(500)), 5),
        (" ".join(f"NOT HEADER X-{n} x" for n in range(500)), 5),
        (" ".join(["NOT ON 1-Jan-2000"] * 500), 1),
        (" ".join(f"UNKEYWORD x{n}" for n in range(1000)), 1),
        (",".join(["1:*"] * 15_000), 1),
        ("UID " + ",".join(["1:*"] * 15_000), 1),
        (" ".join(f"NOT FROM x{n}" for n in range(500)), 2),
        (" ".join(f"NOT SENTON {n % 28 + 1}-Jan-2000" for n in range(500)), 2),
    ],
)
async def test_no_search_holds_the_loop(
    world: World, keys: str, bound_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two questions whether the turn is over lie a few milliseconds, however many the keys."""
    client = await world.login("INBOX")
    for n in range(50):
        await client.append(b"From: a%d@b\r\nDate: 1 Jan 2001 00:00:00 +0000\r\n\r\nhello" % n)
    await client.append(b"Subject: big\r\n\r\n" + b"word " * 120_000)
    await client.ok("NOOP")
    longest = 0.0
    last = time.thread_time()
    over = client.protocol.turn_is_over

    def asked() -> bool:
        nonlocal longest, last
        now = time.thread_time()
        longest, last = max(longest, now - last), now
        return bool(over())

    monkeypatch.setattr(type(client.protocol), "turn_is_over", lambda _self: asked())
    started = time.process_time()
    last = time.thread_time()
    assert (await client.ok(f"SEARCH {keys}"))[0].startswith(b"* SEARCH")
    assert time.process_time() - started < bound_s
    assert longest < 0.25  # of its own time: a few milliseconds, and a collection of garbage


@pytest.mark.parametrize("store_kind", ["lmdb"])
async def test_columns_are_the_rows(world: World) -> None:
    client = await world.login("INBOX")
    for n in range(10):
        keyword = f"kw{n % 3} " if n % 2 else ""
        await client.append(
            b"Subject: s\r\n\r\n" + b"x" * n, arguments=f'({keyword}\\Seen) "0{n % 9 + 1}-Jan-2020 23:30:00 -0100"'
        )
    await client.ok("NOOP")
    await client.ok("STORE 3 +FLAGS.SILENT (\\Deleted)")
    await client.ok("EXPUNGE")
    mailboxes = world.store.mailboxes
    box = client.protocol.session.selected.mailbox_id
    columns = mailboxes.columns(box, array("I", range(1, 13)))
    assert columns.here == bytes([1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0])
    for row in mailboxes.rows(box):
        at = row.uid - 1
        assert columns.flags[at] == row.flags
        assert columns.sizes[at] == row.size
        assert columns.days[at] == (row.internal_date_s + row.tz_minutes * 60) // 86400
        assert columns.prefixes[at] == len(row.prefix)
        assert columns.keywords[columns.words[at]] == row.keywords


async def test_a_long_search_says_how_far_it_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 9585 §4."""
    monkeypatch.setattr("fastmta.imap.search.IMAP_PROGRESS_S", 0.0)
    client = await world.login("INBOX")
    for _ in range(3):
        await client.append(b"Subject: x\r\n\r\nhello")
    await client.ok("NOOP")
    *words, found, done = await client.do("SEARCH BODY hello")
    assert words and all(word.startswith(b'* OK [INPROGRESS ("t') for word in words)
    assert words[-1].endswith(b" 3)] Still searching")
    assert (found, done[:2]) == (b"* SEARCH 1 2 3", b"OK")


@pytest.mark.parametrize("command", ["SEARCH", "SORT (DATE) UTF-8", "THREAD REFS UTF-8"])
@pytest.mark.parametrize("there", [0, 2])
async def test_a_number_that_no_message_has_matches_nothing(world: World, command: str, there: int) -> None:
    """A client may not know yet what was expunged; FETCH and STORE refuse such numbers."""
    client = await world.login("INBOX")
    for _ in range(there):
        await client.append(b"Subject: x\r\n\r\n")
    await client.ok("NOOP")
    word = command.split()[0].encode()
    assert (await client.ok(f"{command} 1000"))[0].rstrip() == b"* " + word
    assert (await client.ok(f"{command} NOT 1000"))[0].count(b"1") == min(there, 1)
    if "SEARCH" in command:
        assert b"ALL" not in (await client.ok("SEARCH RETURN (ALL) 3,1000:1001"))[0]
