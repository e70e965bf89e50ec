"""imap_idle_notify_interval: a client in IDLE hears a word from time to time, and no other client does."""

from typing import Any

import pytest

from fastmta.model.limits import IMAP_IDLE_TIMEOUT_S
from tests.imap.harness import World
from tests.imap.test_append import _Clock


@pytest.fixture
def clock(world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
    now = [1000.0]
    monkeypatch.setattr(world.services, "loop", _Clock(world.services.loop, lambda: now[0]))
    return now


async def test_a_client_in_idle_hears_a_word_until_its_time_is_over(world: World, clock: Any) -> None:
    client = await world.login("INBOX")
    assert await client.send(b"a IDLE\r\n") == b"+ idling\r\n"
    ends_at = clock[0] + IMAP_IDLE_TIMEOUT_S
    words = 0
    while client.protocol.deadline < ends_at:
        clock[0] = client.protocol.deadline
        client.protocol.deadline_passed(clock[0])
        assert client.take() == b"* OK Still here\r\n"
        words += 1
    assert words == IMAP_IDLE_TIMEOUT_S // 120 - 1
    clock[0] = client.protocol.deadline
    client.protocol.deadline_passed(clock[0])
    assert client.take().startswith(b"* BYE Autologout")


async def test_after_done_the_deadline_is_that_of_any_client(world: World, clock: Any) -> None:
    client = await world.login("INBOX")
    await client.send(b"a IDLE\r\n")
    assert client.protocol.deadline == clock[0] + 120
    assert await client.send(b"DONE\r\n") == b"a OK IDLE completed\r\n"
    assert client.protocol.deadline == clock[0] + IMAP_IDLE_TIMEOUT_S


async def test_none_where_it_is_zero(world: World, clock: Any) -> None:
    world.services.config.imap_idle_notify_interval = 0.0
    client = await world.login("INBOX")
    await client.send(b"a IDLE\r\n")
    assert client.protocol.deadline == clock[0] + IMAP_IDLE_TIMEOUT_S
