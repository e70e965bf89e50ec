"""One server for all interop tests of a process; every test has an account of its own."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import authority
from tests.support.server import Server

HOSTNAME = "mx.example.test"
PASSWORD = "interop-secret"
MECHANISMS = ["PLAIN", "LOGIN", "SCRAM-SHA-1", "SCRAM-SHA-256"]


class Account(NamedTuple):
    user: str
    password: str


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # Only 127.0.0.1 may relay: other loopback addresses play the strangers.
    settings = {
        "mynetworks": ["127.0.0.1/32"],
        "message_size_limit": 2_000_000,
        "auth": {"failure_delay": "0s", "mechanisms": MECHANISMS},
    }
    directory = tmp_path_factory.mktemp("interop")
    write_certificates(directory)
    with Server(directory, settings=settings, workers=2) as running:
        yield running


def write_certificates(directory: Path) -> None:
    """cert.pem and key.pem of the server, by an authority whose certificate is ca.pem."""
    ca = authority.issue(["Authority of the tests"], ca=True)
    ca.write(directory, "ca")
    authority.issue([HOSTNAME, "localhost"], ca).write(directory, "cert")
    (directory / "cert.key").rename(directory / "key.pem")


_numbers = itertools.count(1)


@pytest.fixture
def account(server: Server) -> Account:
    """A fresh, empty account."""
    made = Account(f"user{next(_numbers)}@example.test", PASSWORD)
    server.add_user(*made)
    return made


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/interop/" in item.path.as_posix():
            item.add_marker(pytest.mark.interop)
