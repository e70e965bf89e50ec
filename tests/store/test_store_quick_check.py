"""The check after a bad end: the newest messages and the small tables, never longer than it may take."""

import fcntl
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastmta import _store
from fastmta._store import Store
from fastmta.store import MailStore
from fastmta.store.check import quick
from fastmta.store.marks import LeftMarks, Mark
from tests.store.composing import HOP, enqueue, file, new_mailbox, run


@pytest.fixture
def damaged(tmp_path: Path) -> Iterator[Store]:
    """A store of four messages, for a test to damage."""
    store = Store(str(tmp_path / "store"), sync=False)
    box = new_mailbox(store)
    for number in range(3):
        file(store, box, b"%d" % number * 70_000)
    enqueue(store, 1, 2, 3)
    yield store
    store.close()


def damage(store: Store, table: int, length: int, at: int | None) -> None:
    key, value = next(row for row in store.scan(table, b"") if len(row[0]) == length)
    unit = store.new_unit()
    if at is None:
        unit.delete(table, key)
    else:
        unit.put(table, key, value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :])
    assert run(store, unit) == ""


def test_a_sound_store_is_quickly_found_sound(damaged: Store) -> None:
    report = quick(MailStore(damaged))
    assert report.problems == []
    assert report.complete
    assert (report.blobs, report.mailboxes) == (4, 1)
    assert report.bytes == 3 * 70_000 + 3


def test_a_new_store_is_sound(store: Store) -> None:
    assert quick(MailStore(store)).is_sound


@pytest.mark.parametrize(
    ("table", "length", "at"),
    [
        (_store.TABLE_BLOB, 12, 100),
        (_store.TABLE_BLOB, 12, None),
        (_store.TABLE_BLOB, 8, 16),
        (_store.TABLE_BLOB, 8, 24),
        (_store.TABLE_MAILBOX, 8, None),
        (_store.TABLE_MAILBOX_NAME, 13, None),
        (_store.TABLE_HOP, 9 + len(HOP), None),
    ],
)
def test_damage_is_found(damaged: Store, table: int, length: int, at: int | None) -> None:
    damage(damaged, table, length, at)
    assert quick(MailStore(damaged)).problems != []


def test_it_ends_when_its_time_is_up(damaged: Store) -> None:
    moments = iter(range(100))
    report = quick(MailStore(damaged), 6.0, lambda: float(next(moments)))
    assert not report.complete
    assert report.is_sound
    assert 0 < report.blobs < 4


def test_blobs_come_newest_first_and_from_each_block(tmp_path: Path) -> None:
    for account_id in (1, 2):  # each opening takes a block of its own
        store = Store(str(tmp_path / "store"), sync=False)
        box = new_mailbox(store, account_id)
        for _ in range(3):
            file(store, box)
        with _store.Snapshot(store) as snapshot:
            ids = [blob_id for blob_id, _ in snapshot.blobs_before(2**63, 100)]
            assert ids == sorted(ids, reverse=True)
            assert len(ids) == 3 * account_id
            assert [blob_id for blob_id, _ in snapshot.blobs_before(ids[1], 1)] == ids[2:3]
            assert snapshot.blobs_before(ids[-1], 100) == []
        assert quick(MailStore(store)).blobs == len(ids)
        store.close()


def test_only_the_mark_of_a_process_that_is_gone_is_taken(tmp_path: Path) -> None:
    assert not LeftMarks(tmp_path)
    living, dead, closed = (Mark(tmp_path, name) for name in ("living", "dead", "closed"))
    closed.remove()
    assert not LeftMarks(tmp_path)
    dead.leave()
    left = LeftMarks(tmp_path)
    assert left
    assert not LeftMarks(tmp_path)  # another process does not check for the same
    left.remove()
    assert not LeftMarks(tmp_path)
    living.remove()
    assert list((tmp_path / "running").iterdir()) == []


def test_a_successor_with_the_process_id_of_the_dead_keeps_its_own_mark(tmp_path: Path) -> None:
    Mark(tmp_path, "0-8").leave()
    left = LeftMarks(tmp_path)
    own = Mark(tmp_path, "0-8")
    assert left
    left.remove()
    own.leave()
    assert LeftMarks(tmp_path), "the successor's bad end is seen too"


def test_a_mark_that_is_just_removed_is_none_that_was_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ending = Mark(tmp_path, "0-8")
    lock = fcntl.flock

    def lock_later(fd: int, how: int) -> None:
        ending.remove()
        lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", lock_later)
    assert not LeftMarks(tmp_path)
