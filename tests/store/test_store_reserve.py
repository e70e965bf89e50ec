"""The disk's reserve: new mail is refused before the disk is full; what makes room or settles mail still commits."""

import os
from pathlib import Path

import pytest

from fastmta._store import TABLE_ALIAS, TABLE_BLOB, TABLE_PENDING, TABLE_TRASH, Store
from fastmta._unit import Unit
from tests.store.composing import (
    HOP,
    NOW_MS,
    STRUCTURE,
    append,
    blob_of,
    enqueue,
    envelope,
    file,
    move,
    new_mailbox,
    run,
    tail,
    uids,
)

EVERYTHING = 1 << 62  # more than any disk has


def fresh(store: Store, size: int) -> tuple[Unit, int]:
    blob = blob_of(store, b"x" * size)
    unit = store.new_unit()
    unit.blob(blob)
    return unit, blob.blob_id


@pytest.mark.parametrize("size", [10, 100_000, 700_000])
def test_below_the_reserve_new_mail_is_full(store: Store, size: int) -> None:
    box = new_mailbox(store)
    store.set_reserve(EVERYTHING)
    appended, blob_id = fresh(store, size)
    append(appended, box, blob_id)
    assert run(store, appended) == "full"
    queued, blob_id = fresh(store, size)
    queue_id = store.new_id()
    queued.enqueue(queue_id, blob_id, envelope())
    queued.recipient(queue_id, 0, HOP, 0, 1, NOW_MS, tail())
    assert run(store, queued) == "full"
    delivered, blob_id = fresh(store, size)
    delivered.deliver(box, blob_id, b"", 0, b"", 1, 0, STRUCTURE, store.new_id(), 0, b"local:", tail(), envelope())
    assert run(store, delivered) == "full"
    assert not store.failed
    store.dispatch()
    store.reap()
    assert store.scan(TABLE_BLOB, b"") == []
    assert store.scan(TABLE_PENDING, b"") == []
    assert store.stats()["turned_away_units"] >= 3


def test_below_the_reserve_everything_else_commits(store: Store) -> None:
    box, other = new_mailbox(store), new_mailbox(store, name=b"other")
    for _ in range(3):
        file(store, box)
    queue_id = enqueue(store, 1, 1)
    store.set_reserve(EVERYTHING)
    unit = store.new_unit()
    unit.flags(box, uids(1, 2), 1, 1, b"", -1)
    unit.copy(box, uids(1), other, True)
    unit.expunge(box, uids(2), False)
    unit.put(TABLE_ALIAS, b"k", b"v")
    assert run(store, unit) == ""
    assert move(store, queue_id, 0, 1, 2) == ""
    assert move(store, queue_id, 1, 1, 4) == ""


def test_one_that_is_turned_away_does_not_touch_its_neighbours(store: Store) -> None:
    box = new_mailbox(store)
    file(store, box)
    store.set_reserve(EVERYTHING)
    outcomes: list[str] = []
    for number in range(6):
        unit = store.new_unit()
        if number % 2:
            unit, blob_id = fresh(store, 50)
            append(unit, box, blob_id)
        else:
            unit.flags(box, uids(1), 0, number, b"", -1)
        store.submit(unit, lambda done: outcomes.append(done.failure or ""))
    store.commit_sync(store.new_unit())
    store.dispatch()
    assert outcomes == ["", "full"] * 3


@pytest.mark.parametrize(("times", "failure"), [(2, ""), (64, "full")])
def test_a_bounce_and_a_copy_may_use_the_reserve_but_for_its_floor(store: Store, times: int, failure: str) -> None:
    box, other = new_mailbox(store), new_mailbox(store, name=b"other")
    file(store, box)
    queue_id = enqueue(store, 1)
    disk = os.statvfs(store.path)
    store.set_reserve(times * disk.f_bavail * disk.f_frsize)
    unit = store.new_unit()
    unit.copy(box, uids(1), other, False)
    assert run(store, unit) == failure
    unit = store.new_unit()
    unit.move_recipient(queue_id, 0, 0, 5, 1, 0, b"")
    blob = blob_of(store)
    unit.blob(blob)
    unit.enqueue(blob.blob_id, blob.blob_id, envelope(b""))
    unit.recipient(blob.blob_id, 0, HOP, 0, 1, NOW_MS, tail())
    assert run(store, unit) == failure
    unit, blob_id = fresh(store, 10)
    append(unit, box, blob_id)
    assert run(store, unit) == "full"


def test_with_room_again_mail_is_taken_again(store: Store) -> None:
    box = new_mailbox(store)
    store.set_reserve(EVERYTHING)
    unit, blob_id = fresh(store, 10)
    append(unit, box, blob_id)
    assert run(store, unit) == "full"
    store.set_reserve(1)
    assert file(store, box) == 1
    store.set_reserve(0)
    assert file(store, box) == 2


def test_a_message_that_lost_a_chunk_to_the_reserve_is_full_not_damaged(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), sync=False)
    box = new_mailbox(store)
    store.set_reserve(EVERYTHING)
    blob = store.new_blob()
    blob.feed(b"x" * 300_000)
    store.commit_sync(store.new_unit())
    store.set_reserve(0)
    blob.feed(b"x" * 300_000)
    unit = store.new_unit()
    unit.blob(blob)
    append(unit, box, blob.blob_id)
    assert run(store, unit) in ("full", "io")
    assert store.scan(TABLE_BLOB, b"") == []
    store.close()


def _trashed(store: Store, account_id: int = 1) -> Store:
    """A mailbox with five messages that have just gone, and one that went with its mailbox."""
    box, gone = new_mailbox(store, account_id), new_mailbox(store, account_id, b"gone")
    for _ in range(5):
        file(store, box, b"x" * 100_000)
    file(store, gone)
    unit = store.new_unit()
    unit.expunge(box, None, False)
    unit.mailbox_gone(gone)
    assert run(store, unit) == ""
    store.reap()
    assert store.scan(TABLE_BLOB, b"") != []  # young trash stays
    return store


def _is_reaped(store: Store) -> bool:
    for _ in range(100):
        store.reap()
        if not store.scan(TABLE_BLOB, b"") and not store.scan(TABLE_TRASH, b""):
            return True
    return False


def test_trash_waits_for_its_time_unless_it_is_asked_for(store: Store) -> None:
    _trashed(store).reap_soon()
    assert _is_reaped(store)
    _trashed(store, 2)  # what was asked once is done once


def test_mail_that_finds_no_room_has_the_trash_reaped_at_once(store: Store) -> None:
    _trashed(store).set_reserve(EVERYTHING)
    unit, blob_id = fresh(store, 10)
    unit.enqueue(store.new_id(), blob_id, envelope())
    assert run(store, unit) == "full"
    assert _is_reaped(store)
