import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from fastmta.auth.passwords import PasswordChecker, hash_password, verify_password
from fastmta.model.errors import TemporaryFailure
from fastmta.model.limits import PASSWORD_BYTES, PASSWORD_CACHE_ENTRIES, PASSWORD_CHECKS_WAITING
from fastmta.runtime.clock import ManualClock


@dataclass(frozen=True)
class Account:
    id: int = 1
    password_hash: str = "right"


class Verifier:
    """Stands for argon2: the hash is the password itself; counts its calls."""

    def __init__(self):
        self.calls = []

    def __call__(self, password_hash, password):
        self.calls.append((password_hash, password))
        return password_hash == password


@pytest.fixture
def pool():
    with ThreadPoolExecutor(1) as made:
        yield made


def test_a_hash_is_argon2id_with_the_stated_costs():
    made = hash_password("påss")
    assert made.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert verify_password(made, "påss")
    assert verify_password("{ARGON2ID}" + made, "påss")
    assert not verify_password(made, "pass")
    assert not verify_password(made, "\ud800")


@pytest.mark.parametrize("stored", ["", "!", "plain", "$1$x$y", "$argon2id$", "$argon2id$v=19$m=1,t=1,p=1$x"])
def test_a_hash_of_another_kind_never_matches(stored):
    assert not verify_password(stored, stored)


async def test_a_success_is_remembered_for_its_service_and_mechanism_only(pool):
    verifier = Verifier()
    checker = PasswordChecker(pool, verify=verifier)
    assert checker.cached(Account(), "right", "imap", "PLAIN") is None
    assert await checker.verify(Account(), "right", "imap", "PLAIN")
    assert checker.cached(Account(), "right", "imap", "PLAIN") is True
    assert checker.cached(Account(), "right", "pop3", "PLAIN") is None
    assert checker.cached(Account(), "right", "imap", "LOGIN") is None
    assert checker.cached(Account(2), "right", "imap", "PLAIN") is None
    assert checker.cached(Account(), "wrong", "imap", "PLAIN") is None


async def test_a_changed_hash_misses_at_once(pool):
    checker = PasswordChecker(pool, verify=Verifier())
    await checker.verify(Account(), "right")
    assert checker.cached(Account(1, "new"), "right") is None


async def test_a_failure_is_never_remembered(pool):
    verifier = Verifier()
    checker = PasswordChecker(pool, verify=verifier)
    assert not await checker.verify(Account(), "wrong")
    assert not await checker.verify(Account(), "wrong")
    assert len(verifier.calls) == 2


async def test_an_unknown_user_costs_a_hash_too(pool):
    verifier = Verifier()
    assert not await PasswordChecker(pool, verify=verifier).verify(None, "x")
    assert verifier.calls[0][0].startswith("$argon2id$v=19$m=19456,t=2,p=1$")


@pytest.mark.parametrize(
    ("length", "hashed"), [(PASSWORD_BYTES - 1, True), (PASSWORD_BYTES, True), (PASSWORD_BYTES + 1, False)]
)
async def test_a_password_over_the_bound_is_wrong_without_being_hashed(pool, length, hashed):
    verifier = Verifier()
    assert not await PasswordChecker(pool, verify=verifier).verify(Account(), "x" * length)
    assert (verifier.calls[0][1] != "") is hashed


async def test_a_success_is_forgotten_after_its_time(pool):
    clock = ManualClock()
    checker = PasswordChecker(pool, ttl_s=60, clock=clock, verify=Verifier())
    await checker.verify(Account(), "right")
    clock.advance(60)
    assert checker.cached(Account(), "right")
    clock.advance(1)
    assert checker.cached(Account(), "right") is None


async def test_the_cache_is_bounded_and_loses_the_oldest(pool):
    checker = PasswordChecker(pool, verify=lambda *_: True)
    for number in range(3):
        await checker.verify(Account(number), "x")
    for number in range(PASSWORD_CACHE_ENTRIES - 3):
        checker._known[number.to_bytes(4, "little")] = 1e12
    assert checker.cached(Account(0), "x")
    await checker.verify(Account(9), "x")
    assert checker.cached(Account(0), "x") is None
    assert checker.cached(Account(1), "x")
    assert len(checker._known) == PASSWORD_CACHE_ENTRIES


async def test_equal_checks_at_the_same_time_cost_one_hash(pool):
    verifier = Verifier()
    checker = PasswordChecker(pool, verify=verifier)
    assert all(await asyncio.gather(*(checker.verify(Account(), "right") for _ in range(10))))
    assert len(verifier.calls) == 1


async def test_too_many_waiting_checks_are_a_temporary_failure(pool):
    gate = threading.Event()
    checker = PasswordChecker(pool, verify=lambda *_: gate.wait(10))
    waiting = [asyncio.create_task(checker.verify(Account(n), "x")) for n in range(PASSWORD_CHECKS_WAITING)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    try:
        with pytest.raises(TemporaryFailure) as caught:
            await checker.verify(None, "x")
        assert caught.value.reply.code == 454
        with pytest.raises(TemporaryFailure):
            await checker.verify(Account(9999), "x")
    finally:
        gate.set()
    assert all(await asyncio.gather(*waiting))


async def test_a_client_that_leaves_does_not_cancel_the_check_of_another(pool):
    gate = threading.Event()
    checker = PasswordChecker(pool, verify=lambda *_: gate.wait(10))
    first = asyncio.create_task(checker.verify(Account(), "x"))
    second = asyncio.create_task(checker.verify(Account(), "x"))
    await asyncio.sleep(0)
    first.cancel()
    gate.set()
    assert await second is True
