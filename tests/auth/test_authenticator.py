from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from fastmta.auth.authenticator import Authenticator
from fastmta.auth.check_queue import BUSY
from fastmta.auth.passwords import PasswordChecker
from fastmta.auth.sasl import Credentials
from fastmta.config.schema import AuthConfig, Config
from fastmta.model.errors import TemporaryFailure
from fastmta.runtime.metrics import METRICS, local_cells
from tests.support.limits import local_limits


@dataclass(frozen=True)
class Account:
    id: int
    address: str
    password_hash: str
    enabled: bool = True


@dataclass
class Accounts:
    known: dict = field(default_factory=dict)
    asked: list = field(default_factory=list)

    def lookup(self, address):
        self.asked.append(address)
        return self.known.get(address)


class Silent:
    def __init__(self):
        self.events = []

    def info(self, event, **fields):
        self.events.append((event, fields))


class World:
    def __init__(self, pool, **auth):
        self.accounts = Accounts()
        for number, (address, password, enabled) in enumerate(
            [("user@example.test", "right", True), ("off@example.test", "right", False)], 1
        ):
            self.accounts.known[address] = Account(number, address, password, enabled)
        self.cells = local_cells()
        self.slept = []
        self.log = Silent()
        self.hashes = []

        async def sleep(seconds):
            self.slept.append(seconds)

        def verify(stored, password):
            self.hashes.append(stored)
            return stored == password

        config = Config(
            mydomain="example.test",
            mydestination=("other.test", "example.test"),
            auth=AuthConfig(mechanisms=("PLAIN", "LOGIN"), **auth),
        )
        self.passwords = PasswordChecker(pool, verify=verify)
        self.auth = Authenticator(
            config, self.accounts, self.passwords, local_limits(), cells=self.cells, log=self.log, sleep=sleep
        )

    def counted(self, mechanism, result):
        return self.cells[METRICS.auth_total[mechanism, result]]


@pytest.fixture
def pool():
    with ThreadPoolExecutor(1) as made:
        yield made


@pytest.fixture
def world(pool):
    return World(pool)


@pytest.mark.parametrize("name", ["user@example.test", "USER@Example.Test", "user"])
async def test_the_login_name_is_the_address_or_a_bare_name_of_our_domain(world, name):
    found = await world.auth.authenticate(Credentials(name, "right"), "imap", "192.0.2.1")
    assert found.id == 1
    assert world.slept == []
    assert world.counted("PLAIN", "success") == 1


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("user", "wrong"),
        ("nobody", "right"),
        ("off", "right"),
        ("user@elsewhere.test", "right"),
        ("%u@example.test", "right"),
        ("user@example.test\0", "right"),
        ("user ", "right"),
        ("x" * 400, "right"),
    ],
)
async def test_every_failure_costs_one_hash_one_delay_and_says_nothing(world, name, password):
    assert await world.auth.authenticate(Credentials(name, password), "imap", "192.0.2.1") is None
    assert len(world.hashes) == 1
    assert world.slept == [2.0]
    assert world.counted("PLAIN", "failure") == 1
    assert "right" not in str(world.log.events)
    assert "wrong" not in str(world.log.events)


async def test_a_success_is_found_at_once_the_next_time_in_the_same_service(world):
    credentials = Credentials("user", "right")
    assert world.auth.try_now(credentials, "imap") is None
    await world.auth.authenticate(credentials, "imap", "192.0.2.1")
    assert world.auth.try_now(credentials, "imap").id == 1
    assert world.auth.try_now(credentials, "pop3") is None
    assert world.counted("PLAIN", "success") == 2


async def test_a_disabled_account_is_not_let_in_by_the_cache(world):
    credentials = Credentials("user", "right")
    await world.auth.authenticate(credentials, "imap", "192.0.2.1")
    world.accounts.known["user@example.test"] = Account(1, "user@example.test", "right", False)
    assert world.auth.try_now(credentials, "imap") is None


async def test_acting_for_oneself_is_allowed_and_for_others_not(world):
    own = Credentials("user", "right", "user@example.test")
    other = Credentials("user", "right", "off@example.test")
    assert (await world.auth.authenticate(own, "imap", "")).id == 1
    assert await world.auth.authenticate(other, "imap", "") is None


def test_no_mechanism_without_tls_but_from_loopback(world, pool):
    assert world.auth.mechanisms(False, False) == ()
    assert not world.auth.login_allowed(False, False)
    assert world.auth.mechanisms(True, False) == ("PLAIN", "LOGIN")
    assert world.auth.mechanisms(False, True) == ("PLAIN", "LOGIN")
    assert World(pool, disable_plaintext_auth=False).auth.mechanisms(False, False) == ("PLAIN", "LOGIN")


@pytest.mark.parametrize("name", ["user", "nobody"])
async def test_the_delay_grows_with_the_failures_of_an_address_whoever_was_tried(world, name):
    for number in range(5):
        assert await world.auth.authenticate(Credentials(name, f"wrong{number}"), "imap", "192.0.2.1") is None
    assert world.slept == [2.0, 4.0, 8.0, 15.0, 15.0]
    assert (await world.auth.authenticate(Credentials("user", "right"), "pop3", "192.0.2.1")).id == 1
    assert await world.auth.authenticate(Credentials(name, "wrong"), "smtp", "192.0.2.1") is None
    assert await world.auth.authenticate(Credentials(name, "wrong"), "imap", "192.0.2.2") is None
    assert world.slept[5:] == [2.0, 2.0], "a success forgives, and other addresses were never meant"


async def test_to_be_refused_for_a_full_queue_costs_the_delay_too(world, monkeypatch):
    async def full(address, name):
        raise TemporaryFailure(BUSY)

    monkeypatch.setattr("fastmta.auth.check_queue.CheckQueue.take", lambda self, address, name: full(address, name))
    with pytest.raises(TemporaryFailure):
        await world.auth.authenticate(Credentials("user", "right"), "imap", "192.0.2.1")
    assert world.slept == [2.0]
    assert world.counted("PLAIN", "temporary") == 1
