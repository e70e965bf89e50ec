"""Who is banned, as one worker knows it; and who becomes so for his failures, in all workers and protocols together.

Failures (of a login, of a whole session, talk before the greeting) are counted in the shared table of limits: with
`ban_maxretry` of them within `ban_findtime` an address, or the /64 of an IPv6 address, is banned for `ban_bantime`.
fail2ban's words, and a line of the log for it as fail2ban writes. Bans lie in the store; each worker looks once a
second whether they have changed. Without a ban a connection costs one test.
"""

import ipaddress
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, Protocol

from fastmta._limits import Table
from fastmta.model.errors import FastMTAError
from fastmta.model.limited import What
from fastmta.policy.networks import Networks
from fastmta.runtime.clock import Clock
from fastmta.runtime.log import Log

FORGET_S: Final = 60.0  # between two looks for bans that are over
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


class Ban(Protocol):
    @property
    def network(self) -> str: ...
    @property
    def until_ms(self) -> int: ...


class StoredBans(Protocol):
    @property
    def version(self) -> int: ...
    def all(self) -> Iterable[Ban]: ...
    async def add(self, network: str, until_ms: int, reason: str, by: str) -> Ban: ...
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
        "_ignored",
        "_log",
        "_next_end_ms",
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
        self._banned = Networks(())
        self._next_end_ms = 0
        self._version = -1
        self.configure(config)

    def configure(self, config: BansConfig) -> None:
        self._config = config
        self._ignored = Networks(config.ban_ignoreip)

    def is_banned(self, ip: str) -> bool:
        return bool(self._banned) and ip in self._banned

    def look(self) -> None:
        """Once a second: what others have banned, and what is over. StorageFailure."""
        version = self._stored.version
        now_ms = int(self._clock.now() * 1000)
        if version != self._version or 0 < self._next_end_ms <= now_ms:
            self._version = version
            kept = [ban for ban in self._stored.all() if not 0 < ban.until_ms <= now_ms]
            self._banned = Networks(ban.network for ban in kept)
            self._next_end_ms = min((ban.until_ms for ban in kept if ban.until_ms), default=0)
        now = self._clock.monotonic()
        if self._forgets and now - self._forgotten_at >= FORGET_S:
            self._forgotten_at = now
            self._spawn("bans.forget", self._stored.forget_over())

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
        self._table.forget(kind, *key)
        text = _text(network)
        if text in self._banned:
            return
        seconds = self._config.ban_bantime
        self._banned = Networks((*self._banned, text))  # here at once, elsewhere within a second
        self._log.warning(
            "ban.added", client=ip, network=text, reason=reason, failures=most, seconds=seconds, by="failures"
        )
        until_ms = int((self._clock.now() + seconds) * 1000)
        self._spawn("bans.add", self._keep(text, until_ms, f"{most} failures, the last: {reason}"))

    async def _keep(self, network: str, until_ms: int, reason: str) -> None:
        try:
            await self._stored.add(network, until_ms, reason, "")
        except FastMTAError as error:
            self._log.warning("ban.not_kept", network=network, cause=str(error) or type(error).__name__)


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
