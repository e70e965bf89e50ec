"""What waits as it was accepted comes into the queue's indexes after a while, a bounded number a second."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fastmta._store import TABLE_QUEUE_BY_DOMAIN
from fastmta.delivery.indexing import Indexing
from fastmta.model.envelope import Envelope, RecipientTail
from fastmta.model.limits import UNINDEXED_MS
from fastmta.queue.ownership import partition_of
from fastmta.runtime.clock import ManualClock
from fastmta.store import MailStore
from fastmta.store.check import check_store

HOP = b"smtp:example.net"
OURS = frozenset({partition_of(HOP)})


class Tasks:
    """Keeps what is spawned until it is awaited."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[Any]] = []

    def spawn(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(coroutine, name=name))

    async def done(self) -> None:
        await asyncio.gather(*self.tasks)
        self.tasks.clear()


@pytest.fixture
async def mail(tmp_path: Path) -> AsyncIterator[MailStore]:
    mail = MailStore.open(tmp_path / "store", sync=False, clock=ManualClock())
    yield mail
    assert check_store(mail.raw).problems == []
    mail.close()


async def test_what_has_waited_for_some_time_is_indexed(mail: MailStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastmta.delivery.indexing.INDEXED_A_SECOND", 2)
    now_ms = int(mail.clock.now() * 1000)
    for age_ms, state in ((UNINDEXED_MS + 5, 1), (UNINDEXED_MS + 4, 3), (UNINDEXED_MS + 3, 1), (UNINDEXED_MS - 5, 1)):
        blob = mail.mailboxes.new_blob()
        blob.feed(b"x")
        recipient = (HOP, 0, state, now_ms - age_ms, RecipientTail(b"a@example.net"))
        await mail.queue.add(Envelope(b"s@x", now_ms - age_ms, 1, 0), [recipient], blob)
    tasks = Tasks()
    service: Any = SimpleNamespace(
        queue=mail.queue, now_ms=lambda: now_ms, services=SimpleNamespace(tasks=tasks), log=None
    )
    indexing = Indexing(service)
    indexing.look()
    assert not tasks.tasks  # no partitions are ours yet
    indexing.begin(OURS)
    counts = []
    for _ in range(4):
        indexing.look()
        indexing.look()  # the last ones are on their way
        assert len(tasks.tasks) <= 1
        await tasks.done()
        counts.append(len(mail.raw.scan(TABLE_QUEUE_BY_DOMAIN, b"")))
    assert counts == [2, 3, 3, 3]
    assert len(mail.queue.fresh()[0]) == 1
