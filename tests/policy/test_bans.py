"""Who is banned for failures, and for how long; networks; what is ignored."""

from types import SimpleNamespace

import pytest

from fastmta.policy.bans import Bans, canonical
from fastmta.policy.limits import local_table
from fastmta.runtime.clock import ManualClock
from fastmta.store import MailStore


class Log:
    def __init__(self):
        self.lines = []

    def warning(self, event, /, **fields):
        self.lines.append((event, fields))


@pytest.fixture
def world(tmp_path):
    clock = ManualClock()
    store = MailStore.open(tmp_path, sync=False, clock=clock)
    config = SimpleNamespace(ban_maxretry=3, ban_findtime=600.0, ban_bantime=60.0, ban_ignoreip=("10.0.0.0/8",))
    log, waiting = Log(), []
    bans = Bans(store.bans, local_table(), config, log, clock, lambda name, work: waiting.append(work), forgets=True)
    yield SimpleNamespace(bans=bans, store=store, clock=clock, log=log, waiting=waiting, config=config)
    for work in waiting:
        work.close()
    store.close()


async def drain(world):
    while world.waiting:
        await world.waiting.pop(0)


async def look(world):
    world.bans.look()
    await drain(world)


async def test_three_failures_in_the_window_ban_for_a_while(world):
    for _ in range(2):
        world.bans.failed("192.0.2.1", "login failed")
    assert not world.bans.is_banned("192.0.2.1")
    world.clock.advance(601)
    for _ in range(2):
        world.bans.failed("192.0.2.1", "login failed")
    assert not world.bans.is_banned("192.0.2.1"), "the first two are too long ago"
    world.bans.failed("192.0.2.1", "too many errors")
    assert world.bans.is_banned("192.0.2.1") and not world.bans.is_banned("192.0.2.2")
    assert [event for event, _ in world.log.lines] == ["ban.added"]
    await drain(world)
    await look(world)
    assert world.bans.is_banned("192.0.2.1")
    world.clock.advance(61)
    await look(world)
    assert not world.bans.is_banned("192.0.2.1")
    await drain(world)
    assert world.store.bans.all() == []


async def test_an_ipv6_client_is_its_64(world):
    for number in range(3):
        world.bans.failed(f"2001:db8:0:1::{number}", "login failed")
    assert world.bans.is_banned("2001:db8:0:1:ffff::1") and not world.bans.is_banned("2001:db8:0:2::1")
    await drain(world)
    assert [ban.network for ban in world.store.bans.all()] == ["2001:db8:0:1::/64"]


async def test_ignored_addresses_and_no_addresses_are_left_alone(world):
    for ip in ("10.1.2.3", "", "nonsense"):
        for _ in range(5):
            world.bans.failed(ip, "login failed")
        assert not world.bans.is_banned(ip)
    world.config.ban_maxretry = 0
    for _ in range(5):
        world.bans.failed("192.0.2.1", "login failed")
    assert not world.bans.is_banned("192.0.2.1")


async def test_what_another_process_bans_is_obeyed_after_a_look(world):
    await world.store.bans.add("192.0.2.0/24", 0, "", "root")
    assert not world.bans.is_banned("192.0.2.1")
    await look(world)
    assert world.bans.is_banned("192.0.2.1") and world.bans.is_banned("::ffff:192.0.2.1")
    await world.store.bans.remove(["192.0.2.0/24"])
    await look(world)
    assert not world.bans.is_banned("192.0.2.1")


async def test_bans_of_a_flood_go_to_the_store_together_and_others_read_them(world):
    world.bans.look()
    await drain(world)
    world.config.ban_maxretry = 1
    committed = world.store.bans.version
    for n in range(500):
        world.bans.failed(f"192.0.{n // 250}.{n % 250}", "too many errors")
    assert world.bans.is_banned("192.0.1.249")
    await drain(world)
    world.clock.advance(1)
    await look(world)
    assert len(world.store.bans.all()) == 500 and world.store.bans.version <= committed + 2
    other = Bans(world.store.bans, local_table(), world.config, world.log, world.clock, lambda *_: None, forgets=False)
    other.look()
    assert other.is_banned("192.0.1.249") and not other.is_banned("192.0.1.250")


async def test_so_many_are_banned_for_failures_and_not_one_more(world, monkeypatch):
    for module in ("fastmta.policy.bans", "fastmta.store.bans"):
        monkeypatch.setattr(f"{module}.BANS", 20)
    world.bans.look()
    world.config.ban_maxretry = 1
    for n in range(50):
        world.bans.failed(f"192.0.2.{n}", "too many errors")
    assert [world.bans.is_banned(f"192.0.2.{n}") for n in (19, 20)] == [True, False]
    await drain(world)
    world.clock.advance(1)
    await look(world)
    assert len(world.store.bans.all()) == 20
    world.clock.advance(61)
    await look(world)
    world.bans.failed("192.0.2.49", "too many errors")
    assert world.bans.is_banned("192.0.2.49"), "there is room again"


def test_networks_have_one_form():
    assert canonical("192.0.2.77/24") == "192.0.2.0/24"
    assert canonical("[2001:DB8::1]") == "2001:db8::1"
    with pytest.raises(ValueError, match="does not appear"):
        canonical("example.org")
