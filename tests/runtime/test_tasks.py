import asyncio
import os
import threading

import pytest

from fastmta.runtime.log import Log
from fastmta.runtime.tasks import Sweep, Tasks, seen_through


async def test_a_failed_task_is_logged_and_forgotten() -> None:
    reader, writer = os.pipe()
    tasks = Tasks(Log(writer))

    async def fail() -> None:
        raise ValueError("no")

    await asyncio.wait([tasks.spawn("job.one", fail())])
    assert len(tasks) == 0
    text = os.read(reader, 65536).decode()
    assert "task.failed" in text
    assert "job.one" in text
    os.close(reader)
    os.close(writer)


async def test_close_cancels_and_joins() -> None:
    tasks = Tasks(Log())
    left = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            left.append(True)

    tasks.spawn("job.wait", wait())
    await asyncio.sleep(0)
    await tasks.close()
    assert left == [True]
    assert len(tasks) == 0


class Item:
    def __init__(self, deadline: float, passed: asyncio.Event) -> None:
        self.deadline = deadline
        self.passed = passed

    def deadline_passed(self, now: float) -> None:
        self.deadline = now + 1000
        self.passed.set()


async def test_a_sweep_calls_only_those_whose_deadline_has_passed() -> None:
    loop = asyncio.get_running_loop()
    sweep = Sweep(loop, 0.005)
    due, later, gone = (Item(loop.time() + s, asyncio.Event()) for s in (0, 1000, 0))
    for item in (due, later, gone):
        sweep.add(item)
    sweep.discard(gone)
    await asyncio.wait_for(due.passed.wait(), 60)
    assert not later.passed.is_set()
    assert not gone.passed.is_set()
    sweep.close()


async def test_who_waits_for_a_thread_and_is_cancelled_goes_on_when_it_has_ended() -> None:
    going, ended = threading.Event(), threading.Event()

    def work() -> None:
        going.wait(10)
        ended.set()

    loop = asyncio.get_running_loop()
    task = asyncio.create_task(seen_through(loop.run_in_executor(None, work)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    going.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
    assert await seen_through(loop.run_in_executor(None, lambda: 5)) == 5
