"""What fails inside a transaction: every write of every operation in turn, bisection, a full map, a failing disk."""

import select
from collections.abc import Callable
from pathlib import Path

import pytest

from fastmta._store import TABLE_ALIAS, TABLE_BLOB, TABLE_NAMES, TABLE_PENDING, TABLE_RETAINED, Store
from fastmta._unit import COMMITTED, FAILED, Unit
from fastmta.store.check import check_store
from tests.store.composing import (
    HOP,
    NOW_MS,
    STRUCTURE,
    append,
    blob_of,
    enqueue,
    envelope,
    file,
    new_mailbox,
    run,
    tail,
    uids,
)

Rows = dict[int, list[tuple[bytes, bytes]]]


def everything(store: Store) -> Rows:
    return {table: store.scan(table, b"", b"", 100_000) for table in range(1, len(TABLE_NAMES))}


class Scene:
    """Two mailboxes with messages and a queued message in every state, on which any operation finds work to do."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.box = new_mailbox(store, 1, b"INBOX")
        self.other = new_mailbox(store, 2, b"INBOX")
        for _ in range(3):
            file(store, self.box, b"x" * 70_000, keywords=b"k")
        self.queue_id = enqueue(store, 1, 2, 3)
        self.single = enqueue(store, 2, hop=b"smtp:single")
        unit = store.new_unit()
        unit.put(TABLE_ALIAS, b"there", b"1")
        for _ in range(2):
            file(store, self.box, b"x" * 70_000)
        unit.expunge(self.box, uids(4, 5), False, False, 1 << 30)
        run(store, unit)

    def fresh_blob(self, unit: Unit, size: int = 70_000) -> int:
        blob = blob_of(self.store, b"y" * size)
        unit.blob(blob)
        return blob.blob_id

    # --- one method an operation: each fills a unit ---

    def put_new(self, unit: Unit) -> None:
        unit.put_new(TABLE_ALIAS, b"new", b"1")

    def put(self, unit: Unit) -> None:
        unit.put(TABLE_ALIAS, b"there", b"2")

    def delete(self, unit: Unit) -> None:
        unit.delete(TABLE_ALIAS, b"there")

    def count(self, unit: Unit) -> None:
        unit.count(b"counter", 1, -1)

    def append(self, unit: Unit) -> None:
        append(unit, self.box, self.fresh_blob(unit), flags=9, keywords=b"q")

    def streamed(self, unit: Unit) -> None:
        append(unit, self.box, self.fresh_blob(unit, 300_000))

    def enqueue(self, unit: Unit) -> None:
        queue_id = self.store.new_id()
        unit.enqueue(queue_id, self.fresh_blob(unit), envelope())
        for state in (1, 2, 3):
            unit.recipient(queue_id, state, HOP, 0, state, NOW_MS - state, tail())

    def deliver(self, unit: Unit) -> None:
        blob_id, queue_id = self.fresh_blob(unit), self.store.new_id()
        for n, box in enumerate((self.box, 999)):
            unit.deliver(box, blob_id, b"", 0, b"", 1, 0, STRUCTURE, queue_id, n, b"local:", tail(), envelope())

    def deferral(self, unit: Unit) -> None:
        unit.move_recipient(self.queue_id, 0, 1, 2, 1, NOW_MS + 99, b"451")

    def moved_each(self, unit: Unit) -> None:
        keys = b"".join(number.to_bytes(8, "big") + bytes(4) for number in (self.queue_id, self.single, 10**9))
        unit.move_each(keys, 1 << 1 | 1 << 2, NOW_MS, 3)

    def last_delivery(self, unit: Unit) -> None:
        unit.move_recipient(self.single, 0, 2, 4, 1, 0, b"")

    def reroute(self, unit: Unit) -> None:
        unit.reroute(self.queue_id, 0, b"smtp:elsewhere", 1)

    def flags(self, unit: Unit) -> None:
        unit.flags(self.box, uids(1, 2, 3), 1, 9, b"z", -1)

    def expunge(self, unit: Unit) -> None:
        unit.expunge(self.box, uids(1, 3), False)

    def retained(self, unit: Unit) -> None:
        unit.expunge(self.box, uids(1, 3), False, False, 150_000)

    def released(self, unit: Unit) -> None:
        lead = (1).to_bytes(8, "big")
        unit.release(1, b"".join(key[8:] for key, _ in self.store.scan(TABLE_RETAINED, lead, lead + b"\0")))

    def named_for_pop3(self, unit: Unit) -> None:
        append(unit, self.box, self.fresh_blob(unit))
        unit.uidl(self.box, b"a name")

    def copy(self, unit: Unit) -> None:
        unit.copy(self.box, uids(1, 2), self.other, False)

    def move(self, unit: Unit) -> None:
        unit.copy(self.box, uids(1, 2), self.other, True)

    def take_recent(self, unit: Unit) -> None:
        unit.take_recent(self.box)

    def mailbox_new(self, unit: Unit) -> None:
        unit.mailbox_new(self.store.new_id(), 1, b"new", b"\\Sent", 5)

    def mailbox_rename(self, unit: Unit) -> None:
        unit.mailbox_rename(self.box, b"INBOX", b"renamed")

    def mailbox_gone(self, unit: Unit) -> None:
        unit.mailbox_gone(self.box)

    def quota(self, unit: Unit) -> None:
        unit.quota(1, 10**9)


OPERATIONS = [
    name for name, value in vars(Scene).items() if callable(value) and name[0] != "_" and name != "fresh_blob"
]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_is_whole_or_nothing_wherever_it_fails(store: Store, operation: str) -> None:
    scene = Scene(store)
    fill: Callable[[Unit], None] = getattr(scene, operation)
    store.commit_sync(store.new_unit())
    nth = 0
    while True:
        nth += 1
        # Between two units that must be kept: the middle one fails at its nth write, again in every rerun.
        before, unit, after = (store.new_unit() for _ in range(3))
        before.count(b"before", 1, -1)
        after.count(b"after", 1, -1)
        fill(unit)
        unit.fail_at(nth)
        store.commit_sync(store.new_unit())  # chunks of a streamed blob are in the store by now
        kept = everything(store)
        store.submit(before, None)
        store.submit(unit, None)
        assert run(store, after) == ""
        assert before.status == COMMITTED
        now = everything(store)
        if unit.status == COMMITTED:
            assert nth > 1
            break
        assert (unit.status, unit.failure, unit.results) == (FAILED, "full", [])
        changed = {key for table in kept for key, _ in set(now[table]) ^ set(kept[table])}
        assert changed <= {b"before", b"after"}
        store.dispatch()  # chunks that were streamed before it go now
        store.commit_sync(store.new_unit())
        store.reap()
    assert not store.failed


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_operation_is_undone_when_a_later_one_refuses(store: Store, operation: str) -> None:
    scene = Scene(store)
    unit = store.new_unit()
    getattr(scene, operation)(unit)
    store.commit_sync(store.new_unit())
    kept = everything(store)
    unit.guard(TABLE_ALIAS, b"nobody", b"never")
    store.submit(unit, None)
    store.commit_sync(store.new_unit())
    assert unit.failure == "changed"
    assert everything(store) == kept


@pytest.mark.parametrize("kind", ["put", "del", "begin", "commit"])
def test_a_transient_failure_is_survived_by_every_unit(store: Store, kind: str) -> None:
    for nth in range(1, 12):
        scene_key = b"%d" % nth
        units = []
        store.inject_failure(kind, nth if kind in ("put", "del") else 1)
        for number in range(8):
            unit = store.new_unit()
            unit.put(TABLE_ALIAS, scene_key + b"-%d" % number, b"v")
            unit.delete(TABLE_ALIAS, b"%d-%d" % (nth - 1, number))
            units.append(unit)
            store.submit(unit, None)
        store.commit_sync(store.new_unit())
        failed = [unit for unit in units if unit.status != COMMITTED]
        assert len(failed) <= 1  # a failure that hits a unit standing alone is its own
        assert {unit.failure for unit in failed} <= {"full"}
    assert not store.failed


def test_bisection_finds_each_unit_at_fault(store: Store) -> None:
    blocker = store.new_unit()
    blocker.put(TABLE_ALIAS, b"x", b"v")
    units = []
    for number in range(200):
        unit = store.new_unit()
        unit.put(TABLE_ALIAS, b"%d" % number, b"v")
        if number in (0, 7, 8, 100, 199):
            unit.fail_at(1)
        units.append(unit)
        store.submit(unit, None)
    store.commit_sync(store.new_unit())
    assert [number for number, unit in enumerate(units) if unit.status == FAILED] == [0, 7, 8, 100, 199]
    assert len(store.scan(TABLE_ALIAS, b"")) == 195


@pytest.mark.parametrize("kind", ["put", "del", "begin", "commit"])
@pytest.mark.parametrize("waiting", [True, False])
def test_a_full_disk_fails_the_unit_and_the_store_goes_on_in_this_process(
    store: Store, kind: str, waiting: bool
) -> None:
    mailbox_id = new_mailbox(store)
    scratch = store.new_unit()
    scratch.put(TABLE_ALIAS, b"there", b"v")
    assert run(store, scratch) == ""
    told: list[Unit] = []
    for round_ in range(1, 20):
        store.inject_failure(kind, 1, "nospace")
        unit = store.new_unit()
        unit.put(TABLE_ALIAS, b"k%d" % round_, b"v")
        unit.delete(TABLE_ALIAS, b"there" if round_ == 1 else b"k%d" % -round_)
        if waiting:
            store.commit_sync(unit)
        else:
            store.submit(unit, told.append)
            assert select.select([store.event_fd], [], [], 10)[0]
            store.dispatch()
            assert told == [unit]
            told.clear()
        if unit.failure is None:  # nothing to delete: the failure waits for a deletion
            assert kind == "del"
            store.inject_failure("commit", 0)
            continue
        assert unit.failure == "full"
        assert store.get(TABLE_ALIAS, b"k%d" % round_) is None  # reading goes on at once
        assert not store.failed
        assert file(store, mailbox_id) > 0  # and so does the next write
    assert store.heals >= 1


def test_units_behind_one_that_met_a_full_disk_are_answered(store: Store) -> None:
    told: list[Unit] = []
    store.inject_failure("begin", 1, "nospace")
    for number in range(2000):
        unit = store.new_unit()
        unit.put(TABLE_ALIAS, b"%d" % number, b"v")
        store.submit(unit, told.append)
    while len(told) < 2000:
        assert select.select([store.event_fd], [], [], 10)[0]
        store.dispatch()
    failed = [unit for unit in told if unit.failure]
    assert 0 < len(failed) <= 256
    assert {unit.failure for unit in failed} == {"full"}


def test_a_full_disk_met_while_closing_ends_every_unit(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), sync=False)
    told: list[Unit] = []
    store.inject_failure("begin", 1, "nospace")
    for number in range(1000):
        unit = store.new_unit()
        unit.put(TABLE_ALIAS, b"%d" % number, b"v")
        store.submit(unit, told.append)
    store.close()
    assert len(told) == 1000


@pytest.mark.parametrize(("error", "word"), [("io", "io")])
def test_a_failed_commit_of_the_disk_stops_the_store(tmp_path: Path, error: str, word: str) -> None:
    store = Store(str(tmp_path / "store"), sync=False)
    mailbox_id = new_mailbox(store)
    store.inject_failure("commit", 1, error)
    blob = blob_of(store)
    unit = store.new_unit()
    unit.blob(blob)
    append(unit, mailbox_id, blob.blob_id)
    assert run(store, unit) == word
    assert store.failed
    later = store.new_unit()
    later.put(TABLE_ALIAS, b"k", b"v")
    assert run(store, later) == "io"
    store.reap()
    store.close()
    store = Store(str(tmp_path / "store"), sync=False)
    assert not store.failed
    assert check_store(store).problems == []
    assert file(store, mailbox_id) == 1
    store.close()


def test_nobody_waits_for_the_trash_of_a_store_that_is_only_looked_at(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), sync=False)
    file(store, new_mailbox(store))
    store.close()
    store = Store(str(tmp_path / "store"), create=False, any_format=True)
    assert store.reap() == 0
    store.close()


def test_a_full_map_fails_what_does_not_fit_and_recovers(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), sync=False, map_size_bytes=2 << 20, trash_delay_ms=0)
    mailbox_id = new_mailbox(store)
    filed = 0
    while True:
        blob = blob_of(store, b"x" * 50_000)
        unit = store.new_unit()
        unit.blob(blob)
        append(unit, mailbox_id, blob.blob_id)
        if run(store, unit) == "full":
            break
        filed += 1
        assert filed < 100
    assert filed > 10
    assert not store.failed
    assert check_store(store).problems == []
    unit = store.new_unit()
    unit.expunge(mailbox_id, uids(1, 2, 3), False)  # small changes still fit
    assert run(store, unit) == ""
    store.reap()
    small = store.new_unit()
    small.put(TABLE_ALIAS, b"k", b"v")
    assert run(store, small) == ""
    assert file(store, mailbox_id, b"x" * 50_000) == filed + 1
    store.close()


def test_a_blob_whose_chunks_failed_is_a_storage_failure(store: Store) -> None:
    mailbox_id = new_mailbox(store)
    store.reap()  # else what the committer does by itself may meet the failure first
    store.inject_failure("put", 1)
    blob = store.new_blob()
    blob.feed(b"x" * 300_000)
    store.reap()  # waits for the committer, and is no unit of the same batch
    blob.feed(b"x" * 300_000)
    unit = store.new_unit()
    unit.blob(blob)
    append(unit, mailbox_id, blob.blob_id)
    assert run(store, unit) == "io"
    store.dispatch()
    assert store.scan(TABLE_BLOB, b"") == []
    store.reap()  # else the reaper of what was refused may meet the failure first
    told = store.new_blob()
    store.inject_failure("put", 1)
    told.feed(b"x" * 300_000)
    store.reap()
    store.dispatch()  # the blob knows by now
    told.feed(b"x" * 600_000)
    unit = store.new_unit()
    unit.blob(told)
    append(unit, mailbox_id, told.blob_id)
    assert run(store, unit) == "io"
    assert not store.failed


def test_chunks_of_a_refused_message_are_reaped(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), sync=False, trash_delay_ms=0)
    for waiting in (True, False):
        blob = blob_of(store, b"x" * 600_000)
        unit = store.new_unit()
        unit.blob(blob)
        append(unit, 999, blob.blob_id)
        if waiting:
            assert run(store, unit) == "missing"
        else:
            store.submit(unit, None)
            store.commit_sync(store.new_unit())
            store.dispatch()
        store.commit_sync(store.new_unit())
        store.reap()
        assert store.scan(TABLE_BLOB, b"") == []
        assert store.scan(TABLE_PENDING, b"") == []
    store.close()
