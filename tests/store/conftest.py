"""The store of a test: on disk, then in memory. `@pytest.mark.disk` is for tests of the file itself."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastmta._store import Store
from fastmta.store.check import check_store

ENGINE = os.environ.get("FASTMTA_TEST_ENGINE", "")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "store" in metafunc.fixturenames:
        disk = metafunc.definition.get_closest_marker("disk") is not None
        engines = [ENGINE] if ENGINE else ["lmdb"] if disk else ["lmdb", "memory"]
        metafunc.parametrize("store", engines, indirect=True)


@pytest.fixture(autouse=True)
def _needs_the_disk(request: pytest.FixtureRequest) -> None:
    if ENGINE == "memory" and request.node.get_closest_marker("disk") is not None:
        pytest.skip("a test of the file, which a store in memory does not have")


@pytest.fixture
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """A store without fsync, which must be sound whatever the test did to it."""
    store = Store(str(tmp_path / "store"), sync=False, engine=request.param)
    yield store
    if not store.failed:
        assert check_store(store).problems == []
    store.close()
