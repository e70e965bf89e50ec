"""Who is banned, as one worker knows it; and who becomes so for his failures, in all workers and protocols together.

Failures (of a login, of a whole session, talk before the greeting) are counted in the shared table of limits: with
`ban_maxretry` of them within `ban_findtime` an address, or the /64 of an IPv6 address, is banned for `ban_bantime`.
fail2ban's words, and a line of the log for it as fail2ban writes. Bans lie in the store; each worker looks once a
second whether they have changed. Without a ban a connection costs one test.

A flood from many addresses makes many bans at once, so one more costs the same however many there are: it is obeyed
here at once, and all of a second go to the store in one unit. Rows are read a few at a time. Where there are BANS,
nobody else is banned for failures.
"""

import asyncio
import ipaddress
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, Protocol

from fastmta._limits import Table
from fastmta.model.errors import FastMTAError
from fastmta.model.limited import What
from fastmta.model.limits import BANS
from fastmta.policy.networks import ChangingNetworks, Networks
from fastmta.runtime.clock import Clock
from fastmta.runtime.log import Log
from fastmta.store.bans import Ban

FORGET_S: Final = 60.0  # between two looks for bans that are over
KEEP_S: Final = 1.0  # between two units of the store with new bans
_ROWS: Final = 200  # read in one turn, under a millisecond
_IPV6_PREFIX: Final = 64  # whoever has an address has all of it


class BansConfig(Protocol):
    @property
    def ban_maxretry(self) -> int: ...
    @property
    def ban_findtime(self) -> float: ...
    @property
    def ban_bantime(self) -> float: ...
    @property
    def ban_ignoreip(self) -> tuple[str, ...]: ...


class StoredBans(Protocol):
    @property
    def version(self) -> int: ...
    def pages(self, rows: int) -> Iterator[list[Ban]]: ...
    async def add_many(self, bans: list[Ban]) -> int: ...
    async def forget_over(self) -> None: ...


Spawn = Callable[[str, Coroutine[Any, Any, None]], Any]


class Bans:
    """The bans of one worker."""

    __slots__ = (
        "_banned",
        "_clock",
        "_config",
        "_forgets",
        "_forgotten_at",
        "_fresh",
        "_ignored",
        "_kept_at",
        "_log",
        "_next_end_ms",
        "_reading",
        "_spawn",
        "_stored",
        "_table",
        "_version",
    )

    def __init__(
        self,
        stored: StoredBans,
        table: Table,
        config: BansConfig,
        log: Log,
        clock: Clock,
        spawn: Spawn,
        *,
        forgets: bool,
    ) -> None:
        """`forgets`: this worker deletes what is over, for all."""
        self._stored = stored
        self._table = table
        self._log = log
        self._clock = clock
        self._spawn = spawn
        self._forgets = forgets
        self._forgotten_at = 0.0
        self._banned = ChangingNetworks(())
        self._fresh: dict[str, Ban] = {}  # not in the store yet
        self._kept_at = -KEEP_S
        self._reading = False
        self._next_end_ms = 0
        self._version = -1
        self.configure(config)

    def configure(self, config: BansConfig) -> None:
        self._config = config
        self._ignored = Networks(config.ban_ignoreip)

    def is_banned(self, ip: str) -> bool:
        return bool(self._banned) and ip in self._banned

    def look(self) -> None:
        """Once a second: what others have banned, what is over, and what is to be kept. StorageFailure."""
        now_ms = int(self._clock.now() * 1000)
        if not self._reading and (self._stored.version != self._version or 0 < self._next_end_ms <= now_ms):
            is_first = self._version < 0
            reading = self._read(now_ms)
            if is_first:  # nobody has been served yet
                for _ in reading:
                    pass
            else:
                self._reading = True
                self._spawn("bans.read", self._read_on(reading))
        now = self._clock.monotonic()
        if self._forgets and now - self._forgotten_at >= FORGET_S:
            self._forgotten_at = now
            self._spawn("bans.forget", self._stored.forget_over())
        self._keep_soon()

    def _read(self, now_ms: int) -> Iterator[None]:
        """Takes up the store's bans, some rows at a time."""
        version = self._stored.version
        found: set[str] = set()
        next_end_ms = 0
        for page in self._stored.pages(_ROWS):
            for ban in page:
                if 0 < ban.until_ms <= now_ms:
                    continue
                found.add(ban.network)
                if ban.until_ms and not 0 < next_end_ms < ban.until_ms:
                    next_end_ms = ban.until_ms
                if not self._banned.has(ban.network):
                    self._banned.add(ban.network)
            yield
        for network in [each for each in self._banned if each not in found and each not in self._fresh]:
            self._banned.discard(network)
        self._next_end_ms = next_end_ms
        self._version = version  # of before: what changed meanwhile is read at the next look

    async def _read_on(self, reading: Iterator[None]) -> None:
        try:
            for _ in reading:
                await asyncio.sleep(0)
        except FastMTAError:
            pass  # those that are known stay; what cannot be read is told by who needs it
        finally:
            self._reading = False

    def failed(self, ip: str, reason: str) -> None:
        """An address has failed once; with too many it is banned."""
        most = self._config.ban_maxretry
        if not most or not ip or ip in self._ignored:
            return
        try:
            network = network_of(ip)
        except ValueError:
            return
        window_s = max(1, int(self._config.ban_findtime))
        now = int(self._clock.monotonic())
        number = int(network.network_address)
        kind = (What.FAILURES << 8) | (network.version == 6)
        key = (number >> 64, number & (2**64 - 1)) if network.version == 6 else (number, 0)
        if not self._table.take(kind, *key, 1, most - 1, window_s, now):
            return
        text = _text(network)
        if self._banned.has(text) or len(self._banned) >= BANS:
            return
        self._table.forget(kind, *key)
        seconds = self._config.ban_bantime
        self._banned.add(text)  # here at once, elsewhere within two seconds
        self._log.warning(
            "ban.added", client=ip, network=text, reason=reason, failures=most, seconds=seconds, by="failures"
        )
        now_ms = int(self._clock.now() * 1000)
        why = f"{most} failures, the last: {reason}"
        self._fresh[text] = Ban(text, now_ms, now_ms + int(seconds * 1000), why, "")
        self._keep_soon()

    def _keep_soon(self) -> None:
        """Gives the store what is new: at once where it had nothing lately, else at the next look."""
        now = self._clock.monotonic()
        if self._fresh and now - self._kept_at >= KEEP_S:
            self._kept_at = now
            self._spawn("bans.add", self._keep(list(self._fresh.values())))

    async def _keep(self, bans: list[Ban]) -> None:
        try:
            without_room = await self._stored.add_many(bans)
            if without_room:
                self._log.warning("ban.not_kept", bans=without_room, cause=f"{BANS} addresses are banned already")
        except FastMTAError as error:
            self._log.warning("ban.not_kept", bans=len(bans), cause=str(error) or type(error).__name__)
        for ban in bans:
            if self._fresh.get(ban.network) is ban:
                del self._fresh[ban.network]


def network_of(ip: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """Whom a failure of an address is counted to. ValueError: it is none."""
    address = ipaddress.ip_address(ip.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        else:
            return ipaddress.IPv6Network((address, _IPV6_PREFIX), strict=False)
    return ipaddress.IPv4Network(address)


def canonical(text: str) -> str:
    """An address or network as bans are kept: "192.0.2.1", "192.0.2.0/24". ValueError: it is neither."""
    return _text(ipaddress.ip_network(text.strip().replace("[", "").replace("]", ""), strict=False))


def _text(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> str:
    return str(network.network_address) if network.prefixlen == network.max_prefixlen else str(network)
