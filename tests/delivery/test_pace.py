"""The part of a pass that deliveries may take: what fits is done at once, the rest in later passes and in its order."""

import asyncio
from types import SimpleNamespace

import pytest

from fastmta.delivery.service import UNRECORDED
from fastmta.model.envelope import RecipientState
from fastmta.model.limits import DELIVERY_LEAST_S, DELIVERY_PASS_S, DELIVERY_TASK_S, RESULTS_A_PASS
from fastmta.runtime.turns import Pace

PASS, LEAST, TASK = int(DELIVERY_PASS_S * 1e9), int(DELIVERY_LEAST_S * 1e9), int(DELIVERY_TASK_S * 1e9)


class World:
    """A loop whose passes the test makes, and a clock that moves only by work."""

    def __init__(self):
        self.now = 1
        self.ready = []
        self.resumed = 0
        self.pace = Pace(self, self.resume, lambda: self.now)
        self.done = []

    def call_soon(self, callback):
        self.ready.append(callback)

    def resume(self):
        self.resumed += 1

    def one_pass(self):
        due, self.ready = self.ready, []
        for callback in due:
            callback()

    def act(self, name, cost):
        def work():
            self.now += cost
            self.done.append(name)

        return work


def test_what_fits_is_done_at_once():
    world = World()
    world.pace.later(world.act("a", PASS // 2))
    world.pace.later(world.act("b", PASS // 4))
    assert world.done == ["a", "b"]
    assert not world.pace.is_waited_for


def test_what_does_not_fit_is_done_in_later_passes_in_its_order():
    world = World()
    for n in range(6):
        world.pace.later(world.act(n, PASS // 2))
    assert world.done == [0, 1]
    assert world.pace.is_waited_for
    world.one_pass()
    assert world.done == [0, 1, 2, 3]
    world.one_pass()
    assert world.done == [0, 1, 2, 3, 4, 5]
    assert not world.pace.is_waited_for


def test_something_is_done_in_every_pass_however_long_it_takes():
    world = World()
    for n in range(3):
        world.pace.later(world.act(n, 100 * PASS))
    world.one_pass()
    world.one_pass()
    assert world.done == [0, 1, 2]


def test_who_asked_is_resumed_in_the_next_pass():
    world = World()
    assert not world.pace.is_over
    world.now += PASS
    assert world.pace.is_over
    world.one_pass()
    assert world.resumed == 1
    assert not world.pace.is_over


def test_a_pass_is_over_by_the_number_of_results_too():
    world = World()
    assert not world.pace.is_over
    world.pace.decided(RESULTS_A_PASS)
    assert world.pace.is_over


def test_a_task_is_counted_before_it_works():
    world = World()
    world.pace.spawned()  # nothing is under way: nothing to count it in
    started = 0
    while not world.pace.is_over:
        world.pace.spawned()
        started += 1
    assert started == PASS // TASK


@pytest.mark.parametrize(
    ("others", "lasts"), [(0, PASS), (LEAST // 2, LEAST), (PASS // 2, PASS // 2), (PASS, PASS), (3 * PASS, PASS)]
)
def test_deliveries_take_no_longer_than_all_others_did_in_the_pass_before(others, lasts):
    world = World()
    for _ in range(2):
        assert not world.pace.is_over
        world.now += PASS
        assert world.pace.is_over
        world.now += others
        world.one_pass()
        assert not world.pace.is_over
        world.now += lasts - 1
        assert not world.pace.is_over
        world.now += 1
        assert world.pace.is_over
        world.one_pass()  # nobody else has worked: the next one is a whole one
        world.one_pass()


@pytest.mark.parametrize("others", [LEAST, PASS // 2])
def test_what_was_tried_before_has_half_of_it_beside_others(others):
    world = World()
    slack = 50  # of a clock that is read when somebody asks
    assert not world.pace.is_over
    world.now += PASS - 1
    assert not world.pace.is_over_for_retries, "nobody else was there"
    world.now += 1
    assert world.pace.is_over_for_retries
    for _ in range(2):  # what fresh deliveries take while retries are stopped counts as none of the others'
        world.now += others
        world.one_pass()
        assert not world.pace.is_over_for_retries
        world.now += others // 2 - slack
        assert not world.pace.is_over_for_retries
        world.now += 2 * slack
        assert world.pace.is_over_for_retries and not world.pace.is_over
        world.now += others // 2 - 2 * slack
        assert not world.pace.is_over
        world.now += 2 * slack
        assert world.pace.is_over


async def counted(rig, hops, recipients):
    """The most results decided in one pass, and on their way at once, with a message for each of these hops."""
    decided, most = [0], 0
    submitted = rig.service.submitted
    ended = False

    def passing():
        decided.append(0)
        if not ended:
            asyncio.get_running_loop().call_soon(passing)

    def counting(results):
        nonlocal most
        decided[-1] += results
        submitted(results)
        most = max(most, rig.service.unrecorded)

    rig.service.submitted = counting
    rig.service._running = False  # until all is queued
    ids = [await rig.queue(hop, *(b"r%d@b.test" % n for n in range(recipients))) for hop in hops]
    rig.service._running = True
    passing()
    rig.service.hops_changed(None)
    await rig.until(lambda: all(row.state == RecipientState.DEFERRED for each in ids for row in rig.rows(each)))
    await rig.settled()
    ended = True
    assert sum(decided) >= len(ids) * recipients  # where this took long, some are due again meanwhile
    return max(decided), most


async def test_destinations_that_fail_together_decide_a_bounded_number_in_one_pass(make_rig):
    rig = make_rig(nameservers=("127.0.0.1:1",), smtp_mx_session_limit=1)
    decided, _ = await counted(rig, [b"smtp:[127.0.0.1]:%d" % n for n in range(1, 121)], 1)
    assert decided <= RESULTS_A_PASS


async def test_what_a_crash_would_repeat_is_counted_in_recipients(make_rig):
    rig = make_rig()
    _, unrecorded = await counted(rig, [b"retry:later %d" % n for n in range(20)], 60)
    job = rig.config.delivery.default_destination_recipient_limit
    assert job <= unrecorded < UNRECORDED + job


async def test_thousands_of_hops_hear_of_a_second_in_several_passes(rig):
    """And each of them once, though the next second may be over before."""

    class Hop:
        book = SimpleNamespace(in_flight=set())
        is_idle = False
        is_suspended = False

        def __init__(self):
            self.ticks = 0

        def tick(self, now):
            self.ticks += 1
            clock[0] += PASS // 10

        def close(self):
            pass

        abort = close

    clock = [1]
    service = rig.service
    service.pace = Pace(asyncio.get_running_loop(), service._next_pass, lambda: clock[0])
    hops = [Hop() for _ in range(35)]
    service._owners.update({b"smtp:%d.test" % n: hop for n, hop in enumerate(hops)})
    rig.tick()
    heard = [sum(hop.ticks for hop in hops)]
    assert heard[0] < 35
    rig.tick()
    await rig.until(lambda: all(hop.ticks for hop in hops))
    assert [hop.ticks for hop in hops] == [1] * 35
    hops[3].is_idle = True
    rig.tick()
    await rig.until(lambda: hops[34].ticks == 2)
    assert len(service._owners) == 34
    service._owners.clear()


async def test_a_hop_says_whether_what_it_takes_was_tried_before(rig):
    asked = []
    is_stalled = rig.service.is_stalled

    def asking(owner):
        asked.append((owner.hop_text, owner.retries))
        return is_stalled(owner)

    fresh, hop = b"retry:fresh", b"retry:later"
    first = await rig.queue(hop, b"r@b.test")
    await rig.until(lambda: rig.rows(first)[0].state == RecipientState.DEFERRED)
    await rig.settled()
    rig.service.is_stalled = asking
    await rig.queue(fresh, b"r@b.test")
    await rig.store.queue.flush(first)
    rig.service.hops_changed(None)
    await rig.until(lambda: rig.rows(first)[0].attempts == 2)
    await rig.settled()
    assert ("retry:later", True) in asked
    assert ("retry:fresh", True) not in asked and ("retry:fresh", False) in asked
