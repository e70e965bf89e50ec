from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.imap.harness import World, make_world


@pytest.fixture(params=["memory", "lmdb"])
def store_kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest_asyncio.fixture
async def world(store_kind: str, tmp_path: Path) -> AsyncIterator[World]:
    """A server over a store with its records in memory, and over one in LMDB."""
    world = await make_world(tmp_path, engine=store_kind)
    yield world
    await world.close()
