"""The greylist: first tries, second tries, who is known, what is forgotten, and a flood."""

import time
from types import SimpleNamespace

import msgspec
import pytest

from fastmta.config.schema import Config
from fastmta.model.envelope import Resolution
from fastmta.model.reply import Reply
from fastmta.model.stages import Stage
from fastmta.model.verdict import Action
from fastmta.policy.check import Context
from fastmta.policy.checks.greylisting import Greylisting
from fastmta.policy.greylist import FILE, Greylist, sender_key
from fastmta.runtime.clock import ManualClock

BOB = b"bob@example.test"
SETTINGS = {"delay_s": 300, "window_s": 172_800, "age_s": 3_024_000}


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def make(tmp_path, clock):
    def made(**keys) -> Greylisting:
        config = Config(data_directory=str(tmp_path), greylisting=True)
        directory = SimpleNamespace(
            resolve=lambda path, may_relay: Resolution(None if path == BOB else Reply(550, "5.1.1", "nobody"))
        )
        return Greylisting(msgspec.structs.replace(config, **keys), SimpleNamespace(clock=clock, directory=directory))

    return made


def ask(check, ip="192.0.2.1", sender=b"ann@sender.test", recipient=BOB, name="unknown"):
    context = Context(
        stage=Stage.RCPT,
        service="smtp",
        session=1,
        client_ip=ip,
        client_name=name,
        trusted=False,
        tls=False,
        sender=sender,
        recipient=recipient,
    )
    verdict = check.check(context)
    return verdict.action is not Action.DEFER


def test_a_second_try_passes_after_the_delay_and_the_next_at_once(make, clock):
    check = make()
    assert not ask(check)
    clock.advance(299)
    assert not ask(check)
    clock.advance(2)
    assert ask(check, ip="192.0.2.77"), "another host of the same network"
    assert ask(check)
    assert not ask(check, sender=b"eve@sender.test")
    assert not ask(check, ip="192.0.3.1")


def test_the_refusal_says_what_postgrey_says(make):
    context = Context(Stage.RCPT, "smtp", 1, "192.0.2.1", "unknown", False, False, sender=b"", recipient=BOB)
    reply = make().check(context).reply
    assert str(reply) == "450 4.2.0 <bob@example.test>: Recipient address rejected: Greylisted"


def test_a_try_after_the_window_is_a_first_one(make, clock):
    check = make()
    assert not ask(check)
    clock.advance(172_801)
    assert not ask(check)
    clock.advance(301)
    assert ask(check)


def test_who_is_not_seen_for_long_is_forgotten(make, clock):
    check = make(greylist_auto_whitelist_clients=0)
    ask(check)
    clock.advance(301)
    assert ask(check)
    clock.advance(3_024_000)
    assert ask(check), "seen again in time"
    clock.advance(3_024_001)
    assert not ask(check)


def test_a_network_that_passes_often_is_known_but_once_an_hour(make, clock):
    check = make(greylist_auto_whitelist_clients=3)
    for hour in range(3):
        sender = b"s%c@sender.test" % (97 + hour)
        assert not ask(check, sender=sender)
        clock.advance(301)
        for _ in range(5):
            assert ask(check, sender=sender)
        if hour < 2:
            assert not ask(check, sender=b"new%c@sender.test" % (97 + hour))
            clock.advance(3600)
    assert ask(check, sender=b"anybody@sender.test")
    assert not ask(check, ip="192.0.3.1", sender=b"anybody@sender.test")


def test_exceptions_pass(make):
    check = make(
        greylist_whitelist_clients=("198.51.100.0/24", "good.test", "[2001:db8::]/32"),
        greylist_whitelist_recipients=("bob@example.test",),
    )
    assert ask(check), "the recipient"
    check = make(greylist_whitelist_clients=("198.51.100.0/24", "good.test", "[2001:db8::]/32"))
    assert ask(check, ip="198.51.100.9") and ask(check, ip="2001:db8::1") and ask(check, name="mx.good.test")
    assert not ask(check, name="mx.notgood.test")
    assert ask(make(greylist_whitelist_recipients=("example.test",)))
    assert ask(make(greylist_whitelist_recipients=("bob@",)))


def test_nobody_is_put_off_for_a_recipient_who_is_not_there(make):
    assert ask(make(), recipient=b"nobody@example.test")


def test_what_changes_with_each_message_counts_for_nothing():
    assert sender_key("List-Bounces+user=x@Lists.test") == sender_key("list-bounces+other@lists.test")
    assert sender_key("bounce-12-345@lists.test") == sender_key("bounce-7-9@lists.test")
    assert sender_key("SRS0=abcd=XY=a.test=ann@f.test") == sender_key("SRS0=zzzz=AB=a.test=ann@f.test")
    assert sender_key("") == "" and sender_key("ann@a.test") != sender_key("eve@a.test")


def test_it_is_kept_over_restarts_and_shared(tmp_path):
    first = Greylist(tmp_path)
    assert first.wait_s("192.0.2.0", "a@b.test", "c@d.test", now=1000, **SETTINGS) == 300
    second = Greylist(tmp_path)
    assert second.wait_s("192.0.2.0", "a@b.test", "c@d.test", now=1301, **SETTINGS) == 0
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_a_flood_costs_no_memory_and_a_damaged_file_no_start(tmp_path):
    table = Greylist(tmp_path)
    size = (tmp_path / FILE).stat().st_size
    for number in range(100_000):
        table.wait_s(f"net{number}", "a@b.test", "c@d.test", now=1000, **SETTINGS)
    assert (tmp_path / FILE).stat().st_size == size <= 3 << 20
    (tmp_path / FILE).write_bytes(b"\xff" * size)
    again = Greylist(tmp_path)
    again.wait_s("192.0.2.0", "a@b.test", "c@d.test", now=1000, **SETTINGS)
    (tmp_path / FILE).write_bytes(b"x")
    assert Greylist(tmp_path).wait_s("192.0.2.0", "a@b.test", "c@d.test", now=1000, **SETTINGS) == 300


async def test_many_askers_cost_little(make, clock):
    check = make()
    began = time.process_time()
    for number in range(1000):
        ask(check, sender=b"s%d@sender.test" % number)
    assert time.process_time() - began < 2.0
