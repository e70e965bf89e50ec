"""Aliases as login names: of exactly one account, and nobody learns which names there are."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from fastmta.auth.alias_logins import STEPS, AliasLogins
from fastmta.auth.authenticator import Authenticator
from fastmta.auth.sasl import Credentials
from tests.auth.test_authenticator import World
from tests.support.limits import local_limits

ALIASES = {
    "sales@example.test": ("user@example.test",),
    "bare@example.test": ("User",),
    "twice@example.test": ("sales@example.test",),
    "team@example.test": ("user@example.test", "off@example.test"),
    "out@example.test": ("user@elsewhere.test",),
    "closed@example.test": ("off@example.test",),
    "loop@example.test": ("loop@example.test",),
    "off@example.test": ("user@example.test",),
    "all@example.test": ("@example.test",),
    "@example.test": ("user@example.test",),
    **{f"a{n}@example.test": (f"a{n + 1}@example.test",) for n in range(STEPS)},
    f"a{STEPS}@example.test": ("user@example.test",),
}


class Aliases:
    def lookup(self, address):
        return ALIASES.get(address)


@pytest.fixture
def world():
    with ThreadPoolExecutor(1) as pool:
        world = World(pool, auth_master_users=())
        accounts = AliasLogins(world.accounts, Aliases(), "example.test")
        world.auth = Authenticator(
            world.config,
            accounts,
            world.passwords,
            local_limits(),
            cells=world.cells,
            log=world.log,
            sleep=world.sleep,
        )
        yield world


async def log_in(world, name, password="right", authzid=""):
    return await world.auth.authenticate(Credentials(name, password, authzid, "PLAIN"), "pop3", "192.0.2.1")


@pytest.mark.parametrize("name", ["sales", "SALES@Example.Test", "bare", "twice", "a1", "user"])
async def test_an_alias_of_one_account_opens_it(world, name):
    found = await log_in(world, name)
    assert found is not None
    assert found.address == "user@example.test"
    assert world.auth.try_now(Credentials(name, "right", "", "PLAIN"), "pop3") is found


@pytest.mark.parametrize(
    "name", ["team", "out", "closed", "loop", "off", "all", "@example.test", "anybody", "user+x", "a0"]
)
async def test_what_is_no_alias_of_exactly_one_account_is_an_unknown_user(world, name):
    """An account's own name, here a disabled one's, is never taken for an alias."""
    assert await log_in(world, name) is None
    assert len(world.slept) == 1, "the delay of any failure"
    assert len(world.hashes) == 1, "and its hash"


async def test_a_wrong_password_costs_the_same_for_alias_account_and_nobody(world):
    for name in ("sales", "user", "nobody"):
        world.hashes.clear()
        assert await log_in(world, name, "wrong") is None
        assert len(world.hashes) == 1


async def test_an_alias_and_its_account_may_name_each_other(world):
    for name, authzid in (("sales", "user"), ("user", "sales"), ("sales", "twice")):
        assert (await log_in(world, name, authzid=authzid)).address == "user@example.test"
    assert await log_in(world, "sales", authzid="off") is None


async def test_without_the_setting_an_alias_opens_nothing():
    with ThreadPoolExecutor(1) as pool:
        assert await log_in(World(pool), "sales") is None
