"""CheckQueue at the password hashes: fair between addresses and names, bounded, and never lost by a cancellation."""

import asyncio
import random

from fastmta.auth.check_queue import CheckQueue


async def test_a_turn_is_never_lost_whoever_is_cancelled_when() -> None:
    draw = random.Random(1)
    turns = CheckQueue(2)
    running = 0
    most = 0

    async def use(address: str, name: str) -> None:
        nonlocal running, most
        await turns.take(address, name)
        running += 1
        most = max(most, running)
        try:
            await asyncio.sleep(0)
        finally:
            running -= 1
            turns.done()

    for _ in range(50):
        tasks = [asyncio.create_task(use(str(draw.randrange(4)), str(draw.randrange(3)))) for _ in range(30)]
        for _ in range(draw.randrange(6)):
            await asyncio.sleep(0)
            for task in draw.sample(tasks, 5):
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (turns._free, turns.waiting, turns._lines, turns._waiting) == (2, 0, {}, {})
    assert most == 2


async def test_addresses_take_turns_and_so_do_the_names_of_each() -> None:
    turns = CheckQueue(1)
    order: list[str] = []

    async def use(address: str, name: str) -> None:
        await turns.take(address, name)
        order.append(address + name)
        turns.done()

    await turns.take("x", "x")
    waiting = [asyncio.create_task(use(*who)) for who in ["aM", "aM", "aM", "aN", "bM", "bM", "cM"]]
    await asyncio.sleep(0)
    turns.done()
    await asyncio.gather(*waiting)
    assert order == ["aM", "bM", "cM", "aN", "bM", "aM", "aM"]
