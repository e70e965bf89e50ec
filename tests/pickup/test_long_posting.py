"""Local mail of very many recipients: bounded units, one message, and nobody twice whatever happens in between."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastmta._store import TABLE_META
from fastmta.cli.init import initialise
from fastmta.config.load import load
from fastmta.model.errors import StorageFailure
from fastmta.model.limits import POSTED_AT_ONCE
from fastmta.pickup import long_posting
from fastmta.pickup.service import Pickup
from fastmta.pickup.spool import Drop, Ticket, deposit, make_spool
from fastmta.runtime.metrics import METRICS
from fastmta.store import MailStore
from fastmta.store.check import check_store
from tests.support.pickup import Services, close_services, open_services, pick_up, settled

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = initialise(tmp_path, domain="example.test")
    os.close(make_spool(load(path).data_directory))

    async def bill(services: Services) -> None:
        await services.store.accounts.add("bill@example.test", "hash")

    with_store(path, bill)
    return path


def with_store(path: Path, scene: object) -> None:
    async def inner() -> None:
        services = await open_services(load(path))
        try:
            await scene(services)  # type: ignore[operator]
        finally:
            await close_services(services)

    asyncio.run(inner())


def leave(path: Path, *addresses: str) -> None:
    ticket = Ticket("ann@example.test", [Drop(each) for each in addresses])
    deposit(load(path).data_directory, ticket, [b"Subject: x\n\n", b"body\n"], 0)


def strangers(count: int) -> list[str]:
    return [f"u{n}@far.test" for n in range(count)]


def everybody(path: Path) -> tuple[int, list[bytes], int, list[tuple[bytes, bytes]]]:
    """(messages in the queue, their recipients, messages in bill's mailbox, notes)."""
    store = MailStore.open(Path(load(path).data_directory))
    try:
        found: list[bytes] = []
        ids = set()
        for _, _, queue_id, n in store.queue.due(b"smtp:far.test", 1 << 60, 1_000_000):
            row = store.queue.recipient(queue_id, n)
            assert row is not None
            found.append(row.tail.forward_path)
            ids.add(queue_id)
        account = store.accounts.lookup("bill@example.test")
        assert account is not None
        box = store.mailboxes.by_id(account.inbox_id)
        assert box is not None
        notes = list(store.raw.scan(TABLE_META, b"posting:", b"", 10))
        return len(ids), found, box.exists, notes
    finally:
        store.close()


@pytest.mark.parametrize("count", [POSTED_AT_ONCE - 1, POSTED_AT_ONCE, POSTED_AT_ONCE + 1, 3 * POSTED_AT_ONCE])
def test_it_is_one_message_whose_units_are_bounded(
    config_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    units = 0
    commit = MailStore.commit

    async def counted(self: MailStore, unit: object) -> object:
        nonlocal units
        units += 1
        return await commit(self, unit)  # type: ignore[arg-type]

    monkeypatch.setattr(MailStore, "commit", counted)
    leave(config_path, *strangers(count))
    log = pick_up(config_path)
    monkeypatch.undo()
    (received,) = log.named("pickup.received")
    assert received["recipients"] == count
    messages, found, _, notes = everybody(config_path)
    assert (messages, sorted(found)) == (1, sorted(each.encode() for each in strangers(count)))
    assert notes == []
    assert units == (1 if count <= POSTED_AT_ONCE else -(-count // POSTED_AT_ONCE) + 1), "with one for the note's end"


def test_a_mailbox_and_an_address_get_it_once_though_units_lie_between(config_path: Path) -> None:
    leave(config_path, "bill@example.test", *strangers(1500), "bill@example.test", "u3@far.test")
    pick_up(config_path)
    messages, found, exists, _ = everybody(config_path)
    assert (messages, len(found), len(set(found)), exists) == (1, 1500, 1500, 1)


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_after_a_failed_commit_the_next_look_goes_on(
    config_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    left = failing
    commit = MailStore.commit

    async def sometimes(self: MailStore, unit: object) -> object:
        nonlocal left
        left -= 1
        if left == 0:
            raise StorageFailure("the store is full")
        return await commit(self, unit)  # type: ignore[arg-type]

    leave(config_path, *strangers(2500), "bill@example.test")
    monkeypatch.setattr(MailStore, "commit", sometimes)
    assert len(pick_up(config_path).named("pickup.delayed")) == 1
    monkeypatch.undo()
    log = pick_up(config_path)
    assert len(log.named("pickup.received")) == (1 if failing == 1 else 0), "it is told once"
    messages, found, exists, notes = everybody(config_path)
    assert (messages, len(found), len(set(found)), exists, notes) == (1, 2500, 2500, 1, [])


@pytest.mark.parametrize("point", ["between_units:1", "between_units:3", "before_spool_unlink:1", "commit:2"])
def test_killed_at_any_point_nobody_gets_it_twice_and_nobody_misses_it(config_path: Path, point: str) -> None:
    leave(config_path, "bill@example.test", *strangers(2500))
    program = f"from tests.support.pickup import pick_up; from pathlib import Path; pick_up(Path({str(config_path)!r}))"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "FASTMTA_CRASH_AT": point}
    assert subprocess.run([sys.executable, "-c", program], env=environment, timeout=60, check=False).returncode == -9
    pick_up(config_path)
    messages, found, exists, notes = everybody(config_path)
    assert (messages, len(found), len(set(found)), exists, notes) == (1, 2500, 2500, 1, [])


@pytest.mark.parametrize("whole", [False, True])
def test_the_note_of_a_file_that_is_gone_is_given_up_with_what_it_kept(
    config_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    async def never(*_: object) -> None: ...

    leave(config_path, *strangers(1500))
    if whole:
        monkeypatch.setattr(long_posting, "forget", never)
        pick_up(config_path)
        monkeypatch.undo()
    else:
        program = f"from tests.support.pickup import *; pick_up(Path({str(config_path)!r}))"
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "FASTMTA_CRASH_AT": "between_units:1"}
        subprocess.run([sys.executable, "-c", program], env=environment, timeout=60, check=False)
        (file,) = (Path(load(config_path).data_directory) / "public" / "maildrop").iterdir()
        file.unlink()
    assert len(everybody(config_path)[3]) == 1
    pick_up(config_path)
    assert everybody(config_path)[3] == []
    store = MailStore.open(Path(load(config_path).data_directory))
    assert check_store(store.raw).problems == []
    store.close()


def test_the_first_recipients_may_be_done_before_the_last_are_written(
    config_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message stays, and the entry is made again under its number."""
    leave(config_path, *strangers(1500), "bill@example.test")

    async def scene(services: Services) -> None:
        units = long_posting._posting

        def delivered_meanwhile(*arguments: object) -> object:
            note = arguments[1]
            unit = services.store.raw.new_unit()
            for n in range(POSTED_AT_ONCE):
                unit.move_recipient(note.queue_id, n, 0, 4, 1, 0, b"")  # type: ignore[attr-defined]
            services.store.commit_sync(unit)
            return units(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(long_posting, "_posting", delivered_meanwhile)
        pickup = Pickup(services)
        pickup.start()
        await settled(pickup)
        await pickup.stop()
        assert services.cells[METRICS.messages_received_total] == 1

    with_store(config_path, scene)
    messages, found, exists, notes = everybody(config_path)
    assert (messages, len(found), exists, notes) == (1, 500, 1, [])
