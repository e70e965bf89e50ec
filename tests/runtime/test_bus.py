"""The bus: who is told of which hops and mailboxes, with datagrams and without."""

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastmta.runtime import bus as bus_module
from fastmta.runtime.bus import Bus, MailboxNotifier
from fastmta.runtime.log import Log
from fastmta.runtime.metrics import METRICS, local_cells


class FakeStore:
    """What two workers share: mailboxes with their modseq, and the transaction's number."""

    def __init__(self) -> None:
        self.txn = 1
        self.modseqs: dict[int, int] = {}


class View:
    """One worker's raw store."""

    def __init__(self, shared: FakeStore) -> None:
        self._shared = shared
        self.observer: Any = None
        self.own_commits = 0

    def last_txn_id(self) -> int:
        return self._shared.txn


class Watcher:
    def __init__(self) -> None:
        self.told: list[int] = []
        self.event = asyncio.Event()

    def mailbox_changed(self, mailbox_id: int) -> None:
        self.told.append(mailbox_id)
        self.event.set()


class Node:
    def __init__(self, directory: Path, slot: int, shared: FakeStore, generation: int = 1) -> None:
        loop = asyncio.get_running_loop()
        self.shared = shared
        self.store = View(shared)
        self.notifier = MailboxNotifier(loop, lambda mailbox_id: shared.modseqs.get(mailbox_id, 0))
        self.cells = local_cells()
        owner = lambda hop: hop[-1] & 1  # noqa: E731
        self.bus = Bus(directory, slot, owner, self.notifier, loop=loop, log=Log(), cells=self.cells)
        self.bus._name = f"{slot}-{os.getpid()}{slot}{generation}"
        self.hops: list[list[bytes] | None] = []
        self.hops_event = asyncio.Event()
        self.bus.on_hops(self._hops)
        self.bus.start(self.store)

    def _hops(self, hops: list[bytes] | None) -> None:
        self.hops.append(hops)
        self.hops_event.set()

    def commit(self, mailboxes: list[tuple[int, int]], hops: list[bytes]) -> None:
        self.shared.modseqs.update(mailboxes)
        self.shared.txn += 1
        self.store.own_commits += 1
        self.store.observer(mailboxes, hops)


async def reached(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), 60)


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[Node]]]:
    made: list[Node] = []

    def make(count: int = 2, check_s: float = 1000.0) -> list[Node]:
        monkeypatch.setattr(bus_module, "CHECK_INTERVAL_S", check_s)
        shared = FakeStore()
        made.extend(Node(tmp_path / "bus", slot, shared) for slot in range(count))
        for node in made:
            node.bus._find_peers()
        return made

    yield make
    for node in made:
        node.bus.close()
    assert not any((tmp_path / "bus").glob("*"))


async def test_own_hops_are_told_at_once_and_others_to_their_owner(nodes: Callable[..., list[Node]]) -> None:
    one, two = nodes()
    one.commit([], [b"hop0", b"hop1"])
    assert one.hops == [[b"hop0"]]
    await reached(two.hops_event)
    assert two.hops == [[b"hop1"]]


async def test_a_worker_that_released_its_slot_tells_its_successor(
    nodes: Callable[..., list[Node]], tmp_path: Path
) -> None:
    old, _ = nodes()
    new = Node(tmp_path / "bus", 0, old.shared, generation=2)
    old.bus._find_peers()
    old.bus.own(False)
    old.commit([], [b"hop0"])
    await reached(new.hops_event)
    new.bus.close()
    assert (old.hops, new.hops) == ([], [[b"hop0"]])


async def test_local_and_remote_watchers_of_a_mailbox_are_told(nodes: Callable[..., list[Node]]) -> None:
    one, two = nodes()
    here, there = Watcher(), Watcher()
    one.notifier.subscribe(7, here)
    two.notifier.subscribe(7, there)
    one.commit([(7, 3), (8, 1)], [])
    assert here.told == [7]
    await reached(there.event)
    assert there.told == [7]


async def test_a_modseq_that_was_told_is_not_told_again(nodes: Callable[..., list[Node]]) -> None:
    (one,) = nodes(1)
    watcher = Watcher()
    one.shared.modseqs[7] = 3
    one.notifier.subscribe(7, watcher)
    one.store.observer([(7, 3)], [])
    one.store.observer([(7, 2)], [])
    one.store.observer([(7, 4)], [])
    assert watcher.told == [7]


async def test_who_asks_hears_which_mailboxes_this_process_changed(nodes: Callable[..., list[Node]]) -> None:
    (one,) = nodes(1)
    quiet = one.store.observer
    heard: list[Any] = []
    one.bus.on_mailboxes(heard.append)
    one.store.observer([(7, 3)], [])
    one.store.observer([], [b"hop"])
    assert heard == [[(7, 3)]]
    one.bus.on_mailboxes(None)
    assert one.store.observer == quiet
    one.store.observer([(7, 4)], [])
    assert heard == [[(7, 3)]]


async def test_nobody_is_told_after_unsubscribing(nodes: Callable[..., list[Node]]) -> None:
    (one,) = nodes(1)
    first, second = Watcher(), Watcher()
    one.notifier.subscribe(7, first)
    one.notifier.subscribe(7, second)
    one.notifier.unsubscribe(7, first)
    one.notifier.unsubscribe(7, first)
    one.commit([(7, 3)], [])
    assert (first.told, second.told) == ([], [7])
    one.notifier.unsubscribe(7, second)
    assert len(one.notifier) == 0


async def test_with_every_datagram_lost_the_check_tells_all(
    nodes: Callable[..., list[Node]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTMTA_BUS_DROP", "1")
    one, two = nodes(check_s=0.02)
    watcher = Watcher()
    two.notifier.subscribe(7, watcher)
    one.commit([(7, 3)], [b"hop1"])
    await reached(watcher.event)
    await reached(two.hops_event)
    assert two.hops == [None]
    assert two.cells[METRICS.bus_datagrams_total["received"]] == 0


async def test_a_peer_that_does_not_read_costs_nothing_and_hears_everything_later(
    nodes: Callable[..., list[Node]],
) -> None:
    one, two = nodes()
    loop = asyncio.get_running_loop()
    assert two.bus._socket is not None
    loop.remove_reader(two.bus._socket.fileno())
    for n in range(60):
        one.commit([(n, n + 1)], [b"hop%d1" % n])
        one.bus._flush()
    assert one.cells[METRICS.bus_datagrams_total["blocked"]] >= 1
    assert one.cells[METRICS.bus_datagrams_total["sent"]] < 60
    loop.add_reader(two.bus._socket.fileno(), two.bus._readable)

    async def all_heard() -> None:
        while len({hop for hops in two.hops if hops for hop in hops}) < 60:
            two.hops_event.clear()
            await two.hops_event.wait()

    await asyncio.wait_for(all_heard(), 60)


async def test_a_backlog_above_the_bound_becomes_reread_everything(
    nodes: Callable[..., list[Node]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_module, "PENDING_ENTRIES", 5)
    one, two = nodes()
    one.commit([], [b"hop%d1" % n for n in range(6)])
    await reached(two.hops_event)
    assert two.hops == [None]


async def test_a_peer_that_is_gone_is_forgotten(nodes: Callable[..., list[Node]]) -> None:
    one, two = nodes()
    two.bus.close()
    one.commit([(7, 1)], [])
    one.bus._flush()
    assert one.bus._peers == {}


async def test_what_only_this_worker_commits_needs_no_check(nodes: Callable[..., list[Node]]) -> None:
    (one,) = nodes(1)
    one.commit([], [b"hop0"])
    one.bus._check()
    assert one.hops == [[b"hop0"]]
    one.shared.txn += 1
    one.bus._check()
    assert one.hops == [[b"hop0"], None]
