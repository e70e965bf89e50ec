"""The figures that the operator sees."""

import time

import pytest

from fastmta._store import TABLE_ALIAS, Snapshot, Store
from tests.store.composing import run


def _commit(store: Store, times: int) -> None:
    for number in range(times):
        unit = store.new_unit()
        unit.put(TABLE_ALIAS, b"k", b"%d" % number)
        assert run(store, unit) == ""


@pytest.mark.disk
def test_the_lag_is_that_of_the_oldest_reader(store: Store) -> None:
    _commit(store, 1)
    assert store.stats()["reader_lag_transactions"] == 0
    with Snapshot(store) as older:
        _commit(store, 2)
        with Snapshot(store):
            _commit(store, 3)
            assert store.stats()["reader_lag_transactions"] == 5
        older.close()
    assert store.stats()["reader_lag_transactions"] == 0


@pytest.mark.disk
def test_free_pages_are_part_of_what_the_file_holds(store: Store) -> None:
    _commit(store, 5)
    stats = store.stats()
    assert 0 < stats["free_bytes"] < stats["map_used_bytes"] < stats["map_bytes"]


@pytest.mark.disk
def test_free_pages_are_counted_again_when_something_was_written(store: Store) -> None:
    _commit(store, 5)
    before = store.stats()["free_bytes"]
    assert store.stats()["free_bytes"] == before
    with Snapshot(store):  # what is freed now stays in the list: a reader may still need it
        _commit(store, 50)
        deadline = time.monotonic() + 30
        while store.stats()["free_bytes"] == before and time.monotonic() < deadline:
            _commit(store, 1)  # a count is left out for a hundred times as long as the last one took
        assert store.stats()["free_bytes"] > before
