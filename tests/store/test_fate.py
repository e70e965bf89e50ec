"""Waiting for a unit: a task's way, a session's own way, and who gives up waiting."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from fastmta._unit import Unit
from fastmta.model.errors import Refused
from fastmta.runtime.turns import Turns
from fastmta.store import MailStore


@pytest_asyncio.fixture
async def mail(tmp_path: Path) -> AsyncIterator[MailStore]:
    store = MailStore.open(tmp_path, sync=False)
    store.attach(asyncio.get_running_loop())
    yield store
    store.detach()
    store.close()


def counting(mail: MailStore, delta: int = 1) -> Unit:
    unit = mail.new_unit()
    unit.count(b"some count", delta, 10)
    return unit


async def test_tasks_wait_alone_and_together(mail: MailStore) -> None:
    assert (await mail.commit(counting(mail))).status == 1
    units = await asyncio.gather(*(mail.commit(counting(mail)) for _ in range(5)))
    assert {unit.status for unit in units} == {1}
    await asyncio.shield(mail.commit(counting(mail)))
    await asyncio.wait_for(mail.commit(counting(mail)), 60)


async def test_a_refused_unit_raises_in_who_waits(mail: MailStore) -> None:
    with pytest.raises(Refused):
        await mail.commit(counting(mail, 11))


async def test_a_session_goes_on_while_the_store_tells(mail: MailStore) -> None:
    order: list[str] = []

    async def work() -> None:
        await mail.commit(counting(mail))
        order.append("session")

    ended, told = asyncio.Event(), asyncio.Event()
    assert Turns(asyncio.get_running_loop()).share().run(work(), lambda _failure: ended.set()) is not None

    def tell(_unit: Unit) -> None:
        order.append("told after it")
        told.set()

    mail.submit(counting(mail), tell)
    await ended.wait()
    await told.wait()
    assert order == ["session", "told after it"]


async def test_who_gives_up_waiting_is_told_so_and_the_unit_is_committed(mail: MailStore) -> None:
    unit = counting(mail)
    task = asyncio.create_task(mail.commit(unit))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await mail.commit(counting(mail))
    assert unit.status == 1


async def test_a_fate_is_known_for_whoever_asks_later(mail: MailStore) -> None:
    loop = asyncio.get_running_loop()
    fate = mail.raw.fate(counting(mail), loop)
    await asyncio.gather(mail.commit(counting(mail)), mail.commit(counting(mail)))

    async def late() -> str:
        await fate
        return "known"

    assert await asyncio.gather(late(), late()) == ["known", "known"]
