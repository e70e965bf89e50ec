"""The thread beside the loop: results, failures, order, and its end."""

import asyncio
import threading

import pytest

from fastmta.runtime.aside import TOGETHER, Aside


async def test_results_come_from_another_thread_and_in_order() -> None:
    aside = Aside(asyncio.get_running_loop())
    names: list[str] = []

    def work(number: int) -> int:
        names.append(threading.current_thread().name)
        return number

    futures = [aside.run(work, number) for number in range(5 * TOGETHER)]
    assert await asyncio.gather(*futures) == list(range(5 * TOGETHER))
    assert set(names) == {"signature"}
    assert await aside.run(work, 7) == 7  # also after it has slept
    aside.close()


async def test_a_failure_is_its_callers() -> None:
    aside = Aside(asyncio.get_running_loop())
    wrong, right = aside.run(int, "x"), aside.run(int, "1")
    with pytest.raises(ValueError, match="invalid literal"):
        await wrong
    assert await right == 1
    aside.close()


async def test_what_is_cancelled_before_its_turn_is_not_done() -> None:
    aside = Aside(asyncio.get_running_loop())
    begun, go_on, done = threading.Event(), threading.Event(), []

    def hold() -> None:
        begun.set()
        go_on.wait(60)

    first, second, third = aside.run(hold), aside.run(done.append, 2), aside.run(done.append, 3)
    await asyncio.to_thread(begun.wait, 60)
    second.cancel()
    go_on.set()
    await asyncio.gather(first, third)
    assert done == [3]
    aside.close()


async def test_closing_cancels_who_waits() -> None:
    aside = Aside(asyncio.get_running_loop())
    begun, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        begun.set()
        go_on.wait(60)

    first, second = aside.run(hold), aside.run(int)
    await asyncio.to_thread(begun.wait, 60)
    aside.close()
    go_on.set()
    assert second.cancelled() and aside.run(int).cancelled()
    await first
