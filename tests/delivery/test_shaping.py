"""Traffic rules: what they count together, who waits, and that nobody starves; Postfix's limits of each transport."""

import asyncio
import heapq
import os
import random
from itertools import pairwise
from types import SimpleNamespace

import pytest

from fastmta.config.load import parse_all
from fastmta.config.shaping import ShapingConfig
from fastmta.delivery.shaping import Grant, Rule, Shaping, spread
from fastmta.dns.mx import Address
from fastmta.policy.limits import local_table
from tests.support.dns_stub import DnsStub
from tests.support.smtp_sink import SmtpSink

SEEDS = 2_000 if os.environ.get("FASTMTA_LONG") else 60


@pytest.mark.parametrize("per_hour", [1, 2, 7, 59, 60, 359, 360, 361, 1000, 3599, 3600, 3601, 100_000])
def test_an_hours_budget_is_cut_into_pieces_that_never_are_more(per_hour):
    most, seconds = spread(per_hour)
    assert most >= 1 and most * (3600 / seconds) <= per_hour
    assert most * (3600 / seconds) >= per_hour * 0.95 or per_hour < 60


@pytest.mark.parametrize(
    ("patterns", "hop", "named"),
    [
        (("b.test",), "b.test", True),
        (("B.test",), "b.TEST", True),
        (("b.test",), "b.test:2525", True),
        (("b.test",), "x.b.test", False),
        ((".b.test",), "x.b.test", True),
        ((".b.test",), "b.test", False),
        (("127.0.0.1",), "[127.0.0.1]:25", True),
        (("[127.0.0.1]:25",), "[127.0.0.1]:25", True),
        (("[127.0.0.1]:25",), "[127.0.0.1]:26", False),
        (("*",), "anything.test", True),
    ],
)
def test_the_hops_that_a_rule_names(patterns, hop, named):
    assert Rule(ShapingConfig(domain=patterns), local_table(), lambda: 0.0).names(hop) is named


def test_a_rule_for_all_hosts():
    assert Rule(ShapingConfig(mx=("*",)), local_table(), lambda: 0.0).names_host("mx.any.test")


def test_addresses_of_ours_are_taken_by_their_weight():
    config = ShapingConfig(domain=("*",), source_addresses=("192.0.2.1 weight=3", "192.0.2.2", "2001:db8::1"))
    rule = Rule(config, local_table(), lambda: 0.0)
    taken = [rule.sources_for("198.51.100.1")[0].ip for _ in range(8)]
    assert taken.count("192.0.2.1") == 6 and taken.count("192.0.2.2") == 2
    assert [source.ip for source in rule.sources_for("2001:db8::2")] == ["2001:db8::1"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[shaping]]\nconcurrency = 1\n", "names no hops"),
        ('[[shaping]]\ndomain = ["a.test"]\nsource_addresses = ["nobody"]\n', "expected an address"),
        ('[[shaping]]\ndomain = ["a.test"]\nsource_addresses = ["192.0.2.1 weight=0"]\n', "expected an address"),
        ('[[shaping]]\ndomain = ["a.test"]\nper = "source"\n', "needs source_addresses"),
        ('[[shaping]]\ndomain = ["a.test"]\nrate = 3\n', "unknown key"),
        ('[[shaping]]\ndomain = ["a.test"]\nconcurrency = -1\n', "rule 1: concurrency"),
        ('[[shaping]]\ndomain = ["a.test"]\nmessages_per_second = 5000000000\n', "rule 1: messages_per_second"),
        ('[[shaping]]\ndomain = ["a.test"]\nmessages_per_hour = 5000000000\n', "rule 1: messages_per_hour"),
        ('[[shaping]]\ndomain = ["*.a.test"]\n', "fits nothing"),
        ('[[shaping]]\nmx = ["a.test, b.test"]\n', "fits nothing"),
        ('[[shaping]]\nmx = ["."]\n', "fits nothing"),
        ('[[shaping]]\ndomain = ["a.test"]\n' * 2, "rule 2: would be counted together"),
        ("[shaping]\nconcurrency = 1\n", "[[shaping]]"),
    ],
)
def test_rules_that_cannot_be_are_errors(text, says):
    config, problems = parse_all(text, base="/", name="f")
    assert config is None and says in problems[0].text


def test_each_transport_has_postfixs_limits_and_the_defaults_where_it_says_none():
    text = "[delivery]\ndefault_destination_concurrency_limit = 7\nlmtp_destination_concurrency_limit = 2\n"
    config, _ = parse_all(text + 'default_destination_rate_delay = "2s"\n', base="/", name="f")
    delivery = config.delivery
    assert (delivery.smtp_destination_concurrency_limit, delivery.lmtp_destination_concurrency_limit) == (7, 2)
    assert (delivery.smtp_destination_recipient_limit, delivery.smtp_destination_rate_delay) == (50, 2.0)


# --- the simulation: hops with mail for one provider, under a virtual clock ---


class World:
    """A virtual clock, and what is to happen at which moment."""

    def __init__(self):
        self.now = 1000.0
        self._events = []
        self._count = 0

    def monotonic(self):
        return self.now

    def call_soon(self, call, *arguments):
        self.after(0.0, call, *arguments)

    def after(self, seconds, call, *arguments):
        self._count += 1
        heapq.heappush(self._events, (self.now + seconds, self._count, call, arguments))

    def run(self, until):
        while self._events and self._events[0][0] <= until:
            self.now, _, call, arguments = heapq.heappop(self._events)
            call(*arguments)
        self.now = until


class SimulatedHop:
    """As much of a RemoteHop as rules know: it opens connections, sends over them, and rests or closes them."""

    def __init__(self, world, shaping, name, backlog, chance, seen):
        self.hop, self.hop_text = f"smtp:{name}".encode(), f"smtp:{name}"
        self.service = SimpleNamespace(loop=world)
        self._world, self._chance, self._seen = world, chance, seen
        self.backlog, self.sent, self.open, self.idle = backlog, [], 0, []
        self.window = chance.randint(1, 20)
        self.has_turn = False
        self.shaper = shaping.of(self)

    @property
    def wants_to_send(self):
        return self.backlog > 0

    def pump(self):
        while self.backlog:
            if self.idle:
                if not self.shaper.may_begin(self.idle[-1]):
                    return
                self._send(self.idle.pop(), 1)
            elif self.open < self.window:
                grant = self.shaper.may_connect()
                if grant is None:
                    return
                if not self.shaper.may_dial(grant, Address("mx.provider.test", "192.0.2.9", 25)):
                    grant.release()
                    return
                self.open += 1
                self._seen.opened(+1)
                self._send(grant, 1)
            else:
                return

    def _send(self, grant, number):
        self.backlog -= 1
        self.sent.append(self._world.now)
        self._seen.message(self._world.now)
        self._world.after(self._chance.uniform(0.01, 3.0), self._sent, grant, number)

    def _sent(self, grant, number):
        if self.backlog and number < 100 and self.shaper.may_begin(grant):
            self._send(grant, number + 1)
        elif number >= 100 or self.shaper.others_wait or self._chance.random() < 0.1:
            self._close(grant)
        else:
            self.idle.append(grant)
            self._world.after(10.0, self._rested, grant)
        self.pump()

    def _rested(self, grant):
        if grant in self.idle:
            self.idle.remove(grant)
            self._close(grant)

    def _close(self, grant):
        self.open -= 1
        self._seen.opened(-1)
        grant.release()

    def close_idle(self):
        if not self.idle:
            return False
        self._close(self.idle.pop(0))
        return True


class Seen:
    def __init__(self):
        self.open = self.most_open = 0
        self.messages = []

    def opened(self, by):
        self.open += by
        self.most_open = max(self.most_open, self.open)

    def message(self, at):
        self.messages.append(at)

    def most_in(self, seconds):
        """The most messages of any window of so many whole seconds that begins with one."""
        most = start = 0
        for end, at in enumerate(self.messages):
            while int(at) - int(self.messages[start]) >= seconds:
                start += 1
            most = max(most, end - start + 1)
        return most


@pytest.mark.parametrize("seed", range(SEEDS))
def test_limits_are_never_exceeded_and_nobody_starves(seed):
    chance = random.Random(seed)
    config = ShapingConfig(
        name="provider",
        mx=(".provider.test",),
        concurrency=chance.choice([0, 1, 2, 5]),
        messages_per_second=chance.choice([0, 1, 4]),
        messages_per_hour=chance.choice([0, 0, 600, 3600, 7200]),
    )
    second = ShapingConfig(name="all", domain=("*",), concurrency=chance.choice([3, 30]))
    world, seen = World(), Seen()
    shaping = Shaping([config, second], local_table, world)
    heavy = chance.randint(1, 3)
    hops = [
        SimulatedHop(world, shaping, f"d{n}.test", 5_000 if n < heavy else chance.randint(1, 5), chance, seen)
        for n in range(chance.randint(heavy + 1, 12))
    ]

    def tick():
        shaping.tick()
        for hop in hops:
            hop.pump()
        world.after(1.0, tick)

    chance.shuffle(hops)
    tick()
    world.run(world.now + 1200.0)
    rate = config.messages_per_second
    assert seen.most_open <= min(config.concurrency or 10_000, second.concurrency)
    if rate:
        assert seen.most_in(1) <= rate
    if config.messages_per_hour:
        most, seconds = spread(config.messages_per_hour)
        assert len(seen.messages) <= most * (1200 // seconds + 1)
    # The small ones are through though others have more than can be sent, and no two hops of endless mail differ much.
    hops.sort(key=lambda hop: int(hop.hop_text[6:-5]))
    for hop in hops[heavy:]:
        assert not hop.backlog, (hop.hop_text, hop.backlog, config)
    for hop in hops[:heavy]:
        until = [world.now] if hop.backlog else []
        assert hop.sent and max(b - a for a, b in pairwise([*hop.sent, *until])) < 600
    for hop in hops:
        assert hop.open >= 0


def test_what_a_grant_held_is_free_again():
    world = World()
    shaping = Shaping([ShapingConfig(domain=("*",), concurrency=1)], local_table, world)
    one, other = [SimulatedHop(world, shaping, name, 1, random.Random(1), Seen()) for name in ("a.test", "b.test")]
    grant = one.shaper.may_connect()
    assert isinstance(grant, Grant) and other.shaper.may_connect() is None
    assert other.shaper.reason == "rule *: 1 connections are open"
    grant.release()
    grant.release()  # twice is once
    assert other.shaper.may_connect() is not None


@pytest.mark.parametrize("budget", [{"messages_per_second": 1}, {"messages_per_hour": 3600}])
@pytest.mark.parametrize("other", [{"messages_per_hour": 1}, {"concurrency": 1}])
def test_what_one_rule_refuses_costs_no_other_rule_anything(budget, other):
    """A hop that waits for a narrow rule must not use up what all hops share."""
    world = World()
    rules = [ShapingConfig(name="all", domain=("*",), **budget), ShapingConfig(domain=("narrow.test",), **other)]
    shaping = Shaping(rules, local_table, world)
    narrow, wide = [
        SimulatedHop(world, shaping, f"{name}.test", 99, random.Random(1), Seen()) for name in ("narrow", "w")
    ]
    assert narrow.shaper.may_connect() is not None
    for _ in range(5):
        world.now += 2
        assert narrow.shaper.may_connect() is None
        narrow.shaper.leave()
        assert wide.shaper.may_connect() is not None


@pytest.mark.parametrize("address", [Address("mx.b.test", "2001:db8::1", 25), Address("", "/run/lmtp", 0)])
def test_a_rule_of_sources_that_has_none_for_an_address_stops_nothing(address):
    rules = [ShapingConfig(domain=("*",), per="source", concurrency=1, source_addresses=("192.0.2.1",))]
    world = World()
    one, other = [
        SimulatedHop(world, shaping, name, 1, random.Random(1), Seen())
        for shaping in [Shaping(rules, local_table, world)]
        for name in ("a.test", "b.test")
    ]
    grants = [hop.shaper.may_connect() for hop in (one, other)]
    assert one.shaper.may_dial(grants[0], address) and grants[0].source is None
    assert not other.shaper.may_dial(grants[1], address)  # the system's own address counts for itself


def test_a_rule_of_sources_counts_the_address_that_another_rule_has_chosen():
    rules = [
        ShapingConfig(domain=("*",), source_addresses=("192.0.2.1",)),
        ShapingConfig(domain=("b.test",), per="source", concurrency=1, source_addresses=("192.0.2.2",)),
    ]
    world = World()
    hop = SimulatedHop(world, Shaping(rules, local_table, world), "b.test", 1, random.Random(1), Seen())
    grant = hop.shaper.may_connect()
    assert hop.shaper.may_dial(grant, Address("mx.b.test", "198.51.100.1", 25)) and grant.source.ip == "192.0.2.1"


def test_a_place_is_kept_for_the_next_address_and_given_back_once():
    rules = [ShapingConfig(domain=("*",), per="source", concurrency=1, source_addresses=("192.0.2.1", "2001:db8::9"))]
    world = World()
    hop = SimulatedHop(world, Shaping(rules, local_table, world), "b.test", 9, random.Random(1), Seen())
    for _ in range(3):
        grant = hop.shaper.may_connect()
        for ip in ("198.51.100.1", "198.51.100.2", "2001:db8::1", "198.51.100.3"):
            assert hop.shaper.may_dial(grant, Address("mx.b.test", ip, 25))
        grant.release()


def test_messages_that_a_second_refuses_are_not_counted_in_the_hour():
    world = World()
    rule = Rule(
        ShapingConfig(domain=("*",), messages_per_second=2, messages_per_hour=7200 - 200),
        local_table(),
        world.monotonic,
    )
    most, seconds = spread(7000)
    sent = 0
    for _ in range(seconds):
        sent += sum(not rule.take(0) for _ in range(10))
        world.now += 1
    assert sent >= min(most, 2 * seconds) - 2


# --- over sockets ---

MX = {"MX": [(10, "mx.provider.test")]}
ZONES = {"b.test": MX, "c.test": MX, "d.test": MX, "mx.provider.test": {"A": ["127.0.0.1"]}}


def shaped(rig_maker, dns, sink, *rules, **more):
    return rig_maker(nameservers=(dns.address,), allow_loopback_mx=True, smtp_tcp_port=sink.port, shaping=rules, **more)


async def step(rig):
    """A second goes by, and what it let begin has a moment to go on."""
    rig.tick(1)
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_domains_of_a_provider_count_together(make_rig):
    async with SmtpSink() as sink, DnsStub(ZONES) as dns:
        rig = shaped(make_rig, dns, sink, ShapingConfig(mx=(".provider.test",), concurrency=2))
        for n in range(30):
            for domain in (b"b.test", b"c.test", b"d.test"):
                await rig.queue(b"smtp:" + domain, b"u%d@%b" % (n, domain))
        while len(sink.messages) < 90:
            await step(rig)
        assert sink.most_open <= 2
        for domain in (b"b.test", b"c.test", b"d.test"):
            assert sum(domain in message.recipients[0] for message in sink.messages) == 30


async def test_messages_a_second_hold_over_reload_and_are_said(make_rig):
    async with SmtpSink() as sink, DnsStub(ZONES) as dns:
        rig = shaped(make_rig, dns, sink, ShapingConfig(name="slow", domain=("b.test",), messages_per_second=3))
        for n in range(10):
            await rig.queue(b"smtp:b.test", b"u%d@b.test" % n)
        await rig.until(lambda: len(sink.messages) == 3)
        (state,) = rig.service.hops([b"smtp:b.test"])
        assert state["shaped"] == "rule slow: 3 messages a second"
        rig.service.reload()
        await rig.queue(b"smtp:b.test", b"last@b.test")
        assert len(sink.messages) == 3
        rig.tick(1)
        await rig.until(lambda: len(sink.messages) == 6)
        rig.tick(1)
        rig.tick(1)
        await rig.until(lambda: len(sink.messages) >= 9)


async def test_recipients_and_messages_a_connection(make_rig):
    async with SmtpSink() as sink, DnsStub(ZONES) as dns:
        rule = ShapingConfig(domain=("b.test",), concurrency=1, messages_per_connection=2, recipients_per_message=3)
        rig = shaped(make_rig, dns, sink, rule)
        await rig.queue(b"smtp:b.test", *[b"u%d@b.test" % n for n in range(18)])
        while len(sink.messages) < 6:
            await step(rig)
        assert all(len(message.recipients) == 3 for message in sink.messages) and sink.connections == 3


async def test_connections_come_from_the_addresses_of_the_pool(make_rig):
    async with SmtpSink() as sink, DnsStub(ZONES) as dns:
        pool = ("127.0.0.2 helo=two.a.test", "127.0.0.3 helo=three.a.test")
        rule = ShapingConfig(
            domain=("b.test",), source_addresses=pool, messages_per_connection=1, per="source", concurrency=1
        )
        rig = shaped(make_rig, dns, sink, rule)
        for n in range(8):
            await rig.queue(b"smtp:b.test", b"u%d@b.test" % n)
        while len(sink.messages) < 8:
            await step(rig)
        # One at a time from each address: which of the two is free first, when one has ended, the machine decides.
        greetings = [line for line in sink.commands if line.startswith(b"EHLO")]
        assert set(greetings) == {b"EHLO two.a.test", b"EHLO three.a.test"}
        assert len(greetings) == 8
        assert sink.most_open <= 2


async def test_a_rate_delay_makes_deliveries_one_at_a_time(make_rig):
    async with SmtpSink() as sink, DnsStub(ZONES) as dns:
        rig = shaped(make_rig, dns, sink, smtp_destination_rate_delay=1000.0)
        for n in range(3):
            await rig.queue(b"smtp:b.test", b"u%d@b.test" % n)
        for sent in (1, 2, 3):
            await rig.until(lambda sent=sent: len(sink.messages) == sent)
            await rig.until(lambda sent=sent: rig.count("smtp", "delivered") == sent)
            rig.tick(1)
            assert len(sink.messages) == sent and sink.most_open == 1
            rig.tick(1000)


async def test_a_rate_delay_holds_behind_a_delivery_that_was_broken_off(make_rig):
    async with SmtpSink(replies={"RCPT": ["421 4.3.2 Shutting down"] * 9}) as sink, DnsStub(ZONES) as dns:
        settings = {"smtp_destination_rate_delay": 1000.0, "smtp_destination_concurrency_failed_cohort_limit": 0}
        rig = shaped(make_rig, dns, sink, **settings)
        for n in range(3):
            await rig.queue(b"smtp:b.test", b"u%d@b.test" % n)
        for tried in (1, 2, 3):
            await rig.until(lambda tried=tried: rig.count("smtp", "deferred") == tried)
            rig.tick(1)
            await asyncio.sleep(0)
            assert sum(line.startswith(b"MAIL") for line in sink.commands) == tried
            rig.tick(1000)


async def test_a_rate_delay_holds_while_nothing_is_to_be_sent(make_rig):
    async with SmtpSink() as sink, DnsStub(ZONES) as dns:
        rig = shaped(make_rig, dns, sink, smtp_destination_rate_delay=1000.0)
        await rig.gone(await rig.queue(b"smtp:b.test", b"u1@b.test"))
        for owner in rig.service._owners.values():
            while owner.close_idle():
                pass
        await rig.until(lambda: not rig.service.connections)
        rig.tick(1)
        second = await rig.queue(b"smtp:b.test", b"u2@b.test")
        rig.tick(1)
        await rig.until(lambda: any(owner.ready for owner in rig.service._owners.values()))
        assert len(sink.messages) == 1
        rig.tick(1000)
        await rig.gone(second)
