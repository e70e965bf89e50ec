"""CheckQueue at the password hashes: fair between addresses and names, bounded, and never lost by a cancellation."""

import asyncio
import random

from fastmta.auth.check_queue import CheckQueue


async def test_a_turn_is_never_lost_whoever_is_cancelled_when() -> None:
    draw = random.Random(1)
    turns = CheckQueue(2)
    running: list[str] = []
    most = 0

    async def use(address: str, name: str) -> None:
        nonlocal most
        await turns.take(address, name)
        assert address not in running
        running.append(address)
        most = max(most, len(running))
        try:
            await asyncio.sleep(0)
        finally:
            running.remove(address)
            turns.done(address)

    for _ in range(50):
        tasks = [asyncio.create_task(use(str(draw.randrange(4)), str(draw.randrange(3)))) for _ in range(30)]
        for _ in range(draw.randrange(6)):
            await asyncio.sleep(0)
            for task in draw.sample(tasks, 5):
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (turns._free, turns.waiting, turns._lines, turns._waiting, turns._served) == (2, 0, {}, {}, set())
    assert most == 2


async def test_addresses_take_turns_and_so_do_the_names_of_each() -> None:
    turns = CheckQueue(1)
    order: list[str] = []

    async def use(address: str, name: str) -> None:
        await turns.take(address, name)
        order.append(address + name)
        turns.done(address)

    await turns.take("x", "x")
    waiting = [asyncio.create_task(use(*who)) for who in ["aM", "aM", "aM", "aN", "bM", "bM", "cM"]]
    await asyncio.sleep(0)
    turns.done("x")
    await asyncio.gather(*waiting)
    assert order == ["aM", "bM", "cM", "aN", "bM", "aM", "aM"]


async def test_an_address_has_one_check_at_a_time_and_leaves_the_others_to_others() -> None:
    turns = CheckQueue(2)
    await turns.take("greedy", "M")
    second = asyncio.create_task(turns.take("greedy", "N"))
    await asyncio.sleep(0)
    assert not second.done()
    await turns.take("other", "M")  # at once
    turns.done("other")
    await asyncio.sleep(0)
    assert not second.done()
    turns.done("greedy")
    await second
    turns.done("greedy")
