"""The journal of units, and its replay into a second store: equal record by record."""

import io
import os
import random
import struct
import tempfile
from pathlib import Path
from typing import BinaryIO

import pytest

from fastmta._store import FRAME_HEAD_BYTES, TABLE_ALIAS, TABLE_NAMES, Store
from fastmta._unit import Unit
from fastmta.model.errors import StorageFailure
from fastmta.store.journal import follow, frames
from tests.store.composing import append, blob_of, new_mailbox, run
from tests.store.test_store_model import StoreMachine

UNITS = 100_000 if os.environ.get("FASTMTA_LONG") else 1500
UNITS_AT_ONCE = 500  # before the second store takes them over


def dump(store: Store) -> list[tuple[str, list[tuple[bytes, bytes]]]]:
    """Every record of every table."""
    return [(name, store.scan(table, b"", limit=1 << 30)) for table, name in enumerate(TABLE_NAMES) if table > 0]


def emptied(store: Store) -> list[tuple[str, list[tuple[bytes, bytes]]]]:
    """`dump`, when all that nobody refers to has gone."""
    while dict(dump(store))["trash"]:
        store.reap()
    return dump(store)


def equal_store(of: Store, path: Path, engine: str) -> Store:
    """Another store with the same records."""
    store = Store(str(path), sync=False, trash_delay_ms=0, engine=engine)
    unit = store.new_unit()
    for table, (_, rows) in enumerate(dump(of), 1):
        for key, value in rows:
            unit.put(table, key, value)
    assert run(store, unit) == ""
    return store


class Journalled(StoreMachine):
    """The model's machine, whose store keeps a journal."""

    def act(self, chance: random.Random) -> None:
        """One unit of the model, weighted so that mailboxes and the queue stay as full as they are."""
        box = chance.randrange(2)
        which = chance.sample(range(1, 9 + self.next_uid[box] // 2), 4) + list(self.messages[box])[:2]
        which = list(dict.fromkeys(which))
        size = chance.choices([0, 10, 4500, 70_000, 300_000], [20, 40, 40, 2, 1])[0]
        keyword = chance.choice([b"", b"a", b"d"])
        what = chance.choices(range(7), [20, 20, 14, 10, 12, 30, 3])[0]
        if what == 4 and len(self.recipients) > 100:  # as many as the model reads at once are more
            what = 5
        if what == 0:
            head = chance.choice([b"", b"A: b\r\n"])
            self.append(box, size, chance.randrange(32), keyword, head, [(0, 30), (40, 2)] if size > 100 else [])
        elif what == 1:
            self.set_flags(box, which, chance.randrange(3), chance.randrange(32), keyword)
        elif what == 2:
            retained = chance.choice([0, 20_000, 1 << 30])
            self.expunge(box, chance.choice([None, which, which]), chance.random() < 0.5, retained)
        elif what == 3:
            self.copy(box, chance.randrange(2), which, chance.random() < 0.5)
        elif what == 4:
            self.enqueue(chance.choices([1, 2, 3], k=chance.randrange(1, 4)), size, chance.randrange(3))
        elif what == 5:
            self.move(chance.randrange(51), chance.randrange(1, 6), chance.randrange(1000))
        else:
            self.a_failing_unit_changes_nothing(box)


@pytest.mark.parametrize("engine", ["lmdb", "memory"])
@pytest.mark.timeout(3000)
def test_units_of_the_model_give_an_equal_store(tmp_path: Path, engine: str) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    place = tmp_path / "journal"
    with place.open("wb") as writing, place.open("rb") as reading:
        machine = Journalled()
        machine.begin()
        machine.store.reserve_ids()
        second = equal_store(machine.store, tmp_path / "second", engine)
        machine.store.journal_to(writing.fileno())
        number = units = 0
        while units < UNITS:
            for _ in range(UNITS_AT_ONCE):
                machine.act(chance)
            units = machine.store.stats()["units"]
            machine.store.commit_sync(machine.store.new_unit())  # behind what was given up in the meantime
            number = follow(reading, second, number)
            assert machine.store.journal_trouble == ""
        machine.equal()
        assert emptied(machine.store) == emptied(second)
        assert number > UNITS // 2
        second.close()
        machine.teardown()


def journalled_store(path: Path, file: BinaryIO) -> tuple[Store, Store]:
    """A store that writes a journal, and an equal one."""
    first = Store(str(path / "first"), sync=False, engine="memory")
    first.reserve_ids()
    second = equal_store(first, path / "second", "memory")
    first.journal_to(file.fileno())
    return first, second


def a_journal(path: Path) -> tuple[bytes, Store, Store]:
    """Three frames and more: a long message, whose chunks go ahead of it, among them."""
    with tempfile.TemporaryFile(dir=path) as file:
        first, second = journalled_store(path, file)
        box = new_mailbox(first, 1, b"INBOX")
        blob = blob_of(first, b"0123456789" * 70_000)
        unit = first.new_unit()
        unit.blob(blob)
        append(unit, box, blob.blob_id)
        assert run(first, unit) == ""
        unit = first.new_unit()
        unit.put_new(TABLE_ALIAS, b"k", b"v")
        assert run(first, unit) == ""
        first.journal_to(-1)
        unit = first.new_unit()
        unit.put(TABLE_ALIAS, b"k", b"not in the journal")
        assert run(first, unit) == ""
        file.seek(0)
        return file.read(), first, second


def test_a_frame_is_a_transaction_with_its_time(tmp_path: Path) -> None:
    octets, first, second = a_journal(tmp_path)
    assert follow(io.BytesIO(octets), second) == len(list(frames(io.BytesIO(octets))))
    assert second.get(TABLE_ALIAS, b"k") == b"v"
    assert first.get(TABLE_ALIAS, b"k") == b"not in the journal"
    unit = first.new_unit()
    unit.put(TABLE_ALIAS, b"k", b"v")
    assert run(first, unit) == ""
    assert dump(first) == dump(second)
    first.close()
    second.close()


def test_what_was_refused_is_not_in_it(tmp_path: Path) -> None:
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        first, second = journalled_store(tmp_path, file)
        for value in (b"1", b"2", b"3"):
            unit = first.new_unit()
            unit.put_new(TABLE_ALIAS, b"k", value)
            run(first, unit)
        file.seek(0)
        assert follow(file, second) == 1
        first.close()
        second.close()


def test_a_batch_of_which_nothing_was_committed_is_no_frame(tmp_path: Path) -> None:
    """It had written, and took that back."""
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        first, second = journalled_store(tmp_path, file)
        blob = blob_of(first, b"x" * 50_000)
        unit = first.new_unit()
        unit.blob(blob)
        append(unit, 12345, blob.blob_id)
        assert run(first, unit) == "missing"
        unit = first.new_unit()
        unit.put(TABLE_ALIAS, b"k", b"v")
        assert run(first, unit) == ""
        file.seek(0)
        assert follow(file, second) == 1
        assert dump(first) == dump(second)
        first.close()
        second.close()


def test_a_second_time_it_does_not_fit(tmp_path: Path) -> None:
    octets, first, second = a_journal(tmp_path)
    number = follow(io.BytesIO(octets), second)
    before = dump(second)
    last = list(frames(io.BytesIO(octets)))[-1]
    with pytest.raises(StorageFailure, match=f"frame {number} of the journal does not fit this store"):
        second.replay(last)
    assert dump(second) == before
    first.close()
    second.close()


def test_a_gap_and_a_cut_are_named(tmp_path: Path) -> None:
    octets, first, second = a_journal(tmp_path)
    one, two, *_ = frames(io.BytesIO(octets))
    with pytest.raises(StorageFailure, match="lacks what lies between its frames 0 and 2"):
        follow(io.BytesIO(two), second)
    for n in (1, FRAME_HEAD_BYTES - 1, FRAME_HEAD_BYTES, len(two) - 1):
        with pytest.raises(StorageFailure, match=r"frame 2|behind frame 1"):
            list(frames(io.BytesIO(one + two[:n])))
    first.close()
    second.close()


def test_damage_is_refused_before_anything_is_changed(tmp_path: Path) -> None:
    octets, first, second = a_journal(tmp_path)
    one = next(frames(io.BytesIO(octets)))
    before = dump(second)
    for at in range(len(one)):
        damaged = bytearray(one)
        damaged[at] ^= 0x40
        with pytest.raises((ValueError, StorageFailure)):
            second.replay(bytes(damaged))
    assert dump(second) == before
    first.close()
    second.close()


def test_a_journal_that_cannot_be_written_ends_and_mail_goes_on(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), sync=False, engine="memory")
    reading, writing = os.pipe()
    os.close(reading)
    store.journal_to(writing)
    for value in (b"1", b"2"):
        unit = store.new_unit()
        unit.put(TABLE_ALIAS, b"k", value)
        assert run(store, unit) == ""
    assert "Broken pipe" in store.journal_trouble
    with tempfile.TemporaryFile(dir=tmp_path) as file:
        store.journal_to(file.fileno())
        assert store.journal_trouble == ""
        assert run(store, put_again(store)) == ""
        assert struct.unpack_from("<Q", os.pread(file.fileno(), 100, 0), 8) == (1,)
        store.close()
    os.close(writing)


def put_again(store: Store) -> Unit:
    unit = store.new_unit()
    unit.put(TABLE_ALIAS, b"k", b"3")
    return unit
