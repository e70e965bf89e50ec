"""MULTIAPPEND and REPLACE: one step or nothing, quota before literals, bounds of messages and octets."""

import pytest

from fastmta.imap import upload as upload_module
from fastmta.model.limits import IMAP_APPEND_MESSAGES
from tests.imap.harness import World
from tests.imap.test_append import MEGABYTE, set_quota


def many(tag: bytes, messages: list[bytes], mailbox: bytes = b"INBOX") -> bytes:
    """An APPEND of several messages with non-synchronising literals."""
    return b"%b APPEND %b%b\r\n" % (
        tag,
        mailbox,
        b"".join(b" {%d+}\r\n%b" % (len(message), message) for message in messages),
    )


async def test_all_messages_become_visible_at_once(world: World) -> None:
    watcher = await world.login("INBOX")
    client = await world.login()
    out = await client.send(many(b"a", [b"A: %d\r\n\r\nx" % number for number in range(20)]))
    assert out.startswith(b"a OK [APPENDUID ")
    assert b" 1:20] APPEND completed" in out
    told = await watcher.ok("NOOP")
    assert [line for line in told if line.endswith(b"EXISTS")] == [b"* 20 EXISTS"]


async def test_two_spaces_between_messages_are_taken(world: World) -> None:
    client = await world.login("INBOX")
    out = await client.send(b"a APPEND INBOX {3+}\r\nA:b  {3+}\r\nC:d\r\n")  # as IMAPClient sends it
    assert b"\r\na OK [APPENDUID " in out and b" 1:2] APPEND" in out


@pytest.mark.parametrize("tail", [b" {5000000}\r\n", b" junk\r\n", b" (\\Seen\r\n", b" {0+}\r\n\r\n"])
async def test_a_bad_message_takes_those_before_it_along(world: World, tail: bytes) -> None:
    client = await world.login("INBOX")
    out = await client.send(many(b"a", [b"A: b\r\n\r\n"] * 3)[:-2] + tail)
    assert out.startswith((b"a NO [", b"a BAD APPEND"))
    assert await client.ok("STATUS INBOX (MESSAGES)") == [b"* STATUS INBOX (MESSAGES 0)"]
    assert world.services.limits.appending(client.protocol.session.account_id) == 0


async def test_the_quota_counts_all_messages_before_the_next_literal(world: World) -> None:
    world.services.config.message_size_limit = 50 * MEGABYTE
    await set_quota(world, MEGABYTE)
    client = await world.login("INBOX")
    assert await client.send(b"a APPEND INBOX {600000}\r\n") == b"+ OK\r\n"
    assert await client.send(b"x" * 600_000 + b" {600000}\r\n") == b"a NO [OVERQUOTA] Quota exceeded\r\n"
    out = await client.send(many(b"b", [b"x" * 600_000, b"y" * 600_000]) + b"c NOOP\r\n")
    assert out == b"b NO [OVERQUOTA] Quota exceeded\r\nc OK NOOP completed\r\n"
    assert (await client.append(b"x" * 900_000)).startswith(b"OK")


@pytest.mark.parametrize("count", [IMAP_APPEND_MESSAGES - 1, IMAP_APPEND_MESSAGES, IMAP_APPEND_MESSAGES + 1])
@pytest.mark.parametrize("store_kind", ["lmdb"])
async def test_messages_of_a_command_are_bounded(world: World, count: int) -> None:
    client = await world.login("INBOX")
    out = await client.send(many(b"a", [b"A: b\r\n\r\n"] * count))
    good = count <= IMAP_APPEND_MESSAGES
    assert out.splitlines()[-1].startswith(b"a OK [APPENDUID" if good else b"a BAD APPEND: Too many messages"), out
    expected = count if good else 0
    assert await client.ok("STATUS INBOX (MESSAGES)") == [b"* STATUS INBOX (MESSAGES %d)" % expected]


@pytest.mark.parametrize("over", [0, 1])
async def test_octets_of_a_command_are_bounded(world: World, over: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_module, "IMAP_COMMAND_UPLOAD_BYTES", 1000)
    client = await world.login("INBOX")
    out = await client.send(many(b"a", [b"x" * 600, b"y" * (400 + over)]))
    assert out.splitlines()[-1].startswith(b"a NO [LIMIT]" if over else b"a OK [APPENDUID"), out


@pytest.mark.parametrize("store_kind", ["lmdb"])
async def test_large_messages_of_one_command_are_not_kept_in_memory(world: World) -> None:
    world.services.config.message_size_limit = 50 * MEGABYTE
    client = await world.login("INBOX")
    bodies = [b"A: %d\r\n\r\n" % number + b"0123456789abcde\n" * 12_000 for number in range(6)]
    out = await client.send(many(b"a", bodies)[:-2])
    assert out == b""
    upload = client.protocol.session.upload
    assert [message.blob.body_size for message in upload.messages] == [len(body) for body in bodies[:-1]]
    assert (await client.send(b"\r\n")).splitlines()[-1].startswith(b"a OK [APPENDUID")
    for number, body in enumerate(bodies, 1):
        assert await client.send(b"b FETCH %d BODY.PEEK[]\r\n" % number) == (
            b"* %d FETCH (BODY[] {%d}\r\n%b)\r\nb OK FETCH completed\r\n" % (number, len(body), body)
        )


async def test_a_replacement_needs_no_room_for_what_goes(world: World) -> None:
    await set_quota(world, 1000)
    client = await world.login()
    assert (await client.append(b"x" * 900)).startswith(b"OK")
    await client.ok("SELECT INBOX")
    assert (await client.send(b"a REPLACE 1 INBOX {1001}\r\n")).startswith(b"a NO [OVERQUOTA]")
    out = await client.send(b"b REPLACE 1 INBOX {1000+}\r\n" + b"y" * 1000 + b"\r\n")
    assert out.splitlines()[-1] == b"b OK REPLACE completed"


async def test_of_two_replacements_of_one_message_one_is_refused(world: World) -> None:
    one, two = await world.login(), await world.login()
    assert (await one.append(b"draft")).startswith(b"OK")
    for client in (one, two):
        await client.ok("SELECT INBOX")
    assert await one.send(b"a UID REPLACE 1 INBOX {3}\r\n") == b"+ OK\r\n"
    assert await two.send(b"a UID REPLACE 1 INBOX {3}\r\n") == b"+ OK\r\n"
    assert b"a OK UID REPLACE completed" in await one.send(b"one\r\n")
    out = await two.send(b"two\r\n")
    assert b"a NO [EXPUNGEISSUED]" in out
    assert await one.ok("STATUS INBOX (MESSAGES)") == [b"* STATUS INBOX (MESSAGES 1)"]


async def test_a_replacement_is_vanished_and_come_for_a_qresync_client(world: World) -> None:
    client = await world.login()
    await client.ok("ENABLE QRESYNC")
    assert (await client.append(b"draft")).startswith(b"OK")
    await client.ok("SELECT INBOX")
    lines = await client.do(b"UID REPLACE 1 INBOX {3+}\r\nnew")
    assert lines[0].startswith(b"* OK [APPENDUID ")
    assert lines[1] == b"* VANISHED 1"
    assert lines[-1].startswith(b"OK [HIGHESTMODSEQ ")
