"""What a command's process does to others that write: small transactions, and pauses between them."""

import asyncio
import multiprocessing
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from fastmta._store import TABLE_META
from fastmta.model.envelope import Envelope, RecipientState, RecipientTail
from fastmta.store import MailStore
from fastmta.store.queue import MOVED


async def test_units_that_come_together_share_transactions_up_to_a_bound(tmp_path: Path):
    store = MailStore.open(tmp_path, sync=False, gives_way=True)
    store.attach(asyncio.get_running_loop())
    try:
        await store.mailboxes.subscribe(1, "first")
        before = store.raw.stats()
        await asyncio.gather(*(store.mailboxes.subscribe(1, f"name {n}") for n in range(257)))
        after = store.raw.stats()
        assert after["units"] - before["units"] == 257
        assert after["commits"] - before["commits"] >= 9  # of 32 units each
    finally:
        store.detach()
        store.close()


def _write_on(path: Path, begun: Any, stop: Any) -> None:
    """An administrator's command that has work without end."""
    store = MailStore.open(path, gives_way=True)
    try:
        while not stop.is_set():
            unit = store.raw.new_unit()
            for n in range(500):
                unit.put(TABLE_META, b"x%d" % n, b"y" * 100)
            store.commit_sync(unit)
            begun.set()
    finally:
        store.close()


def test_another_process_is_not_kept_waiting_by_one_that_writes_on_and_on(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    begun, stop = context.Event(), context.Event()
    store = MailStore.open(tmp_path)
    busy = context.Process(target=_write_on, args=(tmp_path, begun, stop))
    busy.start()
    try:
        assert begun.wait(60)
        waited = []
        for _ in range(30):
            before = store.raw.stats()["last_txn_id"]
            unit = store.raw.new_unit()
            unit.put(TABLE_META, b"mine", b"")
            store.commit_sync(unit)
            waited.append(store.raw.stats()["last_txn_id"] - before - 1)  # the others' transactions
    finally:
        stop.set()
        busy.join(60)
        store.close()
    assert median(waited) <= 2


@pytest.mark.parametrize(("recipients", "units"), [(MOVED - 1, 1), (MOVED, 1), (MOVED + 1, 2), (3 * MOVED, 3)])
async def test_recipients_of_one_message_are_moved_in_units_of_bounded_size(
    tmp_path: Path, recipients: int, units: int
):
    store = MailStore.open(tmp_path, sync=False)
    try:
        blob = store.mailboxes.new_blob()
        blob.feed(b"Subject: x\r\n\r\n")
        rows = [
            (b"smtp:b.test", 0, int(RecipientState.ACTIVE), 0, RecipientTail(b"u%d@b.test" % n))
            for n in range(recipients)
        ]
        queue_id = await store.queue.add(Envelope(b"a@a.test", 0, 14, 0), rows, blob)
        before = store.raw.stats()["units"]
        assert await store.queue.hold(queue_id) == recipients
        assert store.raw.stats()["units"] - before == units
        assert store.queue.counts() == {"active": 0, "deferred": 0, "held": recipients}
        assert await store.queue.delete(queue_id) == recipients
        assert store.queue.message(queue_id) is None
    finally:
        store.close()
