"""APPEND's bounds: quota before the literal, unfinished uploads by account and time, space that comes back."""

import asyncio
from typing import Any

import pytest

from fastmta.model.limits import IMAP_TRANSFER_TIMEOUT_S, IMAP_UPLOAD_RATE, IMAP_UPLOADS
from tests.imap.harness import Client, World

MEGABYTE = 1_000_000


async def set_quota(world: World, octets: int) -> None:
    await world.store.accounts.set_quota("user@example.test", octets)


@pytest.fixture
def messages(world: World) -> World:
    world.services.config.message_size_limit = 50 * MEGABYTE
    return world


async def test_a_message_over_quota_is_refused_before_its_literal(messages: World) -> None:
    await set_quota(messages, MEGABYTE)
    client = await messages.login("INBOX")
    out = await client.send(b"a APPEND INBOX {40000000}\r\n")
    assert out == b"a NO [OVERQUOTA] Quota exceeded\r\n"
    out = await client.send(b"b APPEND INBOX {2000000+}\r\n" + b"x" * 2_000_000 + b"\r\nc NOOP\r\n")
    assert out == b"b NO [OVERQUOTA] Quota exceeded\r\nc OK NOOP completed\r\n"
    assert (await client.append(b"A: b\r\n\r\n")).startswith(b"OK")


async def test_a_refused_literal_that_is_too_large_to_be_skipped_ends_the_session(world: World) -> None:
    await set_quota(world, MEGABYTE)
    client = await world.login("INBOX")
    out = await client.send(b"a APPEND INBOX {4000000000+}\r\nxxxx")
    assert out.startswith(b"a NO [")
    assert out.endswith(b"* BYE [TOOBIG] Literal is too large\r\n")
    assert client.transport.closed


async def test_unfinished_uploads_count_against_the_quota(messages: World) -> None:
    await set_quota(messages, MEGABYTE)
    one, two = await messages.login("INBOX"), await messages.login("INBOX")
    assert await one.send(b"a APPEND INBOX {600000}\r\n") == b"+ OK\r\n"
    assert (await two.send(b"a APPEND INBOX {600000}\r\n")).startswith(b"a NO [OVERQUOTA]")
    one.transport.close()
    await one.settle()
    assert await two.send(b"b APPEND INBOX {600000}\r\n") == b"+ OK\r\n"


@pytest.mark.parametrize("end", ["close", "reset", "literal refused", "junk", "deadline", "drain"])
async def test_unfinished_uploads_of_an_account_are_bounded_and_come_back(messages: World, end: str) -> None:
    # Each from an address of its own: mail_max_userip_connections would end it before.
    clients = [await messages.login("INBOX", peer=f"127.0.1.{number}") for number in range(IMAP_UPLOADS)]
    for client in clients:
        assert await client.send(b"a APPEND INBOX {1000000}\r\n") == b"+ OK\r\n"
        assert await client.send(b"x" * 500) == b""
    another = await messages.login("INBOX")
    assert (await another.send(b"a APPEND INBOX {10}\r\n")).startswith(b"a NO [LIMIT]")
    first = clients[0]
    if end == "close":
        first.transport.close()
    elif end == "reset":
        first.protocol.connection_lost(ConnectionResetError())
        first.transport.closed = True
    elif end == "literal refused":
        await first.send(b"x" * 999_500 + b" {2000000000}\r\n")
    elif end == "junk":
        await first.send(b"x" * 999_500 + b" junk\r\n")
    elif end == "deadline":
        first.protocol.deadline_passed(asyncio.get_running_loop().time() + 10_000)
    else:
        first.protocol.bye(b"Shutting down", now=True)
    await first.settle()
    assert await another.send(b"b APPEND INBOX {10}\r\n") == b"+ OK\r\n"


async def test_what_is_finished_counts_no_more(world: World) -> None:
    client = await world.login("INBOX")
    account = client.protocol.session.account_id
    for _ in range(IMAP_UPLOADS * 2):
        assert (await client.append(b"A: b\r\n\r\n")).startswith(b"OK")
        assert (await client.append(b"A: b\r\n\r\n", "nosuch")).startswith(b"NO [TRYCREATE]")
    assert world.services.limits.appending(account) == 0


async def test_an_upload_must_go_on_and_must_end_in_time(messages: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await messages.login("INBOX")
    now = 1000.0
    loop: Any = messages.services.loop
    monkeypatch.setattr(messages.services, "loop", _Clock(loop, lambda: now))
    size = 1_000_000
    await client.send(b"a APPEND INBOX {%d}\r\n" % size)
    ends_at = now + IMAP_TRANSFER_TIMEOUT_S + size / IMAP_UPLOAD_RATE
    assert client.protocol.deadline == now + IMAP_TRANSFER_TIMEOUT_S
    while now < ends_at:
        await client.send(b"x")
        assert client.protocol.deadline == min(now + IMAP_TRANSFER_TIMEOUT_S, ends_at)
        now += IMAP_TRANSFER_TIMEOUT_S / 2
    client.protocol.deadline_passed(now)
    await client.settle()
    assert b"* BYE" in client.take()
    assert messages.services.limits.appending(client.protocol.session.account_id) == 0


class _Clock:
    """A loop whose time is the test's."""

    def __init__(self, loop: Any, time: Any) -> None:
        self._loop = loop
        self.time = time

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


@pytest.mark.parametrize("store_kind", ["lmdb"])
async def test_the_space_of_an_upload_that_never_ends_comes_back_at_once(messages: World) -> None:
    client: Client = await messages.login("INBOX")
    await client.send(b"a APPEND INBOX {20000000}\r\n")
    for _ in range(20):
        await client.send(b"y" * 500_000)
    raw = messages.store.raw
    assert _chunks(raw) > 100
    client.transport.close()
    await client.settle()
    async with asyncio.timeout(60):
        while _chunks(raw):  # noqa: ASYNC110
            await asyncio.sleep(0)


def _chunks(raw: Any) -> int:
    from fastmta._store import TABLE_BLOB

    return len(raw.scan(TABLE_BLOB, b"", b"", 100_000))
