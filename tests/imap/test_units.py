"""COPY, MOVE, STORE and EXPUNGE of very many messages: units of a bounded size, in order, with others in between."""

import asyncio
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from fastmta.store import MailStore, mailboxes
from tests.imap.harness import Client, World

MESSAGE = b"Subject: a subject\r\n\r\nhello\r\n"
COUNT = 4096
pytestmark = pytest.mark.parametrize("store_kind", ["lmdb"])


async def fill(client: Client) -> None:
    """COUNT messages: two, copied onto their own mailbox again and again."""
    await client.append(MESSAGE)
    await client.append(MESSAGE)
    for _ in range(COUNT.bit_length() - 2):
        assert b"[COPYUID " in (await client.do("COPY 1:* INBOX"))[-1]


def exists(world: World, name: str) -> int:
    return int(world.store.mailboxes.get(world.account_id, name).exists)


def packed(results: Any) -> Iterator[bytes]:
    """The packed uids among a unit's results."""
    if isinstance(results, bytes):
        yield results
    elif isinstance(results, list | tuple):
        for each in results:
            yield from packed(each)


@pytest.fixture
def units(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], list[int]]:
    """Begins to watch: gives the list in which the numbers of messages of each unit come, `look` is called after it."""

    def begin(look: Callable[[], None]) -> list[int]:
        counts: list[int] = []
        commit = MailStore.commit

        async def watched(self: MailStore, unit: Any) -> Any:
            done = await commit(self, unit)
            counts.append(max((len(each) // 4 for each in packed(done.results)), default=0))
            look()
            return done

        monkeypatch.setattr(MailStore, "commit", watched)
        return counts

    return begin


async def beside(world: World, client: Client, command: str) -> list[bytes]:
    """The command's lines; while it was under way, another session's commands were answered."""
    other = await world.login("Sent")
    client.protocol.data_received(b"s " + command.encode() + b"\r\n")
    answered = 0
    while client.protocol.waiting:
        other.protocol.data_received(b"n NOOP\r\n")
        await asyncio.sleep(0)
        while not (said := other.take()):  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert b"n OK " in said
        answered += client.protocol.waiting
    await client.settle()
    lines = client.take().split(b"\r\n")[:-1]
    assert lines[-1].startswith(b"s OK"), lines[-1]
    assert answered >= 2, "nobody else was served meanwhile"
    return lines


async def test_copies_onto_itself_end_at_the_quota_and_leave_nothing_of_the_last(
    world: World, units: Callable[..., list[int]]
) -> None:
    client = await world.login("INBOX")
    counts = units(lambda: None)
    await client.append(MESSAGE)
    octets, _messages = world.store.accounts.usage(world.account_id)
    await world.store.accounts.set_quota("user@example.test", octets * 1700)
    answers = [(await client.do("COPY 1:* INBOX"))[-1] for _ in range(17)]
    assert all(answer.startswith(b"OK [COPYUID ") for answer in answers[:10])
    assert all(answer.startswith(b"NO [OVERQUOTA]") for answer in answers[10:])
    assert exists(world, "INBOX") == 1024
    assert max(counts) == mailboxes.COPIED
    told = [line for line in await client.ok("NOOP") if line.endswith(b" EXISTS")]
    assert not told or told[-1] == b"* 1024 EXISTS"


async def test_a_move_of_many_is_in_order_and_loses_none_in_between(
    world: World, units: Callable[..., list[int]]
) -> None:
    client = await world.login("INBOX")
    await fill(client)
    sums: set[int] = set()
    counts = units(lambda: sums.add(exists(world, "INBOX") + exists(world, "Sent")))
    lines = await beside(world, client, "MOVE 1:* Sent")
    assert sums == {COUNT}, "a message was in no mailbox, or in both"
    assert counts.count(mailboxes.COPIED) == COUNT // mailboxes.COPIED
    assert max(counts) == mailboxes.COPIED
    assert lines[0].startswith(b"* OK [COPYUID ")
    assert b" 1:%d 1:%d] " % (COUNT, COUNT) in lines[0]
    assert sum(line.endswith(b" EXPUNGE") for line in lines) == COUNT
    assert exists(world, "Sent") == COUNT


async def test_an_expunge_of_many_is_told_to_all_as_a_mailbox_that_shrinks(
    world: World, units: Callable[..., list[int]]
) -> None:
    client, watching = await world.login("INBOX"), await world.login()
    await fill(client)
    await watching.ok("SELECT INBOX")
    counts = units(lambda: None)
    await beside(world, client, "STORE 1:* +FLAGS.SILENT (\\Deleted)")
    left = [exists(world, "INBOX")]
    counts = units(lambda: left.append(exists(world, "INBOX")))
    for lines in (await beside(world, client, "EXPUNGE"), await watching.ok("NOOP")):
        there = COUNT
        for line in lines:
            number = re.fullmatch(rb"\* (\d+) EXPUNGE", line)
            if number:
                assert 1 <= int(number[1]) <= there
                there -= 1
        assert there == 0
    assert max(counts) == mailboxes.SLICE
    assert left == sorted(left, reverse=True)
    assert len(set(left)) >= COUNT // mailboxes.SLICE
