"""Once an hour: old mail leaves Trash and Junk, and who has nearly used his quota is told once a step."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from fastmta import _mime
from fastmta.runtime.clock import ManualClock
from fastmta.runtime.log import Log
from fastmta.store import MailStore
from fastmta.supervisor import hourly

DAY_S = 86_400
MESSAGE = b"Subject: x\r\n\r\ntext\r\n"


class Hours:
    """The clock of the work; what comes in is dated by the system's, in the transaction."""

    def __init__(self) -> None:
        self.now_s = time.time()


async def pass_by(services: Any, seconds: float) -> None:
    """Time passes, with a look now and then."""
    ends_at = services.hours.now_s + seconds
    while services.hours.now_s < ends_at:
        services.hours.now_s = min(ends_at, services.hours.now_s + DAY_S)
        await hourly.look_at_all(services)


@pytest_asyncio.fixture
async def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    hours = Hours()
    clock = SimpleNamespace(now=lambda: hours.now_s)
    store = MailStore.open(tmp_path, sync=False, engine="memory")
    config = SimpleNamespace(
        trash_autoexpunge=7.0 * DAY_S,
        junk_autoexpunge=0.0,
        inbox_autoexpunge=0.0,
        quota_mail_warnings=("80%", "95%"),
        mail_undelete_time=0.0,
    )
    found = SimpleNamespace(store=store, clock=clock, config=config, log=Log(level="error"), posted=[], hours=hours)

    async def post(_services: Any, to: str, subject: str, _text: str) -> None:
        found.posted.append((to, subject))

    monkeypatch.setattr(hourly, "post", post)
    await store.accounts.add("user@example.test", "x")
    yield found
    store.close()


async def put(services: Any, mailbox: str, count: int, received_s: int) -> int:
    """Messages that came into a mailbox now, whatever their internal date; the mailbox's id."""
    store = services.store
    box = store.mailboxes.get(store.accounts.lookup("user@example.test").id, mailbox)
    for _ in range(count):
        blob, structure = store.mailboxes.new_blob(), _mime.Structure()
        blob.feed(MESSAGE)
        structure.feed(MESSAGE)
        await store.mailboxes.append(box.id, blob, internal_date_s=received_s, structure=structure.finish())
    return int(box.id)


def left(services: Any, mailbox_id: int) -> int:
    return len(services.store.mailboxes.uids(mailbox_id))


async def test_what_came_into_trash_too_long_ago_goes(services: Any) -> None:
    """By when it came there, not by when it was sent; and from nowhere else."""
    now = int(services.clock.now())
    trash = await put(services, "Trash", 3, now - 400 * DAY_S)
    junk = await put(services, "Junk", 2, now)
    inbox = await put(services, "INBOX", 2, now)
    await hourly.look_at_all(services)
    assert left(services, trash) == 3
    await pass_by(services, 7 * DAY_S + 5)
    assert [left(services, each) for each in (trash, junk, inbox)] == [0, 2, 2]
    services.config.junk_autoexpunge = 1.0 * DAY_S
    await hourly.look_at_all(services)
    assert [left(services, each) for each in (junk, inbox)] == [0, 2]


async def test_a_clock_that_jumps_ahead_empties_nothing_at_once(services: Any) -> None:
    trash = await put(services, "Trash", 3, 1)
    await hourly.look_at_all(services)
    services.hours.now_s += 3650 * DAY_S  # and is set right after some hours
    for _ in range(5):
        await hourly.look_at_all(services)
        services.hours.now_s += 3600
    assert left(services, trash) == 3
    services.hours.now_s -= 3650 * DAY_S
    await pass_by(services, 6 * DAY_S)
    assert left(services, trash) == 3
    await pass_by(services, 2 * DAY_S)
    assert left(services, trash) == 0


async def test_old_mail_leaves_inbox_where_it_is_said(services: Any) -> None:
    services.config.trash_autoexpunge, services.config.inbox_autoexpunge = 0.0, 30.0 * DAY_S
    archive, inbox = await put(services, "Archive", 1, 1), await put(services, "INBOX", 2, 1)
    services.hours.now_s += 30 * DAY_S + 5
    await hourly.look_at_all(services)
    assert [left(services, each) for each in (archive, inbox)] == [1, 0]


async def test_very_much_old_mail_goes_in_pieces(services: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hourly, "_MESSAGES_AT_ONCE", 4)
    trash = await put(services, "Trash", 11, 1)
    services.hours.now_s += 30 * DAY_S
    await hourly.look_at_all(services)
    assert left(services, trash) == 0


async def test_a_full_mailbox_is_told_once_a_step(services: Any) -> None:
    services.config.trash_autoexpunge = 0.0
    inbox = await put(services, "INBOX", 8, 1)
    used = services.store.mailboxes.usage(services.store.accounts.lookup("user@example.test").id)[0]
    await services.store.accounts.set_quota("user@example.test", used * 10 // 8)
    for _ in range(3):
        await hourly.look_at_all(services)
    assert services.posted == [("user@example.test", "Your mailboxes are 80 % full")]
    await services.store.accounts.set_quota("user@example.test", used)
    await hourly.look_at_all(services)
    assert services.posted[1:] == [("user@example.test", "Your mailboxes are 100 % full")]
    await services.store.mailboxes.expunge(inbox, only_deleted=False)
    await hourly.look_at_all(services)
    assert len(services.posted) == 2
    await put(services, "INBOX", 8, 1)
    await hourly.look_at_all(services)
    assert len(services.posted) == 3


async def test_it_is_done_once_an_hour(services: Any) -> None:
    started: list[str] = []

    def spawn(name: str, work: Any) -> Any:
        work.close()
        started.append(name)
        return SimpleNamespace(done=lambda: True)

    services.clock = ManualClock()
    work = hourly.Hourly(spawn, services.clock.monotonic())
    for _ in range(2 * 3600):
        services.clock.advance(1)
        work.tick(services)
    assert started == ["hourly", "hourly"]


async def test_expunged_mail_can_be_had_back_for_its_time(services: Any) -> None:
    services.config.mail_undelete_time = 3.0 * DAY_S
    services.store.retained_bytes = 1 << 30
    now = int(services.clock.now())
    inbox = await put(services, "INBOX", 3, now)
    await services.store.mailboxes.expunge(inbox, only_deleted=False)
    account_id = services.store.retained.accounts()
    await pass_by(services, 2 * DAY_S)
    assert services.store.retained.totals(account_id)[0] == 3
    await pass_by(services, DAY_S + 5)
    assert services.store.retained.accounts() == 0


async def test_where_undelete_is_turned_off_what_was_retained_goes(services: Any) -> None:
    services.store.retained_bytes = 1 << 30
    inbox = await put(services, "INBOX", 3, int(services.clock.now()))
    await services.store.mailboxes.expunge(inbox, only_deleted=False)
    assert services.store.retained.accounts()
    await hourly.look_at_all(services)
    assert services.store.retained.accounts() == 0
