from collections.abc import Iterator
from pathlib import Path

import pytest

from fastmta._store import Store
from fastmta.store.check import check_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store without fsync, which must be sound whatever the test did to it."""
    store = Store(str(tmp_path / "store"), sync=False)
    yield store
    if not store.failed:
        assert check_store(store).problems == []
    store.close()
