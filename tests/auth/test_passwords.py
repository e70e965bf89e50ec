import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from fastmta.auth.passwords import PasswordChecker, hash_password, verify_password
from fastmta.model.errors import TemporaryFailure
from fastmta.model.limits import PASSWORD_BYTES, PASSWORD_CACHE_ENTRIES, PASSWORD_CHECKS_OF_ADDRESS
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


async def turn_of_the_loop():
    for _ in range(4):
        await asyncio.sleep(0)


async def test_too_many_waiting_checks_of_an_address_are_a_temporary_failure_to_that_address_alone(pool):
    gate = threading.Event()
    checker = PasswordChecker(pool, at_once=1, verify=lambda *_: gate.wait(10))
    numbers = range(PASSWORD_CHECKS_OF_ADDRESS + 1)
    waiting = [asyncio.create_task(checker.verify(Account(n), "x", peer="192.0.2.1")) for n in numbers]
    await turn_of_the_loop()
    try:
        for account in (None, Account(9999)):
            with pytest.raises(TemporaryFailure) as caught:
                await checker.verify(account, "x", peer="192.0.2.1")
            assert caught.value.reply.code == 454
        other = asyncio.create_task(checker.verify(Account(9999), "x", peer="192.0.2.2"))
        await turn_of_the_loop()
        assert not other.done()
    finally:
        gate.set()
    assert await other and all(await asyncio.gather(*waiting))


async def test_all_waiting_checks_together_are_bounded(pool, monkeypatch):
    monkeypatch.setattr("fastmta.auth.check_queue.PASSWORD_CHECKS_WAITING", 3)
    gate = threading.Event()
    checker = PasswordChecker(pool, at_once=1, verify=lambda *_: gate.wait(10))
    waiting = [asyncio.create_task(checker.verify(Account(n), "x", peer=str(n))) for n in range(4)]
    await turn_of_the_loop()
    with pytest.raises(TemporaryFailure):
        await checker.verify(Account(9), "x", peer="9")
    gate.set()
    assert all(await asyncio.gather(*waiting))


@pytest.mark.parametrize("known", [True, False])
async def test_equal_logins_cost_one_hash_whether_the_user_is_known_or_not(pool, known):
    verifier = Verifier()
    checker = PasswordChecker(pool, verify=verifier)
    account = Account() if known else None
    tries = [checker.verify(account, "wrong", "imap", "PLAIN", name="bill", peer="192.0.2.1") for _ in range(12)]
    assert not any(await asyncio.gather(*tries))
    assert len(verifier.calls) == 1


async def test_other_names_services_and_mechanisms_of_unknown_users_are_checked_apart(pool):
    verifier = Verifier()
    checker = PasswordChecker(pool, verify=verifier)
    which = [("imap", "PLAIN", "a"), ("imap", "PLAIN", "b"), ("pop3", "PLAIN", "a"), ("imap", "LOGIN", "a")]
    await asyncio.gather(*(checker.verify(None, "x", service, how, name=name) for service, how, name in which))
    assert len(verifier.calls) == 4


async def test_a_crowd_from_one_address_keeps_nobody_else_waiting(pool):
    order, gate = [], threading.Event()
    checker = PasswordChecker(
        pool, at_once=1, verify=lambda _, password: gate.wait(10) and (order.append(password) or True)
    )
    crowd = [asyncio.create_task(checker.verify(None, f"crowd{n}", name=f"n{n}", peer="192.0.2.1")) for n in range(210)]
    await turn_of_the_loop()
    others = [asyncio.create_task(checker.verify(Account(n), f"o{n}", peer=f"192.0.2.{n}")) for n in (2, 3, 4)]
    await turn_of_the_loop()
    gate.set()
    await asyncio.gather(*others, *crowd)
    assert max(order.index(f"o{n}") for n in (2, 3, 4)) <= 5


async def test_within_an_address_every_login_name_has_its_turn(pool):
    order, gate = [], threading.Event()
    checker = PasswordChecker(
        pool, at_once=1, verify=lambda _, password: gate.wait(10) and (order.append(password) or True)
    )
    crowd = [asyncio.create_task(checker.verify(None, f"c{n}", name="bill", peer="192.0.2.1")) for n in range(50)]
    await turn_of_the_loop()
    other = asyncio.create_task(checker.verify(Account(), "other", name="ted", peer="192.0.2.1"))
    await turn_of_the_loop()
    gate.set()
    await asyncio.gather(other, *crowd)
    assert order.index("other") <= 2


async def test_checks_whose_clients_have_left_are_not_made_and_leave_no_gap(pool):
    gate = threading.Event()
    made = []
    checker = PasswordChecker(pool, at_once=1, verify=lambda _, password: made.append(password) or gate.wait(10))
    tasks = [asyncio.create_task(checker.verify(None, f"x{n}", name=str(n), peer="192.0.2.1")) for n in range(20)]
    await turn_of_the_loop()
    last = asyncio.create_task(checker.verify(Account(), "last", peer="192.0.2.1"))
    await turn_of_the_loop()
    for task in tasks:
        task.cancel()
    gate.set()
    assert await last
    await asyncio.gather(*tasks, return_exceptions=True)
    assert made == ["x0", "last"]
    assert await checker.verify(Account(2), "again") and checker._turns.waiting == 0


async def test_a_client_that_leaves_does_not_cancel_the_check_of_another(pool):
    gate = threading.Event()
    checker = PasswordChecker(pool, verify=lambda *_: gate.wait(10))
    first = asyncio.create_task(checker.verify(Account(), "x"))
    second = asyncio.create_task(checker.verify(Account(), "x"))
    await asyncio.sleep(0)
    first.cancel()
    gate.set()
    assert await second is True
