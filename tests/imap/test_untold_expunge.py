"""No MODSEQ is told above an expunge that has not been told: a client that leaves then would never hear of it."""

import re

import pytest

from tests.imap.harness import Client, World


async def one_expunged(world: World, feature: str = "QRESYNC") -> tuple[Client, Client, int]:
    """Five messages; another session expunges the first and flags the third, which this one has not heard of."""
    client = await world.login()
    for number in range(5):
        await client.append(b"Subject: %d\r\n\r\n" % number)
    await client.ok(f"ENABLE {feature}")
    await client.ok("SELECT INBOX")
    other = await world.login("INBOX")
    await other.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    known = await client.ok("NOOP")
    seen = max(int(n) for line in known for n in re.findall(rb"MODSEQ \((\d+)\)", line))
    await other.ok("EXPUNGE")
    await other.ok("STORE 2 +FLAGS.SILENT (\\Flagged)")
    return client, other, seen


def modseqs(lines: list[bytes]) -> list[int]:
    return [int(number) for line in lines for number in re.findall(rb"MODSEQ \(?(\d+)\)?", line)]


@pytest.mark.parametrize(
    "command",
    [
        "FETCH 2:5 (FLAGS MODSEQ)",
        "FETCH 2:5 MODSEQ",
        "FETCH 2:5 (MODSEQ BODY.PEEK[TEXT])",
        "FETCH 3 (MODSEQ BODY[])",
        "FETCH 2:5 (FLAGS) (CHANGEDSINCE 1)",
        "STORE 4 +FLAGS (\\Seen)",
        "STORE 4 +FLAGS.SILENT (\\Seen)",
        "SEARCH MODSEQ 1",
        "SEARCH RETURN (MAX) MODSEQ 1",
        "SORT (SUBJECT) UTF-8 MODSEQ 1",
    ],
)
async def test_a_modseq_told_by_number_is_below_an_untold_expunge(world: World, command: str) -> None:
    client, _other, seen = await one_expunged(world)
    lines = await client.do(command)
    told = modseqs(lines)
    if not command.startswith(("SEARCH", "SORT")):
        assert told
    assert max(told, default=0) <= seen, lines
    assert not any(b"VANISHED" in line or b"EXPUNGE" in line.split(b"[")[0] for line in lines[:-1])
    # The client leaves, and comes back with the highest modseq that it was told.
    client.transport.close()
    back = await world.login()
    await back.ok("ENABLE QRESYNC")
    validity = (await back.ok("STATUS INBOX (UIDVALIDITY)"))[0].split(b"UIDVALIDITY ")[1].rstrip(b")").decode()
    lines = await back.ok(f"SELECT INBOX (QRESYNC ({validity} {max([*told, seen])} 1:5))")
    assert b"* VANISHED (EARLIER) 1" in lines
    assert any(b"UID 3 FLAGS (" in line and b"\\Flagged" in line for line in lines)


async def test_after_the_expunge_is_told_modseqs_are_what_they_are(world: World) -> None:
    client, _other, seen = await one_expunged(world)
    await client.ok("FETCH 3 (FLAGS MODSEQ)")
    await client.ok("NOOP")
    assert max(modseqs(await client.ok("FETCH 2 MODSEQ"))) > seen + 1


async def test_by_uid_modseqs_are_what_they_are_and_the_expunge_is_told(world: World) -> None:
    client, _other, seen = await one_expunged(world)
    lines = await client.ok("UID FETCH 3 MODSEQ")
    assert max(modseqs(lines)) > seen + 1
    assert b"* VANISHED 1" in lines


async def test_without_an_expunge_nothing_is_lowered(world: World) -> None:
    client = await world.login()
    for number in range(2):
        await client.append(b"Subject: %d\r\n\r\n" % number)
    await client.ok("SELECT INBOX (CONDSTORE)")
    other = await world.login("INBOX")
    await other.ok("STORE 1 +FLAGS.SILENT (\\Flagged)")
    highest = max(modseqs(await client.ok("FETCH 1 MODSEQ")))
    await other.ok("STORE 1 -FLAGS.SILENT (\\Flagged)")
    assert max(modseqs(await client.ok("FETCH 1 (MODSEQ)"))) == highest + 1
    lines = await client.ok("STORE 2 +FLAGS.SILENT (\\Seen)")
    assert highest + 2 in modseqs(lines)


async def test_what_was_told_as_the_cap_is_put_right_behind_the_expunge(world: World) -> None:
    client, _other, seen = await one_expunged(world)
    assert max(modseqs(await client.ok("FETCH 2:3 MODSEQ"))) <= seen
    await client.ok("STORE 3 +FLAGS.SILENT (\\Answered)")
    lines = await client.ok("NOOP")
    (told,) = [modseqs([line])[0] for line in lines if b"UID 3 " in line]
    assert told > seen
    assert modseqs(await client.ok("UID FETCH 3 MODSEQ")) == [told]
    lines = await client.ok(f"UID STORE 3 (UNCHANGEDSINCE {told}) +FLAGS (\\Deleted)")
    assert not lines[-1].startswith(b"OK [MODIFIED")
    assert all(b"FETCH" not in line for line in await client.ok("NOOP"))
