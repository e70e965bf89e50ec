"""CONTEXT=SEARCH (RFC 5267): results that are kept up to date, and when they are not."""

import random
import re
from array import array

import pytest

from fastmta.imap.commands import context
from tests.imap.harness import Client, World, split_responses


def letter(subject: str) -> bytes:
    return b"Subject: %b\r\n\r\ntext\r\n" % subject.encode()


async def filled(world: World, *subjects: str) -> tuple[Client, Client]:
    """A client that has selected INBOX with these messages, and another one."""
    other = await world.login("INBOX")
    for subject in subjects:
        await other.append(letter(subject))
    client = await world.login("INBOX")
    await other.ok("NOOP")
    return client, other


async def update(client: Client, command: str) -> list[bytes]:
    """A command whose tag is t with a number; its untagged lines."""
    return await client.ok(command)


def tag(client: Client) -> bytes:
    return b"t%d" % client._tag


async def test_what_changes_a_result_is_told(world: World) -> None:
    client, other = await filled(world, "a", "b", "c")
    assert await update(client, "UID SEARCH RETURN (UPDATE COUNT) UNSEEN") == [
        b'* ESEARCH (TAG "%b") UID COUNT 3' % tag(client)
    ]
    head = b'* ESEARCH (TAG "%b") UID ' % tag(client)
    await other.ok("STORE 2 +FLAGS.SILENT (\\Seen)")
    assert (await client.ok("NOOP"))[-1] == head + b"REMOVEFROM (0 2)"
    await other.ok("STORE 2 -FLAGS.SILENT (\\Seen)")
    await other.ok("STORE 2 +FLAGS.SILENT (\\Flagged)")
    assert (await client.ok("NOOP"))[-1] == head + b"ADDTO (0 2)"
    await other.append(letter("d"))
    lines = await client.ok("NOOP")
    assert lines[0] == b"* 4 EXISTS"
    assert lines[-1] == head + b"ADDTO (0 4)"
    await other.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    await other.ok("EXPUNGE")
    assert await client.ok("NOOP") == [head + b"REMOVEFROM (0 1)", b"* 1 EXPUNGE"]
    await other.ok("STORE 1 +FLAGS.SILENT (\\Answered)")
    assert not any(b"ESEARCH" in line for line in await client.ok("NOOP"))


async def test_numbers_are_those_before_an_expunge(world: World) -> None:
    client, other = await filled(world, "a", "b", "c", "d")
    await client.ok("SEARCH RETURN (UPDATE) SUBJECT c")
    head = b'* ESEARCH (TAG "%b") ' % tag(client)
    await other.ok("STORE 2:3 +FLAGS.SILENT (\\Deleted)")
    await other.ok("EXPUNGE")
    lines = await client.ok("NOOP")
    assert lines[-3:] == [head + b"REMOVEFROM (0 3)", b"* 3 EXPUNGE", b"* 2 EXPUNGE"]
    await other.append(letter("c"))
    lines = await client.ok("NOOP")
    assert lines == [b"* 3 EXISTS", b"* 3 RECENT", head + b"ADDTO (0 3)"] or lines[-1] == head + b"ADDTO (0 3)"


async def test_own_changes_count_too(world: World) -> None:
    client, _ = await filled(world, "a", "b")
    await client.ok("UID SEARCH RETURN (UPDATE) FLAGGED")
    head = b'* ESEARCH (TAG "%b") UID ' % tag(client)
    assert (await client.ok("STORE 1:2 +FLAGS (\\Flagged)"))[-1] == head + b"ADDTO (0 1:2)"
    assert await client.ok("STORE 1 -FLAGS.SILENT (\\Flagged)") == [head + b"REMOVEFROM (0 1)"]


async def test_idle_and_notify_tell_it_at_once(world: World) -> None:
    client, other = await filled(world, "a")
    await client.ok("UID SEARCH RETURN (UPDATE (UID BODY.PEEK[HEADER.FIELDS (Subject)])) SUBJECT x")
    head = b'* ESEARCH (TAG "%b") UID ' % tag(client)
    await client.send(b"i IDLE\r\n")
    await other.append(letter("x1"))
    await client.settle()
    lines = split_responses(client.take())
    assert head + b"ADDTO (0 2)" in lines
    assert lines[-1] == b"* 2 FETCH (UID 2 BODY[HEADER.FIELDS (Subject)] {15}\r\nSubject: x1\r\n\r\n)"
    await client.send(b"DONE\r\n")
    await client.ok("NOTIFY SET (selected (MessageNew MessageExpunge FlagChange))")
    await other.append(letter("x2"))
    await client.settle()
    assert head + b"ADDTO (0 3)" in split_responses(client.take())


async def test_cancelupdate_and_the_end_of_the_selection_end_it(world: World) -> None:
    client, other = await filled(world, "a")
    await client.ok("UID SEARCH RETURN (UPDATE) ALL")
    name = tag(client).decode()
    assert (await client.do('CANCELUPDATE "nobody"'))[-1].startswith(b"NO ")
    await client.ok(f'CANCELUPDATE "{name}"')
    await other.append(letter("b"))
    assert not any(b"ESEARCH" in line for line in await client.ok("NOOP"))
    await client.ok("UID SEARCH RETURN (UPDATE) ALL")
    await client.ok("SELECT INBOX")
    await other.append(letter("c"))
    assert not any(b"ESEARCH" in line for line in await client.ok("NOOP"))
    for bad in ("CANCELUPDATE", "CANCELUPDATE x", 'CANCELUPDATE "a" b'):
        assert (await client.do(bad))[-1].startswith(b"BAD ")


async def test_a_tag_stands_for_one_search(world: World) -> None:
    client, _ = await filled(world, "a")
    assert b"x OK" in await client.send(b"x UID SEARCH RETURN (UPDATE) ALL\r\n")
    assert (await client.send(b"x UID SEARCH RETURN (UPDATE COUNT) SEEN\r\n")).startswith(b"x BAD ")
    assert b"x OK" in await client.send(b"x UID SEARCH RETURN (COUNT) SEEN\r\n")


@pytest.mark.parametrize(
    "command", ["SEARCH RETURN (UPDATE COUNT) 1:2", "UID SORT RETURN (UPDATE COUNT) (SUBJECT) UTF-8 1:2"]
)
async def test_what_is_not_kept_up_to_date_is_said(world: World, command: str) -> None:
    client, _ = await filled(world, "a", "b")
    lines = await client.ok(command)
    assert b" COUNT 2" in lines[0]
    assert lines[1].startswith(b'* NO [NOUPDATE "%b"]' % tag(client))


async def test_only_so_many_and_so_large_ones(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client, other = await filled(world, "a", "b")
    monkeypatch.setattr(context, "IMAP_CONTEXTS", 2)
    for _ in range(2):
        assert len(await client.ok("UID SEARCH RETURN (UPDATE COUNT) ALL")) == 1
    assert b"NOUPDATE" in (await client.ok("UID SEARCH RETURN (UPDATE COUNT) ALL"))[1]
    monkeypatch.setattr(context, "IMAP_CONTEXT_MESSAGES", 2)
    await other.append(letter("c"))
    lines = await client.ok("NOOP")
    assert sum(b"NOUPDATE" in line for line in lines) == 2
    await other.append(letter("d"))
    assert not any(b"ESEARCH" in line for line in await client.ok("NOOP"))


async def test_results_by_number_end_where_numbers_end(world: World) -> None:
    client, other = await filled(world, "a")
    await client.ok("SEARCH RETURN (UPDATE) ALL")
    by_number = tag(client)
    await client.ok("UID SEARCH RETURN (UPDATE) ALL")
    by_uid = tag(client)
    assert b'* NO [NOUPDATE "%b"] Its result is not kept up to date' % by_number in await client.ok("ENABLE UIDONLY")
    await other.append(letter("b"))
    lines = [line for line in await client.ok("NOOP") if b"ESEARCH" in line]
    assert lines == [b'* ESEARCH (TAG "%b") UID ADDTO (0 2)' % by_uid]


async def test_very_many_changes_are_searched_for_in_all(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client, other = await filled(world, *"abcd")
    monkeypatch.setattr(context, "IMAP_CONTEXT_CHANGES", 1)
    await client.ok("UID SEARCH RETURN (UPDATE) UNSEEN")
    head = b'* ESEARCH (TAG "%b") UID ' % tag(client)
    await other.ok("STORE 2:3 +FLAGS.SILENT (\\Seen)")
    assert (await client.ok("NOOP"))[-1] == head + b"REMOVEFROM (0 2:3)"
    assert client.protocol.session.view.contexts._all[0].found == array("I", (1, 4))


async def test_multisearch_has_no_updates(world: World) -> None:
    client, _ = await filled(world, "a")
    assert (await client.do("ESEARCH IN (personal) RETURN (UPDATE) ALL"))[-1].startswith(b"BAD ")


class Mirror:
    """A client's copy of a SORT's result, by what it is told (RFC 5267 §4.3.3, §4.3.4)."""

    def __init__(self, lines: list[bytes]) -> None:
        self.list: list[int] = []
        for word in lines[0].rpartition(b" ALL ")[2].split(b","):
            low, _, high = word.partition(b":")
            step = 1 if not high or int(high) >= int(low) else -1
            self.list += range(int(low), int(high or low) + step, step)

    def take(self, lines: list[bytes]) -> None:
        for line in lines:
            found = re.search(rb"(ADDTO|REMOVEFROM) \((.*)\)$", line)
            if found is None:
                continue
            words = [int(word) for word in found[2].split()]
            for place, uid in zip(words[::2], words[1::2], strict=True):
                if found[1] == b"ADDTO":
                    self.list.insert(place - 1, uid)
                else:
                    assert self.list.pop(place - 1) == uid


@pytest.mark.parametrize("compared", [50, 0])
@pytest.mark.parametrize("criteria", ["SUBJECT", "REVERSE SUBJECT", "REVERSE SIZE ARRIVAL"])
async def test_a_sort_is_kept_with_places(
    world: World, criteria: str, compared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "IMAP_CONTEXT_COMPARED", compared)
    chance = random.Random(5)
    client, other = await filled(world, *(chance.choice("abc") * chance.randrange(1, 4) for _ in range(12)))
    mirror = Mirror(await client.ok(f"UID SORT RETURN (UPDATE ALL) ({criteria}) UTF-8 UNSEEN"))
    for _ in range(12):
        for _ in range(chance.randrange(1, 4)):
            await other.append(letter(chance.choice("abcd") * chance.randrange(1, 4)))
        await other.ok("NOOP")
        last = chance.randrange(1, 12)
        await other.ok(f"STORE {last},{last + 1} {chance.choice('+-')}FLAGS.SILENT (\\Seen)")
        if chance.random() < 0.5:
            await other.ok(f"STORE {chance.randrange(1, 9)}:9 +FLAGS.SILENT (\\Deleted)")
            await other.ok("EXPUNGE")
        mirror.take(await client.ok("NOOP"))
        fresh = await client.ok(f"UID SORT ({criteria}) UTF-8 UNSEEN")
        assert mirror.list == [int(word) for word in fresh[-1].split()[2:]]


async def test_a_sort_by_number_tells_numbers(world: World) -> None:
    client, other = await filled(world, "c", "a", "b")
    assert (await client.ok("SORT RETURN (UPDATE ALL) (SUBJECT) UTF-8 UNSEEN"))[0].endswith(b" ALL 2:3,1")
    head = b'* ESEARCH (TAG "%b") ' % tag(client)
    await other.ok("STORE 2 +FLAGS.SILENT (\\Deleted)")
    await other.ok("EXPUNGE")
    assert await client.ok("NOOP") == [head + b"REMOVEFROM (1 2)", b"* 2 EXPUNGE"]
    await other.append(letter("bb"))
    assert (await client.ok("NOOP"))[-1] == head + b"ADDTO (2 3)"


@pytest.mark.parametrize("key", ["OLDER 5", "NOT YOUNGER 5", "OR SEEN OLDER 5", "SORT"])
async def test_what_the_clock_or_all_results_change_is_not_kept(world: World, key: str) -> None:
    client, _ = await filled(world, "a")
    command = (
        "UID SORT RETURN (UPDATE) (RELEVANCY) UTF-8 FUZZY SUBJECT a"
        if key == "SORT"
        else f"UID SEARCH RETURN (UPDATE) {key}"
    )
    assert any(b"NO [NOUPDATE " in line for line in await client.ok(command))


@pytest.mark.parametrize("compared", [50, 0])
async def test_what_is_expunged_but_not_told_is_not_compared_with(
    world: World, compared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An expunge waits while numbers must stay; what a SORT is by is gone of such messages."""
    monkeypatch.setattr(context, "IMAP_CONTEXT_COMPARED", compared)
    client, other = await filled(world, *"cgaebfd")
    mirror = Mirror(await client.ok("UID SORT RETURN (UPDATE ALL) (SUBJECT) UTF-8 ALL"))
    await other.ok("STORE 1,4,7 +FLAGS.SILENT (\\Deleted)")
    for subject in ("cc", "a", "ff", "h", "bb"):
        await other.append(letter(subject))
    await other.ok("EXPUNGE")
    mirror.take(await client.do("SEARCH ALL"))
    assert sorted(mirror.list) == list(range(1, 13))
    assert [uid for uid in mirror.list if uid not in (1, 4, 7)] == [3, 9, 5, 12, 8, 6, 10, 2, 11]
    mirror.take(await client.ok("NOOP"))
    assert mirror.list == [3, 9, 5, 12, 8, 6, 10, 2, 11]
    assert (await client.ok("UID SORT (SUBJECT) UTF-8 ALL"))[-1].split()[2:] == [b"%d" % uid for uid in mirror.list]
