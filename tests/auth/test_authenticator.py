from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from fastmta.auth.authenticator import Authenticator
from fastmta.auth.bearer import TokenRefused
from fastmta.auth.check_queue import BUSY
from fastmta.auth.passwords import PasswordChecker
from fastmta.auth.sasl import Challenge, Credentials
from fastmta.auth.sasl_client import Place, Secret, choose
from fastmta.auth.scram import derive
from fastmta.auth.totp import STEP_S, code_at
from fastmta.config.schema import Config
from fastmta.config.tables import AuthConfig
from fastmta.model.credentials import AppPassword, Totp
from fastmta.model.errors import TemporaryFailure
from fastmta.model.limits import ONE_TIME_CODES
from fastmta.model.mechanisms import MECHANISMS, SCRAM
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

        self.sleep = sleep
        self.config = config = Config(
            mydomain="example.test",
            mydestination=("other.test", "example.test"),
            auth=AuthConfig(**{"mechanisms": ("PLAIN", "LOGIN"), **auth}),
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


NOW_S = 1_800_000_000.0
SECRET = b"12345678901234567890"


class Kept:
    """The store's credentials, as far as an authenticator asks."""

    def __init__(self):
        self.scram = {}
        self.app = {}
        self.totps = {}

    def totp(self, account_id):
        return self.totps.get(account_id)

    async def use_totp_step(self, account_id, totp, step):
        if self.totps[account_id] != totp:
            return False
        self.totps[account_id] = Totp(totp.secret, step, totp.created_at_s)
        return True

    def app_password_mark(self, account_id, password):
        return b"mark" if (account_id, password) in self.app else b""

    def account_mark(self, account_id):
        return b"%d" % account_id

    def scram_keys(self, account_id, password_hash):
        return self.scram.get((account_id, password_hash), {})

    def login_secret(self):
        return b"secret"

    def app_password(self, account_id, password):
        return self.app.get((account_id, password))


class Issuer:
    is_configured = True

    async def user(self, token):
        if token == "down":
            raise TemporaryFailure(BUSY)
        if token != "good":
            raise TokenRefused("it has expired")
        return "user"


@pytest.fixture
def rich(pool):
    """A world with every kind of credentials."""

    def make(**auth):
        world = World(pool, **{"mechanisms": MECHANISMS, **auth})
        world.credentials = Kept()
        world.learned = []
        world.auth = Authenticator(
            world.config,
            world.accounts,
            world.passwords,
            local_limits(),
            cells=world.cells,
            log=world.log,
            sleep=world.sleep,
            credentials=world.credentials,
            tokens=Issuer(),
            learn=lambda account, password: world.learned.append((account.id, password)),
            now=lambda: NOW_S,
        )
        return world

    return make


def last(world):
    event, fields = world.log.events[-1]
    return event, fields


async def test_mechanisms_that_send_no_secret_are_offered_without_tls(rich):
    auth = rich().auth
    assert auth.mechanisms(False, False) == SCRAM
    assert (*auth.mechanisms(True, False), "EXTERNAL") == MECHANISMS


async def test_token_mechanisms_need_an_issuer(world):
    assert "XOAUTH2" not in world.auth.mechanisms(True, False)


async def test_a_plain_login_makes_the_scram_keys_once(rich):
    world = rich()
    await world.auth.authenticate(Credentials("user", "wrong"), "imap", "192.0.2.1")
    assert world.learned == []
    await world.auth.authenticate(Credentials("user", "right"), "imap", "192.0.2.1")
    assert world.learned == [(1, "right")]
    world.credentials.scram[1, "right"] = {"SCRAM-SHA-256": derive("SCRAM-SHA-256", "right", b"salt")}
    await world.auth.authenticate(Credentials("user", "right"), "pop3", "192.0.2.1")
    assert len(world.learned) == 1


def prove(world, user, password, mechanism="SCRAM-SHA-256"):
    login = choose([mechanism], Secret(user, password), Place("mx", 143), nonce=lambda: b"n" * 18)
    sasl = world.auth.exchange(world.auth.mechanisms(False, False))
    step = sasl.start(mechanism, login.start())
    first = step
    while isinstance(step, Challenge):
        step = sasl.respond(login.respond(step.raw))
    return first.raw, step


async def test_scram_opens_the_account(rich):
    world = rich()
    world.credentials.scram[1, "right"] = {"SCRAM-SHA-256": derive("SCRAM-SHA-256", "right", b"salt")}
    _, step = prove(world, "user@example.test", "right")
    assert world.auth.try_now(step, "imap") is None
    assert (await world.auth.authenticate(step, "imap", "192.0.2.1")).id == 1
    assert world.hashes == []
    assert world.counted("SCRAM-SHA-256", "success") == 1


@pytest.mark.parametrize(
    ("user", "password", "reason"),
    [
        ("user", "wrong", "another password"),
        ("nobody", "right", "another password"),
        ("off", "right", "no SCRAM keys yet: they are made at the next login with the password"),
    ],
)
async def test_a_proof_that_does_not_fit_is_a_failure(rich, user, password, reason):
    world = rich()
    world.credentials.scram[1, "right"] = {"SCRAM-SHA-256": derive("SCRAM-SHA-256", "right", b"salt")}
    _, step = prove(world, user, password)
    assert await world.auth.authenticate(step, "imap", "192.0.2.1") is None
    assert world.slept == [2.0]
    assert last(world)[1]["reason"] == reason


async def test_whoever_has_no_keys_looks_like_an_account_each_time(rich):
    world = rich()

    def salt(user, mechanism="SCRAM-SHA-256"):
        first, _ = prove(world, user, "x", mechanism)
        return first.partition(b",")[2]

    assert salt("nobody") == salt("NOBODY@example.test")
    assert salt("nobody") != salt("somebody")
    assert salt("nobody") != salt("nobody", "SCRAM-SHA-1")


async def test_a_disabled_account_is_not_opened_by_a_proof(rich):
    world = rich()
    world.credentials.scram[2, "right"] = {"SCRAM-SHA-256": derive("SCRAM-SHA-256", "right", b"salt")}
    _, step = prove(world, "off", "right")
    assert await world.auth.authenticate(step, "imap", "192.0.2.1") is None
    assert last(world)[1]["reason"] == "disabled"


async def test_an_app_password_opens_its_protocols_at_once_and_until_it_is_revoked(rich):
    world = rich()
    world.credentials.app[1, "app"] = AppPassword("phone", ("imap",), 0)
    assert world.auth.try_now(Credentials("user", "app"), "imaps").id == 1
    assert (await world.auth.authenticate(Credentials("user", "app"), "imap", "192.0.2.1")).id == 1
    assert world.auth.try_now(Credentials("user", "app"), "submission") is None
    assert await world.auth.authenticate(Credentials("user", "app"), "submission", "192.0.2.1") is None
    assert await world.auth.authenticate(Credentials("off", "app"), "imap", "192.0.2.1") is None
    world.credentials.app.clear()
    assert world.auth.try_now(Credentials("user", "app"), "imaps") is None
    assert world.learned == []


@pytest.mark.parametrize(
    "credentials",
    [
        Credentials("user*admin", "key"),
        Credentials("user@example.test*admin@example.test", "key", "", "LOGIN"),
        Credentials("admin", "key", "user"),
    ],
)
async def test_a_master_user_opens_an_account_with_his_own_password(rich, credentials):
    world = rich(auth_master_users=("admin@example.test",), auth_master_user_separator="*")
    world.accounts.known["admin@example.test"] = Account(3, "admin@example.test", "key")
    assert (await world.auth.authenticate(credentials, "imap", "192.0.2.1")).id == 1
    expected = {"service": "imap", "master": "admin@example.test", "account": "user@example.test"}
    assert last(world) == ("auth.master", expected)
    assert world.auth.try_now(credentials, "imap").id == 1
    assert len(world.log.events) == 2  # each time
    assert world.auth.opened_by(credentials) == b"3"  # it ends with the master user
    world.credentials.app[3, "key"] = AppPassword("phone", (), 0)
    assert world.auth.opened_by(credentials) == b"mark"


@pytest.mark.parametrize(
    "credentials",
    [
        Credentials("user*admin", "right"),  # the account's password is not the master's
        Credentials("user*other", "key"),  # no master
        Credentials("other", "key", "user"),
        Credentials("off*admin", "key"),
        Credentials("nobody*admin", "key"),
        Credentials("*admin", "key"),
        Credentials("user*", "right"),
    ],
)
async def test_nobody_else_opens_it(rich, credentials):
    world = rich(auth_master_users=("admin@example.test",), auth_master_user_separator="*")
    world.accounts.known["admin@example.test"] = Account(3, "admin@example.test", "key")
    world.accounts.known["other@example.test"] = Account(4, "other@example.test", "key")
    found = await world.auth.authenticate(credentials, "imap", "192.0.2.1")
    if credentials.authcid == "*admin":  # nobody is named: the master's own account
        assert found.id == 3
        return
    assert found is None
    assert world.slept == [2.0]


async def test_without_a_separator_a_star_is_part_of_a_name(rich):
    world = rich(auth_master_users=("admin@example.test",))
    world.accounts.known["admin@example.test"] = Account(3, "admin@example.test", "key")
    assert await world.auth.authenticate(Credentials("user*admin", "key"), "imap", "192.0.2.1") is None


def bearer(user, token):
    return Credentials(user, token, "", "OAUTHBEARER", None, True)


async def test_a_token_opens_the_account_that_it_names(rich):
    world = rich()
    assert (await world.auth.authenticate(bearer("user@example.test", "good"), "imap", "192.0.2.1")).id == 1
    for wrong in (bearer("off", "good"), bearer("nobody", "good"), bearer("user", "old")):
        assert await world.auth.authenticate(wrong, "imap", "192.0.2.1") is None
    assert world.hashes == []


async def test_an_issuer_that_cannot_be_asked_is_no_verdict(rich):
    world = rich()
    with pytest.raises(TemporaryFailure):
        await world.auth.authenticate(bearer("user", "down"), "imap", "192.0.2.1")


# --- one-time codes ---


def code(steps: int = 0) -> str:
    return code_at(SECRET, int(NOW_S) // STEP_S + steps)


@pytest.mark.parametrize("steps", [-1, 0, 1])
async def test_a_password_with_its_code_opens_once(rich, steps):
    world = rich()
    world.credentials.totps[1] = Totp(SECRET, 0, 0)
    credentials = Credentials("user", "right" + code(steps))
    assert world.auth.try_now(credentials, "imap") is None
    assert (await world.auth.authenticate(credentials, "imap", "192.0.2.1")).id == 1
    assert world.auth.try_now(credentials, "imap") is None  # it is not remembered
    assert await world.auth.authenticate(credentials, "imap", "192.0.2.1") is None
    assert last(world)[1]["reason"] == "another one-time code"
    assert world.learned == []


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("right", "another password"),
        ("right000000", "another one-time code"),
        ("wrong" + code(), "another password"),
        ("right" + code(2), "another one-time code"),
        ("right" + code(-2), "another one-time code"),
        (code(), "another password"),
        ("right" + code() + " ", "another password"),
    ],
)
async def test_without_the_right_code_nothing_opens(rich, password, reason):
    world = rich()
    world.credentials.totps[1] = Totp(SECRET, 0, 0)
    assert await world.auth.authenticate(Credentials("user", password), "imap", "192.0.2.1") is None
    assert world.slept == [2.0]
    assert last(world)[1]["reason"] == reason
    assert world.credentials.totps[1].last_step == 0


async def test_codes_are_not_guessed_from_many_addresses(rich):
    world = rich()
    world.credentials.totps[1] = Totp(SECRET, 0, 0)
    wrong, right = Credentials("user", "right" + code(9)), Credentials("user", "right" + code())
    for number in range(ONE_TIME_CODES - 1):
        assert await world.auth.authenticate(wrong, "imap", f"192.0.2.{number}") is None
    for number in range(20):  # who does not know the password shuts nobody out
        assert await world.auth.authenticate(Credentials("user", "wrong000000"), "imap", f"192.0.2.{number}") is None
    assert (await world.auth.authenticate(right, "imap", "192.0.2.1")).id == 1
    world.credentials.totps[1] = Totp(SECRET, 0, 0)
    for number in range(ONE_TIME_CODES):
        assert await world.auth.authenticate(wrong, "imap", f"198.51.100.{number}") is None
        assert last(world)[1]["reason"] == "another one-time code"
    assert await world.auth.authenticate(right, "imap", "203.0.113.1") is None
    assert last(world)[1]["reason"] == "too many one-time codes were tried"
    world.credentials.app[1, "app"] = AppPassword("phone", (), 0)
    assert (await world.auth.authenticate(Credentials("user", "app"), "imap", "203.0.113.1")).id == 1


async def test_a_password_that_was_remembered_does_not_open_once_codes_are_wanted(rich):
    world = rich()
    plain = Credentials("user", "right")
    assert (await world.auth.authenticate(plain, "imap", "192.0.2.1")).id == 1
    assert world.auth.try_now(plain, "imap").id == 1
    world.credentials.totps[1] = Totp(SECRET, 0, 0)
    assert world.auth.try_now(plain, "imap") is None


async def test_app_passwords_and_tokens_need_no_code_and_a_proof_opens_nothing(rich):
    world = rich()
    world.credentials.totps[1] = Totp(SECRET, 0, 0)
    world.credentials.app[1, "app"] = AppPassword("phone", (), 0)
    assert world.auth.try_now(Credentials("user", "app"), "imap").id == 1
    assert world.auth.opened_by(Credentials("user", "app")) == b"mark"
    assert world.auth.opened_by(Credentials("user", "right")) == b""
    token = Credentials("user", "good", "", "OAUTHBEARER", token=True)
    assert (await world.auth.authenticate(token, "imap", "192.0.2.1")).id == 1
    world.credentials.scram[1, "right"] = {"SCRAM-SHA-256": derive("SCRAM-SHA-256", "right", b"salt")}
    _, step = prove(world, "user@example.test", "right")
    assert await world.auth.authenticate(step, "imap", "192.0.2.1") is None
    assert last(world)[1]["reason"] == "a one-time code is needed"


async def _by_certificate(world, certified, response=b""):
    """The account that a certificate's name opens, through the whole exchange."""
    allowed = world.auth.mechanisms(True, False, certified)
    step = world.auth.exchange(allowed, certified).start("EXTERNAL", response)
    return await world.auth.authenticate(step, "imap", "192.0.2.1") if isinstance(step, Credentials) else step


async def test_external_needs_a_certificate_and_opens_its_account_alone(pool):
    world = World(pool, mechanisms=("PLAIN", "EXTERNAL"))
    assert world.auth.mechanisms(True, False) == ("PLAIN",)
    assert world.auth.mechanisms(True, False, "user") == ("PLAIN", "EXTERNAL")
    for certified, response in (("user", b""), ("USER@example.test", b""), ("user", b"user@example.test")):
        assert (await _by_certificate(world, certified, response)).id == 1
    assert world.counted("EXTERNAL", "success") == 3
    for certified, response in (("off", b""), ("nobody", b""), ("user", b"off@example.test"), ("off", b"user")):
        assert await _by_certificate(world, certified, response) is None
    assert world.counted("EXTERNAL", "failure") == 4
    assert world.slept and not world.hashes
    assert (await _by_certificate(world, "", b"user")).code == "mechanism"
    for response in (b"user\0", b"\xff", b"x\0user\0right"):
        assert (await _by_certificate(world, "user", response)).code == "syntax"


async def test_a_certificate_opens_another_account_only_for_a_master_user(pool):
    world = World(
        pool,
        mechanisms=("EXTERNAL",),
        auth_master_users=("boss@example.test",),
        auth_master_user_separator="*",
    )
    world.accounts.known["boss@example.test"] = Account(9, "boss@example.test", "x")
    assert (await _by_certificate(world, "boss", b"user@example.test")).id == 1
    assert ("auth.master", {"service": "imap", "master": "boss@example.test", "account": "user@example.test"}) in (
        world.log.events
    )
    assert await _by_certificate(world, "boss", b"off@example.test") is None
    # Whoever may choose a name in a certificate is no master user by writing one behind a separator.
    assert await _by_certificate(world, "user*boss@example.test") is None
    assert await _by_certificate(world, "user@example.test*boss@example.test") is None
