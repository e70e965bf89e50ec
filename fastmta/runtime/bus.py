"""The bus between workers, and whoever waits for a mailbox to change.

Two things are told: *these next hops have new work* (to the slot that owns each) and *mailbox M is at modseq S* (to
all). What this process committed is told inside it at once, by the store's observer; others get one unix datagram
socket each. The kernel queues only ten datagrams, so loss is normal and costs nothing but time: what a peer cannot
take now is gathered, newest wins, and sent when its socket is writable again. Once a second, if a transaction that
was not ours has moved the environment, owners reread their hops and every watched mailbox compares its modseq: that
alone would do, the datagrams only make it quick.

Sockets lie in `data_directory/bus` as SLOT-PID and are found by listing it, so two generations of a slot can live
side by side. FASTMTA_BUS_DROP=1 drops every datagram that is sent, for tests.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from fastmta.runtime.log import Log
from fastmta.runtime.metrics import METRICS, Cells

DATAGRAM_ENTRIES: Final = 400  # hops or mailboxes in one datagram: 400 of at most 200 bytes stay under 128 KB
PENDING_ENTRIES: Final = 10_000  # kept for a peer that takes nothing; above it, it is told to reread everything
RECEIVE_BURST: Final = 64  # datagrams read in one turn of the loop
CHECK_INTERVAL_S: Final = 1.0
CHECK_SLICE: Final = 500  # watched mailboxes compared in one turn of the loop

#: Told of mailboxes that are at these modseqs now, and of hops that have new work.
Observer = Callable[[list[tuple[int, int]], list[bytes]], None]
HopsCallback = Callable[[list[bytes] | None], None]  # None: reread all that this slot owns


class WatchedStore(Protocol):
    """What the bus uses of the store."""

    observer: Observer | None

    @property
    def own_commits(self) -> int:
        """Transactions that this process has committed since it opened the store."""
        ...

    def last_txn_id(self) -> int: ...


class Watcher(Protocol):
    """A session that has a mailbox selected."""

    def mailbox_changed(self, mailbox_id: int) -> None: ...


class Notice(msgspec.Struct, array_like=True, gc=False):
    """One datagram. `all_hops` stands for so many that they were not listed."""

    hops: list[bytes] = []
    mailboxes: list[tuple[int, int]] = []
    all_hops: bool = False


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Notice)


class MailboxNotifier:
    """Who watches which mailbox, and at which modseq each was last told.

    Subscribe first, then read the mailbox: a change between the two is then told, never lost. Being told twice is
    normal.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, modseq_of: Callable[[int], int]) -> None:
        self._loop = loop
        self._modseq_of = modseq_of  # the mailbox's highest modseq in the store, 0 where it is gone
        self._watchers: dict[int, list[Watcher]] = {}
        self.watches = 0  # subscriptions of all watchers
        self._told: dict[int, int] = {}
        self._checking: list[int] = []

    def subscribe(self, mailbox_id: int, watcher: Watcher) -> None:
        """From now on `watcher.mailbox_changed` is called, on the loop, after each change."""
        self.watches += 1
        watchers = self._watchers.get(mailbox_id)
        if watchers is None:
            self._told[mailbox_id] = self._modseq_of(mailbox_id)
            self._watchers[mailbox_id] = [watcher]
        else:
            watchers.append(watcher)

    def unsubscribe(self, mailbox_id: int, watcher: Watcher) -> None:
        """Ends one subscription; one that is not there is no error."""
        watchers = self._watchers.get(mailbox_id)
        if watchers is None or watcher not in watchers:
            return
        self.watches -= 1
        watchers.remove(watcher)
        if not watchers:
            del self._watchers[mailbox_id], self._told[mailbox_id]

    def changed(self, mailboxes: Sequence[tuple[int, int]]) -> None:
        """Tells the watchers of mailboxes that are now at these modseqs; never the same twice."""
        told = self._told
        for mailbox_id, modseq in mailboxes:
            known = told.get(mailbox_id)
            if known is not None and modseq > known:
                told[mailbox_id] = modseq
                for watcher in tuple(self._watchers[mailbox_id]):
                    watcher.mailbox_changed(mailbox_id)

    def check(self) -> None:
        """Compares every watched mailbox with the store, in slices, so that thousands do not hold the loop."""
        if not self._checking:
            self._checking = list(self._watchers)
            self._check_slice()

    def _check_slice(self) -> None:
        part, self._checking = self._checking[:CHECK_SLICE], self._checking[CHECK_SLICE:]
        if self._checking:
            self._loop.call_soon(self._check_slice)
        for mailbox_id in part:
            told = self._told.get(mailbox_id)
            if told is None:
                continue
            modseq = self._modseq_of(mailbox_id)
            if modseq != told:  # 0 where it was deleted: that is news too
                self._told[mailbox_id] = modseq
                for watcher in tuple(self._watchers[mailbox_id]):
                    watcher.mailbox_changed(mailbox_id)

    def __len__(self) -> int:
        return len(self._watchers)


class _Peer:
    """Another worker, and what it still has to be told."""

    __slots__ = ("all_hops", "blocked", "hops", "mailboxes", "slot", "socket")

    def __init__(self, slot: int, sock: socket.socket) -> None:
        self.slot = slot
        self.socket = sock
        self.hops: dict[bytes, None] = {}
        self.mailboxes: dict[int, int] = {}
        self.all_hops = False
        self.blocked = False

    def take(self) -> Notice | None:
        """The next datagram's worth, removed from what waits."""
        if not (self.hops or self.mailboxes or self.all_hops):
            return None
        notice = Notice(all_hops=self.all_hops)
        self.all_hops = False
        if len(self.hops) > PENDING_ENTRIES:
            self.hops.clear()
            notice.all_hops = True
        if len(self.mailboxes) > PENDING_ENTRIES:
            self.mailboxes.clear()  # the check once a second finds them
        notice.hops = list(self.hops)[:DATAGRAM_ENTRIES]
        for hop in notice.hops:
            del self.hops[hop]
        notice.mailboxes = list(self.mailboxes.items())[:DATAGRAM_ENTRIES]
        for mailbox_id, _ in notice.mailboxes:
            del self.mailboxes[mailbox_id]
        return notice

    def restore(self, notice: Notice) -> None:
        """Puts back what the socket did not take."""
        self.all_hops = self.all_hops or notice.all_hops
        self.hops = dict.fromkeys((*notice.hops, *self.hops))
        for mailbox_id, modseq in notice.mailboxes:
            self.mailboxes[mailbox_id] = max(modseq, self.mailboxes.get(mailbox_id, 0))


class Bus:
    """This worker's end of the bus. `owner_of` gives the slot that owns a hop; `on_hops` takes those of this slot."""

    def __init__(
        self,
        directory: Path,
        slot: int,
        owner_of: Callable[[bytes], int],
        notifier: MailboxNotifier,
        *,
        loop: asyncio.AbstractEventLoop,
        log: Log,
        cells: Cells,
    ) -> None:
        self._directory = directory
        self.slot = slot
        self._owns = True
        self._owner_of = owner_of
        self._notifier = notifier
        self._loop = loop
        self._log = log
        self._cells = cells
        self._hops_callback: HopsCallback = _ignore_hops
        self._peers: dict[str, _Peer] = {}
        self._name = f"{slot}-{os.getpid()}"
        self._directory_fd = -1
        self._socket: socket.socket | None = None
        self._flushing = False
        self._timer: asyncio.TimerHandle | None = None
        self._store: WatchedStore | None = None
        self._seen_foreign: int | None = None
        self._unsure = False
        self._came: Callable[[list[tuple[int, int]]], None] | None = None
        self._drop = os.environ.get("FASTMTA_BUS_DROP") == "1"

    def on_hops(self, callback: HopsCallback) -> None:
        """Who is told of work for this slot's hops; None means: reread all of them."""
        self._hops_callback = callback

    def start(self, store: WatchedStore) -> None:
        """Binds this worker's socket, becomes the store's observer, and begins the check once a second."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        self._directory_fd = os.open(self._directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            os.unlink(self._directory / self._name)
        except FileNotFoundError:
            pass
        receiver.bind(self._path(self._name))
        self._socket = receiver
        self._loop.add_reader(receiver.fileno(), self._readable)
        self._store = store
        self._seen_foreign = self._foreign()
        store.observer = self._observer
        self._find_peers()
        self._timer = self._loop.call_later(CHECK_INTERVAL_S, self._check)

    def _path(self, name: str) -> str:
        # A socket's path has at most 107 bytes; through the directory's descriptor, its own length does not count.
        return f"/proc/self/fd/{self._directory_fd}/{name}"

    # --- what this process committed ---

    def committed(self, mailboxes: list[tuple[int, int]], hops: list[bytes]) -> None:
        """The store's observer: told once for all units of one dispatch, before their waiters run."""
        if mailboxes:
            self._notifier.changed(mailboxes)
            if self._peers:
                self.publish_mailboxes(mailboxes)
        if hops:
            owned = self.publish_hops(hops)
            if owned:
                self._hops_callback(owned)

    def on_mailboxes(self, came: Callable[[list[tuple[int, int]]], None] | None) -> None:
        """Who else is told which mailboxes this process has changed; None: nobody, at no cost."""
        self._came = came
        if self._store is not None:
            self._store.observer = self._observer

    @property
    def _observer(self) -> Observer:
        return self.committed if self._came is None else self._committed_and_told

    def _committed_and_told(self, mailboxes: list[tuple[int, int]], hops: list[bytes]) -> None:
        self.committed(mailboxes, hops)
        if mailboxes and self._came is not None:
            self._came(mailboxes)

    def own(self, owns: bool) -> None:
        """Whether this process walks its slot's hops; if not, their work is told to the slot's other process."""
        self._owns = owns

    def publish_hops(self, hops: Sequence[bytes]) -> list[bytes]:
        """Tells the owners of `hops` elsewhere, soon, and returns those of this slot."""
        owned = []
        for hop in hops:
            owner = self._owner_of(hop)
            if owner == self.slot and self._owns:
                owned.append(hop)
                continue
            for peer in self._peers.values():
                if peer.slot == owner:
                    peer.hops[hop] = None
                    self._flush_soon()
        return owned

    def publish_mailboxes(self, mailboxes: Sequence[tuple[int, int]]) -> None:
        """Tells every other worker, soon, at which modseq these mailboxes are."""
        for peer in self._peers.values():
            peer.mailboxes.update(mailboxes)
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        for name, peer in list(self._peers.items()):
            if not peer.blocked:
                self._send(name, peer)

    def _send(self, name: str, peer: _Peer) -> None:
        while (notice := peer.take()) is not None:
            if self._drop:
                continue
            try:
                peer.socket.send(_encoder.encode(notice))
            except BlockingIOError:
                self._cells[METRICS.bus_datagrams_total["blocked"]] += 1
                peer.restore(notice)
                peer.blocked = True
                self._loop.add_writer(peer.socket.fileno(), self._writable, name, peer)
                return
            except OSError:  # it has gone, or is going: its successor rereads everything when it starts
                self._cells[METRICS.bus_datagrams_total["failed"]] += 1
                self._forget(name)
                return
            self._cells[METRICS.bus_datagrams_total["sent"]] += 1

    def _writable(self, name: str, peer: _Peer) -> None:
        self._loop.remove_writer(peer.socket.fileno())
        peer.blocked = False
        self._send(name, peer)

    # --- what others committed ---

    def _readable(self) -> None:
        if self._socket is None:
            return
        hops: dict[bytes, None] = {}
        mailboxes: dict[int, int] = {}
        all_hops = False
        for _ in range(RECEIVE_BURST):
            try:
                data = self._socket.recv(131072)
            except OSError:
                break
            self._cells[METRICS.bus_datagrams_total["received"]] += 1
            try:
                notice = _decoder.decode(data)
            except (ValueError, RecursionError):  # all of msgspec's, and octets that are no UTF-8
                continue
            hops.update(dict.fromkeys(notice.hops))
            mailboxes.update(notice.mailboxes)
            all_hops = all_hops or notice.all_hops
        if mailboxes:
            self._notifier.changed(list(mailboxes.items()))
        if all_hops:
            self._hops_callback(None)
        elif hops:
            self._hops_callback(list(hops))

    def _check(self) -> None:
        self._timer = self._loop.call_later(CHECK_INTERVAL_S, self._check)
        self._find_peers()
        foreign = self._foreign()
        changed = foreign is None or foreign != self._seen_foreign
        self._seen_foreign = foreign
        # A commit may be seen before it is counted; one more check after each change makes up for such a reading.
        checking, self._unsure = changed or self._unsure, changed
        if checking:
            self._notifier.check()
            self._hops_callback(None)

    def _foreign(self) -> int | None:
        """How many transactions others have made, up to a constant; None where the committer was just at work.

        What this process commits reaches its own watchers by the observer, so a busy single worker checks nothing.
        """
        store = self._store
        if store is None:
            return None
        before = store.own_commits
        foreign = store.last_txn_id() - before
        return foreign if store.own_commits == before else None

    # --- peers ---

    def _find_peers(self) -> None:
        names = {entry for entry in os.listdir(self._directory) if entry != self._name and entry[:1].isdigit()}
        for name in self._peers.keys() - names:
            self._forget(name)
        for name in names - self._peers.keys():
            sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
            try:
                sender.connect(self._path(name))
                self._peers[name] = _Peer(int(name.partition("-")[0]), sender)
            except ConnectionRefusedError:  # left behind by a worker that was killed
                sender.close()
                (self._directory / name).unlink(missing_ok=True)
            except (OSError, ValueError):
                sender.close()

    def _forget(self, name: str) -> None:
        peer = self._peers.pop(name)
        if peer.blocked:
            self._loop.remove_writer(peer.socket.fileno())
        peer.socket.close()

    def close(self) -> None:
        """Leaves the bus."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._store is not None:
            self._store.observer = None
            self._store = None
        for name in list(self._peers):
            self._forget(name)
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
            (self._directory / self._name).unlink(missing_ok=True)
            os.close(self._directory_fd)


def _ignore_hops(hops: list[bytes] | None) -> None:
    """Until the delivery side has said who takes them: it rereads everything when it starts."""
