"""SEARCH HEADER of any field, through the store's loop: the same answers as by opening each message."""

import random
from typing import Any

import pytest

from fastmta.imap import search
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
