"""Units of plain records, counters and blobs: all or nothing, each operation at its checks."""

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fastmta._store import (
    CHUNK_BYTES,
    DATABASE_NAMES,
    ID_BLOCK,
    ID_COUNTER_BITS,
    TABLE_ALIAS,
    TABLE_BLOB,
    TABLE_COUNTER,
    TABLE_PENDING,
    TABLE_QUEUE,
    TABLE_TRASH,
    Snapshot,
    Store,
    blob_meta,
    blob_read,
    digest_of,
    partition_of,
)
from fastmta._unit import COMMITTED, FAILED, REFUSED, normal_keywords
from fastmta.model.errors import StorageFailure
from tests.store.composing import HOP, append, blob_of, enqueue, envelope, file, new_mailbox, run, tail

SIZES = (
    0, 1,
    1023, 1024, 1025, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, CHUNK_BYTES + 1024, CHUNK_BYTES + 1025,
    2 * CHUNK_BYTES, 61_424, 61_425, 64 * CHUNK_BYTES - 1, 64 * CHUNK_BYTES, 64 * CHUNK_BYTES + 1,
    262_143, 262_144, 262_145, 700_000,
)  # fmt: skip


def test_put_new_refuses_an_existing_key(store: Store) -> None:
    for expected in ("", "exists"):
        unit = store.new_unit()
        unit.put_new(TABLE_ALIAS, b"k", b"v")
        assert run(store, unit) == expected
    assert unit.status == REFUSED


def test_a_refused_unit_keeps_nothing_and_the_batch_goes_on(store: Store) -> None:
    first, second, third = (store.new_unit() for _ in range(3))
    first.put(TABLE_ALIAS, b"a", b"1")
    second.put(TABLE_ALIAS, b"a", b"2")
    second.put(TABLE_ALIAS, b"b", b"2")
    second.delete(TABLE_ALIAS, b"a")
    second.guard(TABLE_ALIAS, b"a", b"1")
    third.guard(TABLE_ALIAS, b"a", b"1")
    third.put(TABLE_ALIAS, b"c", b"3")
    for unit in (first, second):
        store.submit(unit, None)
    assert run(store, third) == ""
    assert (first.status, second.status, second.failure) == (COMMITTED, REFUSED, "changed")
    assert store.scan(TABLE_ALIAS, b"") == [(b"a", b"1"), (b"c", b"3")]


def test_guard_compares_the_whole_value_or_its_absence(store: Store) -> None:
    for value, expected in ((None, ""), (b"v", "changed"), (b"", "changed")):
        unit = store.new_unit()
        unit.guard(TABLE_ALIAS, b"k", value)
        assert run(store, unit) == expected
    unit = store.new_unit()
    unit.put(TABLE_ALIAS, b"k", b"v")
    run(store, unit)
    for value, expected in ((None, "changed"), (b"v", ""), (b"vv", "changed"), (b"", "changed")):
        unit = store.new_unit()
        unit.guard(TABLE_ALIAS, b"k", value)
        assert run(store, unit) == expected


def test_count_gives_the_new_value_and_stops_at_its_ceiling(store: Store) -> None:
    for delta, ceiling, expected in ((5, -1, ""), (5, 10, ""), (1, 10, "quota"), (-3, 0, "")):
        unit = store.new_unit()
        unit.count(b"x", delta, ceiling)
        assert run(store, unit) == expected
    assert unit.results == [7]
    assert store.get(TABLE_COUNTER, b"x") == (7).to_bytes(8, "little")


def test_delete_of_what_is_not_there_is_no_failure(store: Store) -> None:
    unit = store.new_unit()
    unit.delete(TABLE_ALIAS, b"nobody")
    assert run(store, unit) == ""


def test_keys_are_bounded(store: Store) -> None:
    unit = store.new_unit()
    unit.put(TABLE_ALIAS, b"k" * 510, b"v")
    with pytest.raises(ValueError, match="510"):
        unit.put(TABLE_ALIAS, b"k" * 511, b"v")
    with pytest.raises(ValueError, match="no table"):
        unit.put(99, b"k", b"v")
    assert run(store, unit) == ""
    assert store.get(TABLE_ALIAS, b"k" * 510) == b"v"


def test_a_unit_is_submitted_once(store: Store) -> None:
    unit = store.new_unit()
    run(store, unit)
    with pytest.raises(RuntimeError):
        store.submit(unit, None)
    with pytest.raises(RuntimeError):
        unit.put(TABLE_ALIAS, b"k", b"v")


def test_scan_begins_at_start_and_stays_in_its_prefix(store: Store) -> None:
    unit = store.new_unit()
    for key in (b"a", b"ab", b"ac", b"b"):
        unit.put(TABLE_ALIAS, key, key)
    unit.put(TABLE_TRASH - 1, b"other", b"table")
    unit.delete(TABLE_TRASH - 1, b"other")
    run(store, unit)
    assert [key for key, _ in store.scan(TABLE_ALIAS, b"a", b"ab")] == [b"ab", b"ac"]
    assert [key for key, _ in store.scan(TABLE_ALIAS, b"", b"", 2)] == [b"a", b"ab"]


@pytest.mark.parametrize("size", SIZES)
def test_a_blob_is_read_as_it_was_written(store: Store, size: int) -> None:
    data = os.urandom(min(size, 5000)) * (size // 5000 + 1)
    data = data[:size]
    mailbox_id = new_mailbox(store)
    blob = store.new_blob()
    for at in range(0, size, 50_000):
        blob.feed(memoryview(data)[at : at + 50_000])
    assert blob.size == size
    unit = store.new_unit()
    unit.blob(blob)
    append(unit, mailbox_id, blob.blob_id)
    assert run(store, unit) == ""
    assert blob_read(store, blob.blob_id, 0, size + 10) == data
    for offset in (0, 1, size // 2, CHUNK_BYTES - 1, CHUNK_BYTES, max(0, size - 1), size, size + 1):
        for length in (0, 1, 4096, CHUNK_BYTES + 5):
            assert blob_read(store, blob.blob_id, offset, length) == data[offset : offset + length]
    assert store.scan(TABLE_PENDING, b"") == []


def test_two_stores_do_not_count_alike(tmp_path: Path) -> None:
    numbers = set()
    for name in "abcdefgh":
        store = Store(str(tmp_path / name), sync=False)
        first = store.new_id()
        numbers.add(first >> ID_COUNTER_BITS)
        assert 0 < first < 2**63
        store.close()
        again = Store(str(tmp_path / name), sync=False)
        assert again.new_id() >> ID_COUNTER_BITS == first >> ID_COUNTER_BITS
        again.close()
    assert len(numbers) > 5
    assert 0 not in numbers


def test_a_blob_that_nothing_refers_to_is_refused(store: Store) -> None:
    blob = blob_of(store)
    unit = store.new_unit()
    unit.blob(blob)
    assert run(store, unit) == "missing"
    assert store.scan(TABLE_BLOB, b"") == []
    assert blob_read(store, blob.blob_id, 0, 10) is None


def test_two_blobs_in_one_unit_may_be_referred_to_in_any_order(store: Store) -> None:
    mailbox_id = new_mailbox(store)
    first, second = blob_of(store, b"1"), blob_of(store, b"2")
    unit = store.new_unit()
    unit.blob(first)
    unit.blob(second)
    append(unit, mailbox_id, second.blob_id)
    append(unit, mailbox_id, first.blob_id)
    assert run(store, unit) == ""
    third, fourth = blob_of(store), blob_of(store)
    unit = store.new_unit()
    unit.blob(third)
    unit.blob(fourth)
    append(unit, mailbox_id, fourth.blob_id)
    assert run(store, unit) == "missing"


def test_a_blob_goes_with_its_last_reference(store: Store, tmp_path: Path) -> None:
    queue_id = enqueue(store, 1)
    unit = store.new_unit()
    unit.move_recipient(queue_id, 0, 1, 4, 1, 0, b"")
    assert run(store, unit) == ""
    assert store.scan(TABLE_BLOB, b"") == []  # small, and only the queue held it: at once
    queue_id = enqueue(store, 1, data=b"x" * 200_000)
    unit = store.new_unit()
    unit.move_recipient(queue_id, 0, 1, 4, 1, 0, b"")
    assert run(store, unit) == ""
    assert len(store.scan(TABLE_TRASH, b"")) == 1


def test_trash_is_reaped_when_it_is_due(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), sync=False, trash_delay_ms=0)
    mailbox_id = new_mailbox(store)
    uid = file(store, mailbox_id, b"x" * 500_000)
    unit = store.new_unit()
    unit.expunge(mailbox_id, None, False)
    run(store, unit)
    assert uid == 1
    store.reap()
    assert store.scan(TABLE_TRASH, b"") == []
    assert store.scan(TABLE_BLOB, b"") == []
    store.close()


def test_a_mailbox_that_goes_takes_its_messages_through_the_trash(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), sync=False, trash_delay_ms=0)
    mailbox_id = new_mailbox(store)
    for _ in range(50):
        file(store, mailbox_id)
    unit = store.new_unit()
    unit.mailbox_gone(mailbox_id)
    assert run(store, unit) == ""
    for _ in range(3):  # the mailbox's row, then the blobs that died with it
        store.reap()
    for table in range(10, 15):
        assert store.scan(table, b"") == []
    assert store.scan(TABLE_BLOB, b"") == []
    store.close()


def test_an_abandoned_blob_leaves_nothing(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), sync=False, trash_delay_ms=0)
    small, large, forgotten = store.new_blob(), store.new_blob(), store.new_blob()
    small.feed(b"x" * 1000)
    large.feed(b"x" * 600_000)
    forgotten.feed(b"x" * 600_000)
    small.abandon()
    large.abandon()
    large.abandon()
    with pytest.raises(RuntimeError):
        large.feed(b"x")
    store.commit_sync(store.new_unit())
    store.dispatch()
    del forgotten
    store.commit_sync(store.new_unit())
    store.reap()
    for table in (TABLE_PENDING, TABLE_BLOB, TABLE_TRASH):
        assert store.scan(table, b"") == []
    store.close()


def test_a_congested_blob_is_told_when_the_disk_has_caught_up(store: Store) -> None:
    blob = store.new_blob()
    drained: list[bool] = []
    blob.on_drain = lambda: drained.append(blob.congested)
    blob.feed(b"x" * 4_000_000)
    assert blob.congested
    store.commit_sync(store.new_unit())
    store.dispatch()
    assert drained == [False]
    assert store.stats()["pending_bytes"] == 0
    blob.abandon()
    store.commit_sync(store.new_unit())


@pytest.mark.disk
def test_chunks_of_a_dead_writer_are_reaped_at_the_next_opening(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from fastmta._store import Store\n"
        "store = Store(sys.argv[1], sync=False)\n"
        "blob = store.new_blob()\n"
        "blob.feed(b'x' * 600000)\n"
        "store.commit_sync(store.new_unit())\n"
        "os.kill(os.getpid(), 9)\n"
    )
    path = str(tmp_path / "store")
    store = Store(path, sync=False, trash_delay_ms=0)
    live = store.new_blob()
    live.feed(b"y" * 600_000)
    assert subprocess.run([sys.executable, "-c", program, path], check=False).returncode == -9
    assert len(store.scan(TABLE_PENDING, b"")) == 2
    store.close()
    store = Store(path, sync=False, trash_delay_ms=0)
    assert store.scan(TABLE_PENDING, b"") == []
    store.reap()
    assert store.scan(TABLE_BLOB, b"") == []
    store.close()


def test_identifiers_never_repeat(tmp_path: Path) -> None:
    seen: set[int] = set()
    for _ in range(3):
        store = Store(str(tmp_path / "store"), sync=False)
        numbers = [store.new_id() for _ in range(1000)]
        assert numbers == sorted(numbers)
        assert seen.isdisjoint(numbers)
        seen.update(numbers)
        store.close()
    store = Store(str(tmp_path / "store"), sync=False)
    assert [store.new_id() for _ in range(2 * ID_BLOCK + 10)][-1] > max(seen)
    store.close()


def test_a_second_opening_in_the_process_is_refused(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), sync=False)
    with pytest.raises(StorageFailure, match="open in this process"):
        Store(store.path)
    store.close()
    Store(store.path, sync=False).close()


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), sync=False)
    unit = store.new_unit()
    store.close()
    store.close()
    with pytest.raises(StorageFailure):
        store.get(TABLE_ALIAS, b"k")
    with pytest.raises(StorageFailure):
        store.commit_sync(unit)


def test_close_commits_what_is_pending_and_tells_its_waiters(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), sync=False)
    told: list[int] = []
    for number in range(600):
        unit = store.new_unit()
        unit.put(TABLE_ALIAS, b"%d" % number, b"v")
        store.submit(unit, lambda unit: told.append(unit.status))
    store.close()
    assert told == [COMMITTED] * 600


def test_dispatch_tells_the_observer_before_the_waiters(store: Store) -> None:
    events: list[object] = []
    store.observer = lambda boxes, hops: events.append((boxes, hops))
    mailbox_id = new_mailbox(store)
    blob, queue_id = blob_of(store), store.new_id()
    unit = store.new_unit()
    unit.blob(blob)
    append(unit, mailbox_id, blob.blob_id)
    unit.enqueue(queue_id, blob.blob_id, envelope())
    unit.recipient(queue_id, 0, HOP, 0, 1, 5, tail())
    unit.recipient(queue_id, 1, b"hold:x", 0, 3, 5, tail())
    store.submit(unit, lambda unit: events.append(unit.status))
    store.commit_sync(store.new_unit())
    store.dispatch()
    assert events == [([(mailbox_id, 2), (1, 1)], [HOP]), COMMITTED]  # account 1 has its first mailbox


def test_a_waiter_that_raises_does_not_silence_the_others(store: Store) -> None:
    told: list[int] = []

    def bad(_: object) -> None:
        raise ValueError("mine")

    store.submit(store.new_unit(), bad)
    store.submit(store.new_unit(), lambda unit: told.append(unit.status))
    store.commit_sync(store.new_unit())
    with pytest.raises(ValueError, match="mine"):
        store.dispatch()
    assert told == [COMMITTED]


def test_commits_from_several_threads_all_arrive(store: Store) -> None:
    def work(name: int) -> None:
        for number in range(50):
            unit = store.new_unit()
            unit.put_new(TABLE_ALIAS, b"%d-%d" % (name, number), b"v")
            assert store.commit_sync(unit).status == COMMITTED

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.scan(TABLE_ALIAS, b"", b"", 1000)) == 200


def test_a_snapshot_stays_at_its_moment(store: Store) -> None:
    with Snapshot(store) as snapshot:
        unit = store.new_unit()
        unit.put(TABLE_ALIAS, b"k", b"v")
        run(store, unit)
        assert snapshot.get(TABLE_ALIAS, b"k") is None
        assert store.get(TABLE_ALIAS, b"k") == b"v"
    with pytest.raises(RuntimeError):
        snapshot.get(TABLE_ALIAS, b"k")


def test_digest_and_partition_are_the_published_functions() -> None:
    # XXH64's own test vectors, and zlib's CRC-32 of "123456789".
    assert digest_of(b"") == 0xEF46DB3751D8E999
    assert digest_of(b"abc") == 0x44BC2CF5AD770999
    assert digest_of(b"Nobody inspects the spammish repetition") == 0xFBCEA83C8A378BF1
    assert partition_of(b"123456789") == 0xCBF43926 & 255


def test_keywords_are_kept_sorted_and_once() -> None:
    assert normal_keywords(b"b A a  c B") == b"A b c"
    assert normal_keywords(b"") == b""


def test_metrics_count_commits_and_units(store: Store) -> None:
    store.reserve_ids()  # its commit comes first
    cells = memoryview(bytearray(8 * 64)).cast("Q")
    store.set_metrics(cells, 0, 20)
    for _ in range(3):
        new_mailbox(store, name=os.urandom(8).hex().encode())
    assert sum(cells[1:19]) == 3
    assert (cells[20], cells[21]) == (3, 3)
    with pytest.raises(ValueError, match="outside"):
        store.set_metrics(cells, 0, 60)


@pytest.mark.disk
def test_python_lmdb_reads_what_was_written(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"))
    unit = store.new_unit()
    unit.put(TABLE_ALIAS, b"key", b"value")
    run(store, unit)
    enqueue(store, 1)
    program = (
        "import lmdb, sys\n"
        "env = lmdb.open(sys.argv[1], readonly=True, max_dbs=8)\n"
        "with env.begin() as txn:\n"
        "    db = env.open_db(b'directory', txn)\n"
        "    assert txn.get(bytes([19]) + b'key', db=db) == b'value'\n"
        "    names = [key for key, _ in txn.cursor()]\n"
        "print(*sorted(name.decode() for name in names))\n"
    )
    out = subprocess.run([sys.executable, "-c", program, store.path], capture_output=True, text=True, check=True)
    assert out.stdout.split() == sorted(name.decode() for name in DATABASE_NAMES)
    store.close()


@pytest.mark.disk
def test_a_compact_copy_opens(store: Store, tmp_path: Path) -> None:
    queue_id = enqueue(store, 1)
    target = tmp_path / "copy"
    target.mkdir()
    with open(target / "data.mdb", "wb") as file:
        store.copy_to(file.fileno())
    copy = Store(str(target), sync=False)
    assert copy.get(TABLE_QUEUE, queue_id.to_bytes(8, "big")) is not None
    copy.close()


def test_failed_is_a_status_of_its_own(store: Store) -> None:
    unit = store.new_unit()
    unit.put(TABLE_ALIAS, b"k", b"v")
    unit.fail_at(1)
    assert run(store, unit) == "full"
    assert unit.status == FAILED
    assert not store.failed


def test_meta_of_a_blob_tells_size_and_bits(store: Store) -> None:
    blob = blob_of(store, b"x" * 5000)
    blob.bits = 5
    queue_id = store.new_id()
    unit = store.new_unit()
    unit.blob(blob)
    unit.enqueue(queue_id, blob.blob_id, envelope())
    unit.recipient(queue_id, 0, HOP, 0, 1, 5, tail())
    run(store, unit)
    meta = blob_meta(store.get(TABLE_BLOB, blob.blob_id.to_bytes(8, "big")) or b"")
    assert (meta.refs, meta.size, meta.bits, meta.chunks) == (1, 5000, 5, 1)
    assert (meta.stored_size, len(meta.tail), meta.rest, meta.cuts) == (5000, 5000 - CHUNK_BYTES, meta.tail, ())


def test_units_in_circles_are_collected(store: Store) -> None:
    """The collector empties an object before its last reference goes; a unit gives its memory back after that. Such a
    circle is an exception that one of its frames holds, with the units of the others."""
    gc.collect()
    units = [store.new_unit() for _ in range(3)]
    units[0].put(TABLE_ALIAS, b"a", b"1")
    units[1].put(TABLE_ALIAS, b"b", b"1")
    circle: list[object] = [*units]
    circle.append(circle)
    assert run(store, units[1]) == ""
    del units, circle
    assert gc.collect() >= 3
    again = store.new_unit()
    again.put_new(TABLE_ALIAS, b"c", b"1")
    assert run(store, again) == ""
