"""SEARCH HEADER of any field, through the store's loop: the same answers as by opening each message."""

import random
from typing import Any

import pytest

from fastmta.imap import search
from fastmta.imap.search_text import OVERLAP_BYTES, field_begun
from tests.imap.harness import World

FIELDS = ["X-Mailer", "List-Id", "Received", "To", "X-Empty"]
VALUES = [
    "Foo 3",
    "foo\r\n bar",
    "=?UTF-8?Q?J=C3=BCrgen?= x",
    "",
    "a  b",
    "ümlaut",
    "=?UTF-8?Q?foo?=\r\n =?UTF-8?Q?bar?=",
]
NEEDLES = ["foo", "FOO 3", "jürgen x", '""', "bar", '"o b"', "ümlaut", "nothing", '" "', '"foo b"', "foobar"]


@pytest.mark.parametrize("seed", range(3))
async def test_the_loop_finds_what_opening_finds(world: World, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    rng: Any = random.Random(seed)
    client = await world.login("INBOX")
    for n in range(25):
        header = "".join(f"{rng.choice(FIELDS)}: {rng.choice(VALUES)}\r\n" for _ in range(rng.randint(0, 5)))
        if n % 9 == 8:  # a header that does not lie in one chunk of the store
            header = "".join(f"X-Long-{n}: {'y' * 900}\r\n" for n in range(80)) + header
        await client.append(header.encode() + b"\r\nbody foo\r\n")
    await client.ok("NOOP")
    commands = [f"HEADER {field} {{}}" for field in FIELDS]
    commands += ["NOT HEADER To {}", "OR HEADER X-Mailer {} HEADER List-Id foo", "HEADER To {} HEADER Received foo"]

    async def answers() -> list[list[bytes]]:
        out: list[list[bytes]] = []
        for command in commands:
            for needle in NEEDLES:
                raw = needle.strip('"').encode()
                literal = b"{%d+}\r\n%b" % (len(raw), raw)
                out.append(await client.ok(b"SEARCH CHARSET UTF-8 " + command.encode().replace(b"{}", literal)))
        return out

    fast = await answers()
    monkeypatch.setattr(search, "LOOP_NAMES", 0)
    assert fast == await answers()
    assert len({tuple(each) for each in fast}) > 10


@pytest.mark.parametrize("fold", ["\r\n\t", "\r\n  ", "\t", "   ", "\r\n "])
async def test_a_fold_is_a_blank_whatever_it_is_made_of(world: World, fold: str) -> None:
    client = await world.login("INBOX")
    raw = f"Subject: folded{fold}twice\r\nX-Words: folded{fold}twice\r\nFrom: Ann{fold}Other <a@b.c>\r\n\r\nx\r\n"
    await client.append(raw.encode())
    await client.ok("NOOP")
    for key in ("SUBJECT {}", "HEADER Subject {}", "HEADER X-Words {}", "TEXT {}"):
        for needle in ('"folded twice"', '"D T"'):
            assert await client.ok("SEARCH " + key.format(needle)) == [b"* SEARCH 1"]
    for needle in ('"folded  twice"', '"folded\ttwice"'):
        assert await client.ok(f"SEARCH SUBJECT {needle} HEADER X-Words {needle}") == [b"* SEARCH 1"]
    assert await client.ok('SEARCH FROM "ann other"') == [b"* SEARCH 1"]
    assert await client.ok('SEARCH SUBJECT "foldedtwice"') == [b"* SEARCH"]


TWICE = (
    b"Message-ID: <m1@x>\r\nSubject: alpha one\r\nFrom: Ann <a@x>\r\nDate: Mon, 2 Mar 2026 10:00:00 +0000\r\n"
    b"In-Reply-To: <r1@x>\r\nReceived: by one\r\nDelivered-To: p@x\r\nSUBJECT : =?utf-8?q?b=C3=A9ta?=\r\n two\r\n"
    b"Message-Id: <m2@y>\r\nin-reply-to: <r2@y>\r\nDate: Tue, 3 Mar 2026 10:00:00 +0000\r\nReceived: by two\r\n"
    b"From: Bob <b@y>\r\nDelivered-To: q@y\r\nMessage-ID: <m3@z>\r\n\r\nbody\r\n"
)


@pytest.mark.parametrize("long", [False, True])
async def test_any_of_several_fields_of_a_name_is_found(world: World, long: bool) -> None:
    client = await world.login("INBOX")
    await client.append(b"Subject: nothing\r\nMessage-ID: <m0@x>\r\n\r\nbody\r\n")
    more = b"".join(b"X-Long-%d: %b\r\n" % (n, b"y" * 900) for n in range(80)) if long else b""
    await client.append(more + TWICE)
    await client.ok("NOOP")
    fields = {"Message-ID": "m1@ m2@ m3@", "Subject": "alpha béta", "In-Reply-To": "<r1 r2@y", "Date": "Mon TUE"}
    fields |= {"Received": "one two", "Delivered-To": "p@ q@", "From": "ann b@y"}
    asked = [(f"HEADER {name} {{}}", word) for name, words in fields.items() for word in words.split()]
    asked += [(f"{name} {{}}", word) for name, word in (("SUBJECT", "ALPHA"), ("SUBJECT", "Béta two"), ("FROM", "bob"))]
    for key, word in asked:
        literal = b"{%d+}\r\n%b" % (len(word.encode()), word.encode())
        program = b"CHARSET UTF-8 " + key.encode().replace(b"{}", literal)
        assert await client.ok(b"SEARCH " + program) == [b"* SEARCH 2"], program
        assert await client.ok(b"SEARCH CHARSET UTF-8 NOT" + program[13:]) == [b"* SEARCH 1"], program
    for program in ("SUBJECT m2", "HEADER Subject one-two", 'SUBJECT "one =?"', "HEADER Message-ID r2", "SUBJECT body"):
        assert await client.ok(f"SEARCH {program}") == [b"* SEARCH"], program
    assert await client.ok('SEARCH HEADER In-Reply-To ""') == [b"* SEARCH 2"]
    # Of a day, an order and a thread the first field is what counts, as in ENVELOPE.
    assert await client.ok("SEARCH SENTON 2-Mar-2026") == [b"* SEARCH 2"]
    assert await client.ok("SEARCH SENTON 3-Mar-2026") == [b"* SEARCH"]
    (envelope,) = await client.ok("FETCH 2 ENVELOPE")
    assert envelope.startswith(b'* 2 FETCH (ENVELOPE ("Mon, 2 Mar 2026 10:00:00 +0000" "alpha one" ')
    assert envelope.endswith(b'"<r1@x>" "<m1@x>"))')
    (fields,) = await client.ok("FETCH 2 BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)]")
    assert fields.endswith(b"Message-ID: <m1@x>\r\nMessage-Id: <m2@y>\r\nMessage-ID: <m3@z>\r\n\r\n)")


async def test_what_an_envelope_has_no_room_for_is_found(world: World) -> None:
    client = await world.login("INBOX")
    people = b",\r\n ".join(b"Person %d <p%d@example.test>" % (n, n) for n in range(4000))
    await client.append(b"To: %b\r\nSubject: x%b behind\r\nFrom: a@b.c\r\n\r\nbody\r\n" % (people, b" word" * 16_000))
    await client.ok("NOOP")
    for program in ("TO p3999@", "HEADER To p3999@", "TO p3@", "SUBJECT behind", "FROM a@b"):
        assert await client.ok(f"SEARCH {program}") == [b"* SEARCH 1"], program
    for program in ("TO p4000@", "SUBJECT before", "FROM p3999@"):
        assert await client.ok(f"SEARCH {program}") == [b"* SEARCH"], program


@pytest.mark.parametrize("blank", [" ", "\r\n "])
async def test_a_field_longer_than_a_piece_is_looked_through(world: World, blank: str) -> None:
    client = await world.login("INBOX")
    words = blank.join(f"<w{n:05}@example.test>" for n in range(6000))
    await client.append(f"X-Short: x\r\nReferences: {words}\r\nX-Behind: y\r\n\r\nw06000\r\n".encode())
    await client.ok("NOOP")
    for n in (0, 700, 701, 2500, 5998):
        phrase = f"<w{n:05}@example.test> <w{n + 1:05}@"
        assert await client.ok(f'SEARCH HEADER References "{phrase}"') == [b"* SEARCH 1"], n
    for program in ("X-Short w05999", "X-Behind w00001", "X-Behind w05999", "References w06000", "References y"):
        assert await client.ok(f"SEARCH HEADER {program}") == [b"* SEARCH"], program
    assert await client.ok("SEARCH HEADER X-Behind y") == [b"* SEARCH 1"]


def test_of_a_field_that_goes_on_little_is_looked_at_again() -> None:
    assert field_begun(b"A: b\r\nTo: " + b"x" * 9000 + b"\r\n y") == b"To:  y"
    assert field_begun(b"To: a,\r\n b,\r\n") == b"To:  b,\r\n"
    assert len(field_begun(b"To: " + b"x" * 9000)) == OVERLAP_BYTES + 4
    assert field_begun(b"x" * 9000) == field_begun(b"x" * 9000 + b": y") == b""
