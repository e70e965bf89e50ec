"""From a domain to addresses: preference, families, the null MX, loops, and every kind of broken name server."""

import asyncio
import random
import socket

import pytest

from fastmta.config.delivery_keys import DeliveryConfig
from fastmta.dns.cache import TtlCache
from fastmta.dns.mx import Address, MxLookup, Ourselves, _balance, is_internal, is_private, native_addresses
from fastmta.dns.resolver import LookupTrouble, NotFound, Resolver, _endpoint
from fastmta.model.errors import PermanentFailure, TemporaryFailure
from fastmta.runtime.clock import ManualClock
from tests.support.dns_stub import REFUSED, SERVFAIL, TIMEOUT, DnsStub

ZONES = {
    "good.test": {"MX": [(20, "b.good.test"), (10, "a.good.test")]},
    "a.good.test": {"A": ["192.0.2.1"], "AAAA": ["2001:db8::1"]},
    "b.good.test": {"A": ["192.0.2.2"]},
    "implicit.test": {"A": ["192.0.2.3"]},
    "null.test": {"MX": [(0, ".")]},
    "alias.test": {"CNAME": "good.test"},
    "servfail.test": SERVFAIL,
    "refused.test": REFUSED,
    "silent.test": TIMEOUT,
    "loop1.test": {"CNAME": "loop2.test"},
    "loop2.test": {"CNAME": "loop1.test"},
    "many.test": {"MX": [(10, f"m{n}.many.test") for n in range(512)]},
    **{f"m{n}.many.test": {"A": [f"198.51.100.{n % 250 + 1}"]} for n in range(512)},
    "loopback.test": {"MX": [(10, "lo.test")]},
    "lo.test": {"A": ["127.0.0.1"]},
    "zero.test": {"A": ["0.0.0.0"]},
    "private.test": {"A": ["10.1.2.3"]},
    "nohost.test": {"MX": [(10, "missing.test")]},
    "halfbroken.test": {"MX": [(10, "servfail.test"), (20, "b.good.test")]},
    "brokenhost.test": {"MX": [(10, "servfail.test")]},
    "us.test": {"MX": [(10, "a.good.test"), (20, "b.good.test")]},
    "v4only.test": {"A": ["192.0.2.9"], "AAAA": SERVFAIL},
}


@pytest.fixture
async def stub():
    async with DnsStub(ZONES) as stub:
        yield stub


@pytest.fixture
async def resolver(stub):
    """Takes its time, for an answer may take long to make on a busy machine."""
    resolver = Resolver([stub.address], monotonic=ManualClock().monotonic, query_timeout_s=20, lookup_timeout_s=60)
    yield resolver
    await resolver.close()


def lookup(resolver, listeners=(), *, shuffle=random.shuffle, **settings):
    return MxLookup(resolver, Ourselves(listeners), DeliveryConfig(**settings), shuffle=shuffle)


async def test_hosts_go_by_preference_with_both_families(resolver):
    found = await lookup(resolver).by_mx("good.test", 25)
    assert [(a.host, a.ip) for a in found] == [
        ("a.good.test", "2001:db8::1"),
        ("a.good.test", "192.0.2.1"),
        ("b.good.test", "192.0.2.2"),
    ]


async def test_without_mx_the_domain_itself_is_the_host(resolver):
    assert [a.ip for a in await lookup(resolver).by_mx("implicit.test", 25)] == ["192.0.2.3"]


async def test_an_alias_of_a_domain_is_followed(resolver):
    assert (await lookup(resolver).by_mx("alias.test", 25))[0].host == "a.good.test"


@pytest.mark.parametrize(
    ("domain", "error", "enhanced"),
    [
        ("null.test", PermanentFailure, "5.1.10"),
        ("nosuch.test", PermanentFailure, "5.4.4"),
        ("nohost.test", PermanentFailure, "5.4.4"),
        ("loop1.test", PermanentFailure, "5.4.4"),
        ("loopback.test", PermanentFailure, "5.4.4"),
        ("zero.test", PermanentFailure, "5.4.4"),
        ("servfail.test", TemporaryFailure, "4.4.3"),
        ("refused.test", TemporaryFailure, "4.4.3"),
        ("brokenhost.test", TemporaryFailure, "4.4.3"),
    ],
)
async def test_what_cannot_be_reached_says_whether_later_helps(resolver, domain, error, enhanced):
    with pytest.raises(error) as caught:
        await lookup(resolver).by_mx(domain, 25)
    assert caught.value.reply.enhanced == enhanced


async def test_a_server_that_says_nothing_is_asked_again_later(stub):
    hasty = Resolver([stub.address], monotonic=ManualClock().monotonic, query_timeout_s=0.02, lookup_timeout_s=0.03)
    with pytest.raises(TemporaryFailure) as caught:
        await lookup(hasty).by_mx("silent.test", 25)
    assert caught.value.reply.enhanced == "4.4.3"
    await hasty.close()


async def test_a_private_mx_is_taken_but_for_mail_with_the_null_sender(resolver):
    (found,) = await lookup(resolver).by_mx("private.test", 25)
    assert (found.ip, found.private) == ("10.1.2.3", True)
    with pytest.raises(PermanentFailure) as caught:
        await lookup(resolver).by_mx("private.test", 25, null_sender=True)
    assert caught.value.reply.enhanced == "5.4.4"
    (found,) = await lookup(resolver, allow_loopback_mx=True).by_mx("private.test", 25, null_sender=True)
    assert not found.private


@pytest.mark.parametrize(
    ("ip", "private"),
    [("10.0.0.1", True), ("172.16.0.1", True), ("172.32.0.1", False), ("192.168.9.9", True), ("fd00::1", True),
     ("::ffff:10.0.0.1", True), ("64:ff9b::10.0.0.1", True), ("2002:a00:1::1", True), ("64:ff9b::192.0.2.1", False),
     ("2001:db8::10.0.0.1", False), ("127.0.0.1", False), ("169.254.1.1", False), ("192.0.2.1", False)],
)  # fmt: skip
def test_what_is_private(ip, private):
    assert is_private(ip) is private


@pytest.mark.parametrize("ip", ["64:ff9b::127.0.0.1", "64:ff9b::169.254.169.254", "2002:7f00:1::", "::ffff:0.0.0.0"])
def test_what_stands_for_an_internal_address_is_internal(ip):
    assert is_internal(ip)


async def test_a_broken_better_host_does_not_hide_the_next(resolver):
    assert [a.ip for a in await lookup(resolver).by_mx("halfbroken.test", 25)] == ["192.0.2.2"]


async def test_trouble_with_one_family_does_not_hide_the_other(resolver):
    assert [a.ip for a in await lookup(resolver).by_mx("v4only.test", 25)] == ["192.0.2.9"]


async def test_512_mx_come_over_tcp_and_five_addresses_are_tried(stub, resolver):
    found = await lookup(resolver).by_mx("many.test", 25)
    assert stub.tcp_queries >= 1
    assert len(found) == 5
    assert sum(count for (name, _), count in stub.queries.items() if name.endswith(".many.test")) <= 40


async def test_the_order_within_a_preference_is_shuffled(resolver):
    found = await lookup(resolver, shuffle=lambda hosts: hosts.sort(reverse=True)).by_mx("many.test", 25)
    assert found[0].host == "m99.many.test"


@pytest.mark.parametrize(
    ("wanted", "ips"),
    [
        ("ipv4", ["192.0.2.1", "2001:db8::1", "192.0.2.2"]),
        ("ipv6", ["2001:db8::1", "192.0.2.1", "192.0.2.2"]),
    ],
)
async def test_the_preferred_family_comes_first_within_a_preference(resolver, wanted, ips):
    found = await lookup(resolver, smtp_address_preference=wanted).by_mx("good.test", 25)
    assert [address.ip for address in found] == ips
    found = await lookup(resolver, smtp_address_preference=wanted).by_name("a.good.test", 25)
    assert [address.ip for address in found] == ips[:2]


async def test_loopback_is_allowed_where_the_administrator_says_so(resolver):
    assert (await lookup(resolver, allow_loopback_mx=True).by_mx("loopback.test", 25))[0].ip == "127.0.0.1"


async def test_our_own_listener_is_never_tried(resolver):
    with pytest.raises(PermanentFailure) as caught:
        await lookup(resolver, ["127.0.0.1:25"], allow_loopback_mx=True).by_mx("loopback.test", 25)
    assert caught.value.reply.enhanced == "5.4.6"
    with pytest.raises(PermanentFailure):
        await lookup(resolver, ["0.0.0.0:25"], allow_loopback_mx=True).by_mx("loopback.test", 25)
    assert await lookup(resolver, ["0.0.0.0:2525"], allow_loopback_mx=True).by_mx("loopback.test", 25)


async def test_only_hosts_better_than_ourselves_remain(resolver):
    assert {a.host for a in await lookup(resolver, ["192.0.2.2:25"]).by_mx("us.test", 25)} == {"a.good.test"}
    with pytest.raises(PermanentFailure):
        await lookup(resolver, ["192.0.2.1:25"]).by_mx("us.test", 25)


async def test_a_named_host_may_be_an_address_or_loopback(resolver):
    assert await lookup(resolver).by_name("127.0.0.1", 2526) == [Address("127.0.0.1", "127.0.0.1", 2526)]
    assert (await lookup(resolver).by_name("lo.test", 25))[0].ip == "127.0.0.1"
    with pytest.raises(PermanentFailure):
        await lookup(resolver, ["127.0.0.1:25"]).by_name("127.0.0.1", 25)
    with pytest.raises(PermanentFailure):
        await lookup(resolver).by_name("nosuch.test", 25)


async def test_answers_are_cached_for_their_ttl(stub):
    clock = ManualClock()
    resolver = Resolver([stub.address], monotonic=clock.monotonic)
    for _ in range(3):
        await resolver.mx("good.test")
        with pytest.raises(NotFound):
            await resolver.mx("nosuch.test")
    assert stub.queries["good.test", "MX"] == stub.queries["nosuch.test", "MX"] == 1
    clock.advance(301)
    await resolver.mx("good.test")
    assert stub.queries["good.test", "MX"] == 2


async def test_trouble_is_not_cached(stub, resolver):
    with pytest.raises(LookupTrouble):
        await resolver.mx("servfail.test")
    stub.zones["servfail.test"] = {"MX": [(5, "a.good.test")]}
    assert await resolver.mx("servfail.test") == ((5, "a.good.test"),)


async def test_the_same_question_at_the_same_time_is_asked_once(stub, resolver):
    await asyncio.gather(*(resolver.mx("good.test") for _ in range(10)))
    assert stub.queries["good.test", "MX"] == 1


async def test_txt_strings_are_joined(stub, resolver):
    stub.zones["t.test"] = {"TXT": ["v=spf1 " + "x" * 300]}
    assert await resolver.txt("t.test") == (b"v=spf1 " + b"x" * 300,)


def test_each_family_keeps_half_of_the_places():
    six = [Address("h", f"2001:db8::{n}", 25) for n in range(1, 9)]
    four = [Address("h", f"192.0.2.{n}", 25) for n in range(1, 9)]
    kept = _balance(six + four, 5)
    assert sum(":" in a.ip for a in kept) == 2 and len(kept) == 5
    assert len(_balance(six + four[:1], 5)) == 5 and _balance(six + four[:1], 5)[-1].ip == "192.0.2.1"
    assert _balance(four, 5) == four[:5]


def test_the_cache_is_bounded_and_the_oldest_leaves():
    cache = TtlCache(ManualClock().monotonic, limit=2)
    for name in "abc":
        cache.put(name, "A", name, 100)
    assert len(cache) == 2 and cache.get("a", "A") is None and cache.get("c", "A") == "c"


def test_nameserver_texts():
    assert _endpoint("127.0.0.1:5353") == ("127.0.0.1", 5353)
    assert _endpoint("[::1]:5353") == ("::1", 5353)
    assert _endpoint("2001:db8::1") == ("2001:db8::1", 53)


@pytest.mark.parametrize("ip", ["127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1", "::ffff:0.0.0.0", "::1", "::", "0:0::1"])
def test_every_spelling_of_a_listener_on_loopback_is_ourselves(ip: str) -> None:
    ourselves = Ourselves(["127.0.0.1:25", "[::1]:25"])
    assert (ip, 25) in ourselves
    assert (ip, 26) not in ourselves


@pytest.mark.parametrize(
    "listener",
    ["localhost:25", "[::ffff:127.0.0.1]:25", "127.1:25", "mx.example.test:25", "[0::0]:25", "[::ffff:0.0.0.0]:25"],
)
def test_a_listener_is_known_however_it_is_written(listener: str) -> None:
    ourselves = Ourselves([listener])
    assert ("127.0.0.1", 25) in ourselves
    assert ourselves.have("127.0.0.1")
    assert ("127.0.0.1", 26) not in ourselves
    assert ("192.0.2.1", 25) not in ourselves
    assert ("::1", 25) in Ourselves(["[0:0:0:0:0:0:0:1]:25"])


async def test_we_are_found_behind_equal_hosts_with_many_addresses(stub, resolver):
    stub.zones["equal.test"] = {"MX": [(10, "big.equal.test"), (10, "us.equal.test"), (20, "far.equal.test")]}
    addresses = {"A": [f"192.0.2.{n}" for n in range(10, 16)], "AAAA": [f"2001:db8::{n}" for n in range(1, 7)]}
    stub.zones["big.equal.test"] = stub.zones["far.equal.test"] = addresses
    stub.zones["us.equal.test"] = {"A": ["198.51.100.25"]}
    with pytest.raises(PermanentFailure) as caught:
        await MxLookup(resolver, Ourselves(["198.51.100.25:25"]), DeliveryConfig(), shuffle=list.sort).by_mx(
            "equal.test", 25
        )
    assert caught.value.reply.enhanced == "5.4.6"
    assert not stub.queries["far.equal.test", "A"]  # enough were found before


def test_other_addresses_of_loopback_are_not_ourselves() -> None:
    assert ("127.0.0.2", 25) not in Ourselves(["127.0.0.1:25"])


async def test_the_system_knows_hosts_that_the_dns_does_not(resolver, monkeypatch):
    async def system(host, port, **_):
        if host == "broken.test":
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        if host not in ("listed.test", "missing.test"):
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return [(0, 0, 0, "", ("198.51.100.7", 0)), (0, 0, 0, "", ("198.51.100.7", 0))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", system)
    both = lookup(resolver, smtp_host_lookup=("dns", "native"))
    assert [a.ip for a in await both.by_name("listed.test", 25)] == ["198.51.100.7"]
    assert [a.ip for a in await both.by_name("b.good.test", 25)] == ["192.0.2.2"]
    assert [a.ip for a in await both.by_mx("nohost.test", 25)] == ["198.51.100.7"]  # the MX is the DNS's
    native = lookup(resolver, smtp_host_lookup=("native",))
    with pytest.raises(PermanentFailure):
        await native.by_name("b.good.test", 25)
    with pytest.raises(TemporaryFailure):
        await native.by_name("broken.test", 25)
    with pytest.raises(TemporaryFailure):  # trouble of the DNS ends the search
        await both.by_name("servfail.test", 25)
    with pytest.raises(PermanentFailure):
        await lookup(resolver).by_name("listed.test", 25)


async def test_the_system_is_asked_for_real():
    assert "127.0.0.1" in await native_addresses("localhost")
