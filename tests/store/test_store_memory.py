"""Records in memory: what differs from LMDB's file. The rest is said by the tests that run over both."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from fastmta._store import TABLE_ALIAS, TABLE_META, Snapshot, Store
from fastmta._unit import COMMITTED
from fastmta.model.errors import StorageFailure
from fastmta.store.check import check_store
from tests.store.composing import run


def memory_store(path: Path, **more: int) -> Store:
    return Store(str(path), engine="memory", **more)  # type: ignore[arg-type]


def put(store: Store, rows: dict[bytes, bytes | None]) -> str:
    unit = store.new_unit()
    for key, value in rows.items():
        if value is None:
            unit.delete(TABLE_ALIAS, key)
        else:
            unit.put(TABLE_ALIAS, key, value)
    return run(store, unit)


def test_random_changes_leave_what_a_dict_has(tmp_path: Path) -> None:
    store = memory_store(tmp_path)
    chance = random.Random(5)
    expected: dict[bytes, bytes] = {}
    for _ in range(300):
        rows: dict[bytes, bytes | None] = {}
        for _ in range(chance.randrange(1, 30)):
            key = b"%0*d" % (chance.choice((1, 3, 3, 400)), chance.randrange(900))
            rows[key] = None if chance.random() < 0.4 else b"v" * chance.choice((0, 5, 5000))
        assert put(store, rows) == ""
        for key, value in rows.items():
            if value is None:
                expected.pop(key, None)
            else:
                expected[key] = value
    assert store.scan(TABLE_ALIAS, b"", limit=10**6) == sorted(expected.items())
    for key in sorted(expected)[::17]:
        assert store.scan(TABLE_ALIAS, b"", key, 3) == sorted(row for row in expected.items() if row[0] >= key)[:3]
        assert store.get(TABLE_ALIAS, key) == expected[key]
    store.close()


def test_a_reader_keeps_the_moment_it_began_with(tmp_path: Path) -> None:
    store = memory_store(tmp_path)
    for n in range(50):
        assert put(store, {b"a": b"%d" % n, b"%d" % n: b"x" * 4000}) == ""
    with Snapshot(store) as before:
        for n in range(50):
            assert put(store, {b"a": b"later", b"%d" % n: None}) == ""
        assert before.get(TABLE_ALIAS, b"a") == b"49"
        assert before.scan(TABLE_ALIAS, b"7") == [(b"7", b"x" * 4000)]
        with Snapshot(store) as after:
            assert after.scan(TABLE_ALIAS, b"") == [(b"a", b"later")]
        assert len(before.scan(TABLE_ALIAS, b"")) == 51
    assert store.stats()["readers"] <= 1
    store.close()


def test_what_is_stored_outlives_a_closing_and_ends_with_its_directory(tmp_path: Path) -> None:
    store = memory_store(tmp_path / "a")
    assert put(store, {b"k": b"v"}) == ""
    store.close()
    store = memory_store(tmp_path / "a")
    assert store.get(TABLE_ALIAS, b"k") == b"v"
    store.close()
    (tmp_path / "a").rename(tmp_path / "b")
    other = memory_store(tmp_path / "a")
    assert other.get(TABLE_ALIAS, b"k") is None
    other.close()
    with pytest.raises(StorageFailure, match="in the memory of process"):
        memory_store(tmp_path / "b")


def test_another_process_is_told_where_it_is(tmp_path: Path) -> None:
    store = memory_store(tmp_path)
    program = "import sys; from fastmta._store import Store; Store(sys.argv[1], engine='memory')"
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert f"the store {tmp_path} is in the memory of process" in done.stderr
    store.close()


def test_a_store_on_disk_is_not_hidden(tmp_path: Path) -> None:
    Store(str(tmp_path), sync=False, engine="lmdb").close()
    with pytest.raises(StorageFailure, match="has a store on disk"):
        memory_store(tmp_path)


def test_an_engine_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="lmdb or memory"):
        Store(str(tmp_path), engine="paper")


def test_memory_has_a_bound_as_a_map_has(tmp_path: Path) -> None:
    store = memory_store(tmp_path, map_size_bytes=100_000)
    assert put(store, {b"big": b"x" * 90_000}) == ""
    assert put(store, {b"more": b"x" * 20_000}) == "full"
    assert put(store, {b"big": None}) == ""
    assert put(store, {b"more": b"x" * 20_000}) == ""
    assert check_store(store).problems == []
    store.close()


def test_it_has_no_file_to_back_up(tmp_path: Path) -> None:
    store = memory_store(tmp_path)
    with open(tmp_path / "copy", "wb") as file, pytest.raises(StorageFailure, match="no file"):
        store.copy_to(file.fileno())
    store.close()


@pytest.mark.parametrize("kind", ["put", "begin", "commit"])
def test_a_failure_takes_all_of_a_batch_back(tmp_path: Path, kind: str) -> None:
    store = memory_store(tmp_path)
    assert put(store, {b"k": b"v"}) == ""
    store.inject_failure(kind, 1, "nospace")
    assert put(store, {b"k": b"w", b"l": b"w"}) == "full"
    assert store.scan(TABLE_ALIAS, b"") == [(b"k", b"v")]  # opened anew, as after a full disk
    unit = store.new_unit()
    unit.guard(TABLE_META, b"schema", store.get(TABLE_META, b"schema"))
    assert store.commit_sync(unit).status == COMMITTED
    store.close()
