"""One server for the tests of acts that a worker does."""

from collections.abc import Iterator

import pytest

from tests.support.server import Server

BILL = "bill@example.test"


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"transport": {"held.example": "hold:"}}
    with Server(tmp_path_factory.mktemp("server"), services=("smtp",), workers=2, settings=settings) as made:
        made.add_user(BILL, "secret")
        yield made
