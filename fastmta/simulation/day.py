"""A day of mail through one configuration, in a box: what became of it, by destination.

The configuration is taken as it is but for what has no counterpart here: TLS and logins (servers of the past offer
neither), milters, tables that look into messages, and programs, which take all that they are given.
"""

import asyncio
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from fastmta._intake import Recipient
from fastmta.config.schema import Config
from fastmta.model.envelope import NOTIFY_NEVER, Envelope
from fastmta.model.limits import LANE_SMALL_BYTES
from fastmta.policy.networks import Networks
from fastmta.queue.replies import ReplyClasses
from fastmta.runtime.launching import Ended, Request
from fastmta.simulation.arrivals import arrive
from fastmta.simulation.envelopes import Letter
from fastmta.simulation.loop import VirtualLoop
from fastmta.simulation.names import Zone
from fastmta.simulation.network import Host, Network
from fastmta.simulation.parts import Parts, VirtualClock, seeded
from fastmta.simulation.past import Past, PastSite
from fastmta.store.virtual import VirtualStore

_STORED_BYTES: Final = LANE_SMALL_BYTES + 1024  # of a body at the most: enough to be in the lane that it was in
_LOOK_S: Final = 1.0
_LINGER_S: Final = 86_400.0  # behind the last message, for what still waits
# Keys that have no counterpart, by how their names begin or end: they get their defaults.
_LEFT_OUT: Final = (
    ("smtp_tls", "lmtp_tls", "smtp_tlsrpt", "smtp_sasl", "smtp_sender_dep", "mta_", "srs_", "arc_"),
    ("milters", "header_checks", "body_checks", "_filter", "_signing", "_module"),
)

Progress = Callable[[int, int], None]


class Destination(msgspec.Struct):
    """What became of one domain's mail. Times are in seconds since the messages came."""

    recipients: int = 0
    delivered: int = 0
    bounced: int = 0
    refused: int = 0  # by the directory, before they were queued
    waiting: int = 0  # in the end
    put_off: int = 0  # times
    routes: Counter[str] = msgspec.field(default_factory=Counter)
    replies: Counter[str] = msgspec.field(default_factory=Counter)  # 4yz and 5yz, by their class
    waited: list[float] = msgspec.field(default_factory=list)

    def share(self, part: float) -> float:
        """What this part of the delivered waited at the most; 0.0 where none was."""
        waited = sorted(self.waited)
        return waited[min(len(waited) - 1, int(part * len(waited)))] if waited else 0.0


class Day(msgspec.Struct):
    """The whole. `held_back`: seconds in which a next hop had mail ready and was let send none, by why."""

    destinations: dict[str, Destination] = msgspec.field(default_factory=lambda: defaultdict(Destination))
    held_back: dict[str, Counter[str]] = msgspec.field(default_factory=lambda: defaultdict(Counter))
    connections: int = 0
    most_waiting: int = 0
    dead: Counter[str] = msgspec.field(default_factory=Counter)  # how often a next hop was


class _OpenZone(Zone):
    """Every name leads to a server: those of the past to their hosts, others to one of their own name."""

    def __init__(self, past: Past) -> None:
        super().__init__()
        self._past = past
        self._given: dict[str, str] = {}  # host name -> address
        self.names: dict[str, str] = {}  # address -> host name

    def find(self, name: str, kind: str) -> tuple[Any, ...]:
        if kind == "MX":
            hosts = self._past.hosts_of.get(f"smtp:{name}") or [f"mx.{name}"]
            return tuple((10, host) for host in hosts)
        if kind == "A":
            return (self._address(name),)
        return super().find(name, kind)

    def _address(self, name: str) -> str:
        known = self._given.get(name)
        if known is None:
            number = len(self._given) + 1
            known = self._given[name] = f"198.{18 + number // 65_536 % 2}.{number // 256 % 256}.{number % 256}"
            self.names[known] = name
        return known


class _OpenNetwork(Network):
    """At every address there is a server."""

    def __init__(self, past: Past, zone: _OpenZone, now: Callable[[], float]) -> None:
        super().__init__()
        self._past = past
        self._zone = zone
        self._now = now
        self._names_of = {host.ip: name for name, host in past.hosts.items() if host.ip}
        self._sites: dict[str, PastSite] = {}

    def host_at(self, ip: str, port: int) -> Host | None:
        name = self._zone.names.get(ip) or self._names_of.get(ip) or ip
        site = self._sites.get(name)
        if site is None:
            site = self._sites[name] = PastSite(name, self._past.hosts.get(name), self._past, self._now)
        return site


class _Programs:
    """Programs of pipe transports: each takes what it is given."""

    async def run(self, request: Request, mail_fd: int, /) -> Ended:
        return Ended()


def simulated(config: Config, directory: str) -> Config:
    """The configuration with its data elsewhere, and without what has no counterpart."""
    bare: Config = msgspec.structs.replace(_bare(config), data_directory=directory, delivery=_bare(config.delivery))
    return bare


def _bare(part: Any) -> Any:
    begins, ends = _LEFT_OUT
    names = [
        field.name
        for field in msgspec.structs.fields(part)
        if (field.name.startswith(begins) or field.name.endswith(ends)) and field.default is not msgspec.NODEFAULT
    ]
    defaults = {field.name: field.default for field in msgspec.structs.fields(part) if field.name in names}
    return msgspec.structs.replace(part, **defaults)


def past_of(letters: Sequence[Letter], config: Config) -> Past:
    """What messages tell of the network."""
    past = Past(ReplyClasses.usable(config.delivery.reply_class_file))
    past.learn(letters)
    return past


def run(config: Config, letters: Sequence[Letter], past: Past, progress: Progress, seed: int = 1) -> Day:
    """Runs the letters, in the order of their instants, through a configuration. `progress`: letters done, of all."""
    with tempfile.TemporaryDirectory(prefix="fastmta-simulate-") as directory:
        loop = VirtualLoop()
        try:
            course = _Course(loop, simulated(config, directory), letters, past, progress, seed)
            return loop.run_until_complete(course.run(Path(directory)))
        finally:
            loop.close()


class _Course:
    """One run."""

    def __init__(
        self, loop: VirtualLoop, config: Config, letters: Sequence[Letter], past: Past, progress: Progress, seed: int
    ) -> None:
        seeded(seed)
        self._loop = loop
        self._config = config
        self._letters = letters
        self._progress = progress
        self._networks = Networks(config.mynetworks)
        self._clock = VirtualClock(loop, letters[0].at - 1.0 if letters else 0.0)
        self._zone = _OpenZone(past)
        self._network = loop.network = _OpenNetwork(past, self._zone, self._clock.now)
        self._classes = past.classes
        self._day = Day()
        self._decode = msgspec.json.Decoder(_Line).decode
        self._made: set[str] = set()  # addresses of ours that were made known
        self._own_domains = {name.lower() for name in config.mailbox_domains}

    async def run(self, directory: Path) -> Day:
        store = VirtualStore.made(directory / "store", self._loop, self._clock)
        try:
            parts = Parts(self._config, store, self._loop, self._clock, self._zone, self._take)
            parts.launcher = _Programs()
            parts.looks.append(self._look)
            self._parts = parts
            parts.start()
            self._look()
            await self._arrivals()
            await self._until_done()
            for _, row in _waiting(store):
                self._of(row.tail.forward_path.decode("utf-8", "backslashreplace")).waiting += 1
            await parts.stop()
        finally:
            store.close()
        self._day.connections = self._network.opened
        return self._day

    async def _arrivals(self) -> None:
        for number, letter in enumerate(self._letters):
            ahead_s = letter.at - self._clock.now()
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
            if number % 100 == 0:
                self._progress(number, len(self._letters))
            await self._arrive(letter)

    async def _arrive(self, letter: Letter) -> None:
        parts = self._parts
        recipients: list[Recipient] = []
        may_relay = self._may_relay(letter)
        for address in letter.recipients:
            row = self._of(address)
            row.recipients += 1
            path = address.encode("utf-8", "surrogateescape")
            resolution = parts.directory.resolve(path, may_relay=may_relay)
            if resolution.refusal is not None and await self._made_known(letter, address):
                row = self._of(address)
                resolution = parts.directory.resolve(path, may_relay=may_relay)
            if resolution.refusal is not None:
                row.refused += 1
                row.replies[f"refused: {resolution.refusal}"] += 1
                continue
            recipients.append(Recipient(path, resolution, NOTIFY_NEVER))  # reports are no mail of that day
        if not recipients:
            return
        sender = letter.sender.encode("utf-8", "surrogateescape")
        if parts.directory.adjusts:
            recipients = parts.directory.adjusted(sender, recipients)
        content = b"Subject: simulated\r\n\r\n"
        content += b"x\r\n" * (max(0, min(letter.size_bytes, _STORED_BYTES) - len(content)) // 3)
        now_ms = int(self._clock.now() * 1000)
        await arrive(parts, Envelope(sender, now_ms, 0, 0, letter.client, letter.login), recipients, content)

    def _may_relay(self, letter: Letter) -> bool:
        if letter.login or "[" not in letter.client:
            return True  # a program of this machine, or nobody says who it was
        return letter.client.rpartition("[")[2].rstrip("]") in self._networks

    async def _made_known(self, letter: Letter, address: str) -> bool:
        """Gives an address of ours that was accepted then, and that no table knows, what it was: an alias of the store,
        or a mailbox. Whether it has one now.
        """
        if not self._is_ours(address) or address in self._made:
            return False
        self._made.add(address)
        became = dict.fromkeys(each for each in letter.became.get(address, ()) if each != address)
        if became:
            await self._parts.store.aliases.add(address, tuple(became))
            for each in became:
                if self._is_ours(each):
                    await self._add_account(each)
        else:
            await self._add_account(address)
        return True

    def _is_ours(self, address: str) -> bool:
        return address.rpartition("@")[2].lower() in self._own_domains

    async def _add_account(self, address: str) -> None:
        local, _, domain = address.rpartition("@")
        for delimiter in self._config.recipient_delimiter:
            local = local.partition(delimiter)[0] or local
        accounts = self._parts.store.accounts
        if accounts.lookup(f"{local}@{domain}") is None:
            await accounts.add(f"{local}@{domain}", "!")

    async def _until_done(self) -> None:
        """Until nothing waits, or for a day behind the last message."""
        end = self._loop.time() + _LINGER_S
        total = len(self._letters)
        while self._loop.time() < end:
            service = self._parts.service
            if not any(self._parts.store.queue.counts().values()) and not service.unrecorded:
                break
            self._progress(total, total)
            await asyncio.sleep(min(300.0, end - self._loop.time()))

    # --- what is seen ---

    def _of(self, address: str) -> Destination:
        return self._day.destinations[address.rpartition("@")[2].lower()]

    def _take(self, lines: bytes) -> None:
        for raw in lines.splitlines():
            line = self._decode(raw)
            happened = line.event
            if happened == "destination.dead":
                self._day.dead[line.next_hop] += 1
            if not happened.startswith("delivery.") or not line.recipient or not line.next_hop:
                continue
            row = self._of(line.recipient)
            if happened == "delivery.delivered":
                row.delivered += 1
                row.routes[line.next_hop] += 1
                row.waited.append(line.delay)
            elif happened == "delivery.bounced":
                row.bounced += 1
                row.routes[line.next_hop] += 1
                row.replies[line.reply[:100]] += 1
            elif happened == "delivery.deferred":
                row.put_off += 1
                row.replies[self._classes.of_text(line.reply)] += 1

    def _look(self) -> None:
        """Once a second: who has mail ready and may not send it, and how much waits."""
        self._loop.call_later(_LOOK_S, self._look)
        service = self._parts.service
        waiting = 0
        for owner in service.owners:
            waiting += len(owner.book.in_flight)
            if not owner.ready:
                continue
            state = owner.state()
            why = str(state.get("shaped") or "").partition(";")[0]
            if " since " in why:  # destination_rate_tuning, with a speed that changes all the time
                why = "it said " + why.partition(" since ")[2][:60]
            elif not why and state["concurrency"] and state["connections"] == state["concurrency"]:
                why = "all connections that it may have are busy"
            if why:
                self._day.held_back[owner.hop_text][why] += 1
        self._day.most_waiting = max(self._day.most_waiting, waiting)


class _Line(msgspec.Struct):
    """What of a line of the log is looked at."""

    event: str
    recipient: str = ""
    next_hop: str = ""
    delay: float = 0.0
    reply: str = ""


def _waiting(store: VirtualStore) -> Iterator[tuple[Any, Any]]:
    after = b""
    while True:
        found, after = store.queue.walk(after=after)
        yield from found
        if not after:
            return
