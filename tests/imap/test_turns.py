"""Long commands are done in pieces, with other sessions served in between, and nobody can tell by the answers."""

import asyncio
import itertools
import re

import pytest

from fastmta.imap import view as view_module
from fastmta.imap.commands import listing, select
from fastmta.imap.list_plan import _collapsed
from fastmta.runtime.turns import Turns
from tests.imap.harness import World

BOTH = pytest.mark.parametrize("store_kind", ["memory", "lmdb"])
MESSAGE = b"Subject: x\r\n\r\nbody\r\n"


@BOTH
async def test_a_pipeline_is_answered_in_order_and_others_in_between(world: World) -> None:
    greedy, other = await world.login("INBOX"), await world.login("INBOX")
    count = 3000
    greedy.protocol.data_received(b"".join(b"n%d NOOP\r\n" % n for n in range(count)))
    assert greedy.protocol._share.waiting
    assert (await other.do("NOOP"))[-1].startswith(b"OK")
    await greedy.settle()
    lines = greedy.take().splitlines()
    assert lines == [b"n%d OK NOOP completed" % n for n in range(count)]
    assert greedy.transport.reading


@BOTH
async def test_who_leaves_in_the_middle_of_a_pipeline_is_forgotten(world: World) -> None:
    greedy = await world.login("INBOX")
    greedy.protocol.data_received(b"n NOOP\r\n" * 8000)
    greedy.transport.close()
    await greedy.settle()
    assert world.server.sessions == 0
    await (await world.login()).ok("NOOP")


@BOTH
async def test_a_farewell_in_the_middle_of_a_pipeline_is_the_last_word(world: World) -> None:
    greedy = await world.login("INBOX")
    greedy.protocol.data_received(b"n NOOP\r\n" * 8000)
    world.server.drain()
    await greedy.settle()
    lines = greedy.take().splitlines()
    assert lines[-1] == b"* BYE Shutting down"
    assert set(lines[:-1]) == {b"n OK NOOP completed"}


@pytest.mark.parametrize("command", ["IDLE", "NOTIFY SET (PERSONAL (MessageNew MessageExpunge MailboxName))"])
async def test_a_change_that_many_hear_of_is_told_in_turns(world: World, command: str) -> None:
    clock = itertools.count(0, 500_000)  # every look at it costs half a millisecond
    world.services.turns = Turns(asyncio.get_running_loop(), now_ns=lambda: next(clock))
    watching = [await world.login("Sent", peer=f"127.0.1.{n}") for n in range(30)]
    for client in watching:
        await client.send(b"w " + command.encode() + b"\r\n")
    for client in watching:
        client.protocol.changed()
    told = 0
    for _ in range(3):
        await asyncio.sleep(0)
        told = max(told, sum(not client.protocol._changed for client in watching))
        assert told < len(watching)
    assert told
    for client in watching:
        await client.settle()
    assert not any(client.protocol._changed for client in watching)


@BOTH
async def test_a_mailbox_of_many_pages_is_selected_as_one_of_a_single_page(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await world.login()
    for n in range(17):
        await client.append(MESSAGE, arguments="(\\Seen)" if n < 9 else "")
    await client.ok("SELECT INBOX")
    await client.ok("STORE 3,8 +FLAGS (\\Deleted word)")
    await client.ok("EXPUNGE")
    await client.ok("STORE 2,12 +FLAGS (other)")
    once = await client.ok("EXAMINE INBOX")
    status = await client.ok("STATUS INBOX (MESSAGES RECENT UIDNEXT UNSEEN)")
    for page in (1, 2, 5, 14, 15, 16):
        monkeypatch.setattr(select, "MAILBOX_PAGE", page)
        monkeypatch.setattr(listing, "MAILBOX_PAGE", page)
        assert await client.ok("EXAMINE INBOX") == once
        assert await client.ok("STATUS INBOX (MESSAGES RECENT UIDNEXT UNSEEN)") == status


@BOTH
@pytest.mark.parametrize("page", [1, 2, 3, 1000])
async def test_changes_of_many_pages_leave_the_same_view(
    world: World, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(view_module, "IMAP_CHANGES_PAGE", page)
    monkeypatch.setattr(view_module, "MAILBOX_PAGE", page)
    watching, acting = await world.login(), await world.login()
    for _ in range(12):
        await acting.append(MESSAGE)
    await acting.ok("SELECT INBOX")
    await watching.ok("EXAMINE INBOX")
    for n in (1, 4, 7, 9):
        await acting.ok(f"STORE {n} +FLAGS (\\Flagged word{n})")
    for _ in range(5):
        await acting.append(MESSAGE)
    await acting.ok("NOOP")
    await acting.ok("STORE 13 +FLAGS (\\Answered late)")
    await acting.ok("STORE 2,5:6,16 +FLAGS (\\Deleted)")
    await acting.ok("EXPUNGE")
    await acting.ok("STORE 1:3 +FLAGS (\\Draft)")
    told = await watching.ok("NOOP")
    exists = 12
    named: set[bytes] = set()
    for line in told:
        if line.endswith(b" EXISTS"):
            exists = int(line.split()[1])
        elif line.endswith(b" EXPUNGE"):
            assert int(line.split()[1]) <= exists
            exists -= 1
        elif line.startswith(b"* FLAGS"):
            named = set(re.findall(rb"word\d|late", line))
        elif b" FETCH " in line:
            assert set(re.findall(rb"word\d|late", line)) <= named
    assert exists == 13
    fetched = [await each.ok("FETCH 1:* (UID FLAGS)") for each in (watching, acting)]
    first, second = ([line.replace(b"\\Recent", b"").replace(b" )", b")") for line in lines] for lines in fetched)
    assert first == second
    assert await watching.ok("NOOP") == []


@pytest.mark.parametrize(
    ("pattern", "same"),
    [("*%*%", "*"), ("%%", "%"), ("a%%*b%c", "a*b%c"), ("plain", "plain"), ("%" * 60_000, "%"), ("*%" * 30_000, "*")],
)
def test_a_run_of_wildcards_is_one(pattern: str, same: str) -> None:
    assert _collapsed(pattern) == same


@BOTH
async def test_a_long_pattern_and_a_long_list_are_answered(world: World) -> None:
    client = await world.login()
    for n in range(60):
        await client.ok(f"CREATE {'n' * 100}{n}")
    lines = await client.ok(b'LIST "" "' + b"*%" * 25_000 + b'"')
    assert len(lines) == len(await client.ok('LIST "" *'))
    assert await client.ok(b'LIST "" "' + b"*n" * 25_000 + b'"') == []


async def test_a_command_that_waits_for_a_commit_has_no_task(world: World) -> None:
    client = await world.login("INBOX")
    await client.append(b"A: b\r\n\r\n")
    await client.ok("NOOP")
    client.protocol.data_received(b"s STORE 1 +FLAGS.SILENT (\\Seen)\r\n")
    assert client.protocol.waiting
    assert len(world.services.tasks) == 0
    await client.settle()
    assert client.take() == b"s OK STORE completed\r\n"
