from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.imap.harness import World, make_world


@pytest.fixture(params=["memory", "store"])
def store_kind(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest_asyncio.fixture
async def world(store_kind: str, tmp_path: Path) -> AsyncIterator[World]:
    """A server over each kind of store: the fake must not be kinder than the real one."""
    world = await make_world(tmp_path if store_kind == "store" else None)
    yield world
    await world.close()
