from collections.abc import AsyncIterator

import pytest_asyncio

from tests.imap.harness import World, make_world


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    world = await make_world()
    yield world
    await world.services.tasks.close()
