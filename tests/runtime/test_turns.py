"""The budget of the loop: who works now, who waits, and in which order those who wait are served."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from fastmta.model.limits import FIRST_S, FREE_S, PIECE_S, SLICE_S, TURN_S, WAITED_S
from fastmta.runtime.turns import Share, Turns

TURN, SLICE, PIECE = int(TURN_S * 1e9), int(SLICE_S * 1e9), int(PIECE_S * 1e9)
FREE, FIRST, WAITED = int(FREE_S * 1e9), int(FIRST_S * 1e9), int(WAITED_S * 1e9)


class World:
    """A loop whose passes the test makes, and a clock that moves only by work."""

    def __init__(self) -> None:
        self.now = 1
        self.ready: list[Callable[[], object]] = []
        loop: Any = self
        self.interruptions = 0
        self.turns = Turns(loop, lambda: self.now, lambda: self.interruptions)
        self.served: list[str] = []

    def call_soon(self, callback: Callable[[], object]) -> None:
        self.ready.append(callback)

    def one_pass(self) -> list[str]:
        """Runs what was due before it; who was served in it."""
        self.served = []
        due, self.ready = self.ready, []
        for callback in due:
            callback()
        return self.served

    def greedy(self, name: str, share: Share, left: int, piece: int = SLICE // 2) -> Callable[[], None]:
        """A loop of `left` nanoseconds of work in pieces, as a protocol writes it."""

        def work() -> None:
            nonlocal left
            self.served.append(name)
            while left > 0:
                self.now += piece
                left -= piece
                if share.over() and left > 0:
                    share.later(work)
                    return

        return work


def test_what_fits_into_the_turn_is_done_at_once() -> None:
    world = World()
    share = world.turns.share()
    assert share.enter(lambda: None)
    world.now += SLICE // 2
    assert not share.over()
    assert not share.waiting


def test_one_alone_goes_on_to_the_end_of_the_turn_and_no_further() -> None:
    world = World()
    share = world.turns.share()
    work = world.greedy("a", share, 3 * TURN)
    assert share.enter(work)
    began = world.now
    work()
    assert share.waiting
    assert world.now - began <= FIRST + SLICE  # the rest of what arrived in this pass comes first
    began = world.now
    world.one_pass()
    assert WAITED <= world.now - began <= WAITED + SLICE


def test_all_together_get_one_turn_of_what_arrives() -> None:
    world = World()
    shares = [world.turns.share() for _ in range(200)]
    began = world.now
    for share in shares:
        work = world.greedy("x", share, 10 * SLICE)
        if share.enter(work):
            work()
    assert world.now - began <= TURN + SLICE
    assert all(share.waiting for share in shares)


def test_nobody_is_called_from_inside_later() -> None:
    world = World()
    share = world.turns.share()
    called: list[int] = []
    share.later(lambda: called.append(1))
    assert not called
    world.one_pass()
    assert called


def test_everybody_who_waits_is_served() -> None:
    world = World()
    for n in range(50):
        share = world.turns.share()
        share.later(world.greedy(str(n), share, 5 * SLICE))
    seen: set[str] = set()
    passes = 0
    while world.turns.waiting:
        seen.update(world.one_pass())
        passes += 1
    assert len(seen) == 50
    assert passes <= 50 * 5 * SLICE // WAITED + 2


def test_who_used_little_goes_before_two_hundred_who_never_pause() -> None:
    world = World()
    for n in range(200):
        share = world.turns.share()
        share.later(world.greedy(f"greedy {n}", share, 1000 * SLICE, SLICE // 2 + n))
    for _ in range(200 * SLICE // TURN + 1):
        world.one_pass()  # each has had a slice: it is known what they are
    light = world.turns.share()
    for _ in range(50):
        work = world.greedy("light", light, FREE // 2)
        assert light.enter(work)  # what arrives is worked on at once, while the pass has time
        work()
        world.now += TURN
        assert not light.enter(world.greedy("light", light, FREE // 2))
        assert world.one_pass()[0] == "light"


def test_a_crowd_that_connects_is_not_before_who_is_there_already() -> None:
    world = World()
    there = world.turns.share()
    work = world.greedy("there", there, FREE // 2)
    assert there.enter(work)
    work()
    world.one_pass()
    for n in range(200):
        share = world.turns.share()
        greedy = world.greedy(f"new {n}", share, 1000 * SLICE)
        if share.enter(greedy):
            greedy()
    assert not there.enter(world.greedy("there", there, FREE // 2))
    assert world.one_pass()[0] == "there"


def test_a_history_of_work_that_nobody_waited_for_counts_nothing() -> None:
    world = World()
    old, new = world.turns.share(), world.turns.share()
    assert new.enter(lambda: None)
    world.one_pass()
    for _ in range(100):
        work = world.greedy("old", old, SLICE)
        assert old.enter(work)
        work()
        world.one_pass()
    new.later(world.greedy("new", new, SLICE))
    old.later(world.greedy("old", old, SLICE))
    world.now += 1
    assert world.one_pass() == ["new", "old"]  # in order of their coming
    old.later(world.greedy("old", old, SLICE))
    new.later(world.greedy("new", new, SLICE))
    assert world.one_pass() == ["old", "new"]


def test_who_has_left_is_not_called() -> None:
    world = World()
    share = world.turns.share()
    share.later(world.greedy("gone", share, SLICE))
    share.leave()
    assert not share.waiting
    assert world.one_pass() == []


def test_a_failure_of_one_does_not_stop_the_queue() -> None:
    world = World()
    bad, good = world.turns.share(), world.turns.share()

    def fail() -> None:
        raise ValueError

    bad.later(fail)
    good.later(world.greedy("good", good, SLICE))
    try:
        world.one_pass()
    except ValueError:
        pass
    assert world.one_pass() == ["good"]


def test_a_sleep_is_not_charged_as_work() -> None:
    world = World()
    slept, worked = world.turns.share(), world.turns.share()
    for share in (slept, worked):
        share.begin()
    blocker = world.turns.share()
    blocker.later(lambda: None)
    world.now += 1000 * TURN
    slept.over()
    assert slept.used <= PIECE


def test_what_the_kernel_gave_to_another_process_is_not_charged() -> None:
    world = World()
    share = world.turns.share()
    assert share.enter(lambda: None)
    world.interruptions += 1
    world.now += FREE + PIECE
    share.over()
    assert share.used <= SLICE
    world.now += PIECE
    share.over()
    assert share.used >= PIECE  # nobody took anything away this time


async def test_pause_returns_at_once_while_there_is_time() -> None:
    turns = Turns(asyncio.get_running_loop())
    share = turns.share()
    share.begin()
    await share.pause()
    assert turns.waiting == 0


async def test_pause_lets_the_others_work() -> None:
    now = 1
    turns = Turns(asyncio.get_running_loop(), lambda: now)
    order: list[str] = []

    async def long(name: str) -> None:
        nonlocal now
        share = turns.share()
        share.begin()
        for _ in range(8):
            now += SLICE
            order.append(name)
            await share.pause()

    await asyncio.gather(long("a"), long("b"))
    assert order.count("a") == order.count("b") == 8
    assert "b" in order[: TURN // SLICE + 1]


async def test_a_task_that_is_cancelled_in_its_pause_leaves_the_queue() -> None:
    now = 1
    turns = Turns(asyncio.get_running_loop(), lambda: now)

    def hold() -> None:
        nonlocal now
        now += TURN

    share = turns.share()
    share.begin()
    now += 2 * TURN
    task = asyncio.ensure_future(share.pause())
    turns.share().later(hold)
    await asyncio.sleep(0)
    assert share.waiting
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not share.waiting
    for _ in range(3):
        await asyncio.sleep(0)
    assert turns.waiting == 0


async def test_who_awaits_its_turn_is_woken_though_its_session_has_left() -> None:
    now = 1
    turns = Turns(asyncio.get_running_loop(), lambda: now)
    share = turns.share()
    share.begin()
    now += 2 * TURN
    task = asyncio.ensure_future(share.pause())
    turns.share().later(lambda: None)
    await asyncio.sleep(0)
    share.leave()
    await asyncio.wait_for(task, 60)


class Ended:
    """What `Share.run` is given to call."""

    def __init__(self) -> None:
        self.failures: list[BaseException | None] = []

    def __call__(self, failure: BaseException | None) -> None:
        self.failures.append(failure)


async def test_what_need_not_wait_is_done_at_once() -> None:
    done, ended = [], Ended()

    async def work() -> None:
        done.append(1)

    assert Turns(asyncio.get_running_loop()).share().run(work(), ended) is None
    assert done == [1]
    assert ended.failures == []


async def test_what_fails_without_a_wait_raises() -> None:
    async def work() -> None:
        raise KeyError("at once")

    with pytest.raises(KeyError, match="at once"):
        Turns(asyncio.get_running_loop()).share().run(work(), Ended())


@pytest.mark.parametrize("failure", [None, KeyError("later")])
async def test_a_wait_ends_with_what_was_awaited(failure: Exception | None) -> None:
    loop, ended, got = asyncio.get_running_loop(), Ended(), []
    awaited: asyncio.Future[str] = loop.create_future()

    async def deeper() -> str:
        await asyncio.sleep(0)
        return await awaited

    async def work() -> None:
        got.append(await deeper())

    assert Turns(loop).share().run(work(), ended) is not None
    for _ in range(3):
        await asyncio.sleep(0)
    assert got == ended.failures == []
    if failure is None:
        awaited.set_result("here")
    else:
        awaited.set_exception(failure)
    for _ in range(3):
        await asyncio.sleep(0)
    assert got == (["here"] if failure is None else [])
    assert ended.failures == [failure]


@pytest.mark.parametrize("waits", [True, False])
async def test_cancelling_ends_it_where_it_waits(waits: bool) -> None:
    loop, ended = asyncio.get_running_loop(), Ended()
    awaited: asyncio.Future[None] = loop.create_future()
    cleaned = []

    async def work() -> None:
        try:
            if not waits:
                await asyncio.sleep(0)
            await awaited
        finally:
            cleaned.append(1)

    course = Turns(loop).share().run(work(), ended)
    assert course is not None
    course.cancel()
    for _ in range(4):
        await asyncio.sleep(0)
    assert awaited.cancelled()
    assert cleaned == [1]
    assert [type(failure) for failure in ended.failures] == [asyncio.CancelledError]


async def test_a_session_is_charged_with_its_work_and_not_with_its_wait() -> None:
    now, loop = 1, asyncio.get_running_loop()
    share = Turns(loop, lambda: now).share()
    awaited: asyncio.Future[None] = loop.create_future()

    async def work() -> None:
        nonlocal now
        now += PIECE
        await awaited
        now += PIECE

    share.begin()
    assert share.run(work(), Ended()) is not None
    assert share.used == PIECE
    now += 1000 * TURN
    awaited.set_result(None)
    for _ in range(3):
        await asyncio.sleep(0)
    share.over()
    assert share.used == 2 * PIECE


async def test_what_asks_for_its_task_works_in_one_of_its_own() -> None:
    loop, ended = asyncio.get_running_loop(), Ended()

    async def timed() -> str:
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
        return "in time"

    got = []

    async def work() -> None:
        got.append(await loop.create_task(timed()))

    assert Turns(loop).share().run(work(), ended) is not None
    for _ in range(6):
        await asyncio.sleep(0)
    assert got == ["in time"]
    assert ended.failures == [None]
