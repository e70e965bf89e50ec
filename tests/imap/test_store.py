"""STORE beside other sessions (RFC 3501 §6.4.6, RFC 2180 §4.2): nobody is left with stale flags."""

import asyncio
import re

import pytest

from fastmta.imap.view import View
from tests.imap.harness import Client, World

SILENT = [
    ("+FLAGS.SILENT (\\Seen)", {b"\\Flagged", b"\\Seen"}),
    ("+FLAGS.SILENT (\\Flagged)", {b"\\Flagged"}),
    ("-FLAGS.SILENT (\\Seen)", {b"\\Flagged"}),
    ("FLAGS.SILENT (\\Draft)", {b"\\Draft"}),
]


async def two(world: World, messages: int = 3) -> tuple[Client, Client]:
    one = await world.login("INBOX")
    for n in range(messages):
        await one.append(b"Subject: %d\r\n\r\nx\r\n" % n)
    await one.ok("NOOP")
    return one, await world.login("INBOX")


def flags_told(lines: list[bytes], seq: int) -> list[set[bytes]]:
    """Every flag list told for a message, without \\Recent."""
    found = [re.match(rb"\* %d FETCH \(.*FLAGS \(([^)]*)\)" % seq, line) for line in lines]
    return [set(match.group(1).split()) - {b"\\Recent"} for match in found if match]


@pytest.mark.parametrize(("change", "result"), SILENT)
async def test_a_silent_store_tells_what_another_session_changed(world: World, change: str, result: set[bytes]) -> None:
    one, other = await two(world)
    await other.ok("STORE 1 +FLAGS.SILENT (\\Flagged)")
    lines = await one.ok(f"STORE 1 {change}")
    lines += await one.ok("NOOP")
    told = flags_told(lines, 1)
    assert told and told[-1] == result
    # Never a state from before the client's own change: it would look as if that had been undone.
    assert all(each == result for each in told)


@pytest.mark.parametrize(("change", "result"), SILENT)
async def test_a_change_that_falls_into_a_silent_store_is_told(world: World, change: str, result: set[bytes]) -> None:
    one, other = await two(world)
    one.protocol.data_received(f"x STORE 1 {change}\r\n".encode())
    other.protocol.data_received(b"x STORE 1 +FLAGS.SILENT (\\Flagged)\r\n")
    await one.settle()
    await other.settle()
    for client in (one, other):
        lines = client.take().split(b"\r\n")
        lines += await client.ok("NOOP")
        told = flags_told(lines, 1)
        actual = flags_told(await client.ok("FETCH 1 FLAGS"), 1)[-1]
        assert not told or told[-1] == actual


async def test_a_silent_store_stays_silent_where_nobody_else_changed(world: World) -> None:
    one, other = await two(world)
    await other.ok("STORE 2 +FLAGS.SILENT (\\Flagged)")
    lines = await one.ok("STORE 1,3 +FLAGS.SILENT (\\Seen kw)")
    assert flags_told(lines, 1) == flags_told(lines, 3) == []
    assert flags_told(lines, 2) == [{b"\\Flagged"}]
    assert await one.ok("NOOP") == []


async def test_many_silent_stores_at_once_leave_each_client_with_the_truth(world: World) -> None:
    one, other = await two(world, 5)
    known: dict[Client, dict[int, set[bytes]]] = {one: {n: set() for n in range(1, 6)}}
    known[other] = {n: set() for n in range(1, 6)}
    words = [b"\\Seen", b"\\Flagged", b"\\Answered", b"\\Draft"]
    for turn in range(40):
        for client, seed in ((one, turn), (other, turn * 7 + 3)):
            sign, word, seq = "+-"[seed % 2], words[seed % 4], seed % 5 + 1
            client.protocol.data_received(b"x STORE %d %bFLAGS.SILENT (%b)\r\n" % (seq, sign.encode(), word))
            if sign == "+":
                known[client][seq].add(word)
            else:
                known[client][seq].discard(word)
        if turn % 3 == 0:
            await asyncio.sleep(0)
        await one.settle()
        await other.settle()
        for client in (one, other):
            for line in client.take().split(b"\r\n"):
                for seq in range(1, 6):
                    for told in flags_told([line], seq):
                        known[client][seq] = told
    for client in (one, other):
        for line in await client.ok("NOOP"):
            for seq in range(1, 6):
                for told in flags_told([line], seq):
                    known[client][seq] = told
        actual = await client.ok("FETCH 1:* FLAGS")
        assert {n: flags_told(actual, n)[-1] for n in range(1, 6)} == known[client]


async def test_a_member_that_was_expunged_does_not_fail_a_store(world: World) -> None:
    one, other = await two(world)
    await other.ok("STORE 2 +FLAGS.SILENT (\\Deleted)")
    await other.ok("EXPUNGE")
    assert (await one.do("STORE 1:3 +FLAGS.SILENT (\\Seen)"))[-1] == b"OK STORE completed"
    assert (await one.do("STORE 2 +FLAGS.SILENT (\\Seen)"))[-1] == b"OK STORE completed"
    lines = await one.do("STORE 1:3 +FLAGS (\\Flagged)")
    assert lines[-1].startswith(b"OK [EXPUNGEISSUED]")
    assert flags_told(lines, 1) == flags_told(lines, 3) == [{b"\\Seen", b"\\Flagged"}]
    assert (await one.do("STORE 2 +FLAGS (\\Flagged)"))[-1].startswith(b"NO [EXPUNGEISSUED]")
    assert (await one.do("UID STORE 1:3 +FLAGS (\\Draft)"))[-1] == b"OK UID STORE completed"


@pytest.mark.parametrize(
    "command",
    [
        "FETCH 1:* FLAGS",
        "FETCH 1:* (FLAGS BODY.PEEK[HEADER])",
        "FETCH 1:* (BODY[])",
        "FETCH 1:* (FLAGS BODY[TEXT])",
        "STORE 1:* +FLAGS (\\Answered)",
        "STORE 1:* +FLAGS.SILENT (\\Answered)",
        "NOOP",
        "UID FETCH 1:* (UID FLAGS)",
    ],
)
async def test_a_keyword_is_named_in_flags_before_a_fetch_shows_it(world: World, command: str) -> None:
    one, other = await two(world)
    for n in range(1, 4):
        await other.ok(f"STORE {n} +FLAGS.SILENT ($word{n})")
    _named_first(await one.ok(command))


async def test_a_keyword_that_comes_during_a_fetch_is_named_first(world: World) -> None:
    one, other = await two(world, 2)
    big = b"Subject: big\r\n\r\n" + b"y" * 300_000
    for _ in range(4):
        await one.append(big)
    await one.ok("NOOP")
    await other.ok("NOOP")
    for command in (b"FETCH 1:* (FLAGS BODY.PEEK[])", b"FETCH 1:* (FLAGS BODY.PEEK[TEXT])", b"FETCH 1:* BODY[]"):
        one.transport.full = True
        one.protocol.data_received(b"x %b\r\n" % command)
        for n in range(1, 7):
            await one.settle(5)
            await other.ok(f"STORE {n} +FLAGS.SILENT (late{len(command)}x{n})")
            one.protocol.resume_writing()
        one.transport.full = False
        one.protocol.resume_writing()
        await one.settle()
        out = re.sub(rb"y{1000,}", b"", one.take())
        _named_first(out.split(b"\r\n"))


def _named_first(lines: list[bytes]) -> None:
    known: set[bytes] = set()
    for line in lines:
        if line.startswith(b"* FLAGS ("):
            known = set(line[9:-1].split())
        for match in re.finditer(rb"FETCH \([^)]*FLAGS \(([^)]*)\)", line):
            shown = {word for word in match.group(1).split() if not word.startswith(b"\\")}
            assert not shown or shown <= known, (line, known)


async def test_a_keyword_that_comes_between_sync_and_read_is_named_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker commits while a FETCH goes from what has changed to the rows: no lock is between the two."""
    one, two = await world.login("INBOX"), await world.login("INBOX")
    await one.append(b"x")
    await one.ok("NOOP")
    await two.ok("NOOP")
    for number, command in enumerate(
        ("FETCH 1 FLAGS", "FETCH 1 (FLAGS BODY.PEEK[TEXT])", "FETCH 1 (FLAGS BODY.PEEK[])")
    ):
        await two.ok(f"STORE 1 +FLAGS.SILENT ($New{number})")
        with monkeypatch.context() as patched:
            patched.setattr(View, "sync", lambda *_, **__: None)
            lines = await one.ok(command)
        assert lines[0].startswith(b"* FLAGS (") and b"$New%d" % number in lines[0]
        assert b"$New%d" % number in lines[2] and b"FETCH" in lines[2]
        assert not any(line.startswith(b"* FLAGS") for line in await one.ok(command))
