"""The names of clients, as Postfix has them (smtpd_peername_lookup): an address has a name where the DNS says so both
ways, from the address to the name and back. Where it does not, the client is "unknown".

Addresses of loopback are not asked for: 127.0.0.1 and ::1 are "localhost", the others are "unknown" (RFC 6303).
What was found is kept for a while by address, so a client that comes often costs one look into a dictionary.
"""

import asyncio
import ipaddress
import re
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

import msgspec

from fastmta.dns.cache import TtlCache
from fastmta.dns.resolver import LookupTrouble, NotFound
from fastmta.model.limits import CLIENT_NAME_S, CLIENT_NAMES, CLIENT_PTR_NAMES
from fastmta.policy.networks import is_loopback

UNKNOWN_NAME: Final = "unknown"
_KEPT_S: Final = 300.0  # of a name, and of its absence
_TROUBLE_KEPT_S: Final = 30.0  # of an answer that did not come
_HOST: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*")


class ClientName(msgspec.Struct, frozen=True):
    """What a client is called."""

    name: str = UNKNOWN_NAME  # confirmed: its addresses have the client's among them
    reverse: str = UNKNOWN_NAME  # what the address itself points to, confirmed or not
    is_certain: bool = True  # False: the DNS did not answer, so another time may find a name


class Names(Protocol):
    """What of dns.Resolver is asked."""

    def ptr(self, address: str) -> Awaitable[tuple[str, ...]]: ...
    def addresses(self, name: str) -> Awaitable[tuple[str, ...]]: ...


NOBODY: Final = ClientName()
_LOCALHOST: Final = ClientName("localhost", "localhost")


class ClientNames:
    """The names of clients that came lately."""

    __slots__ = ("_deadline_s", "_found", "_resolver")

    def __init__(self, resolver: Names, monotonic: Callable[[], float], deadline_s: float = CLIENT_NAME_S) -> None:
        self._resolver = resolver
        self._deadline_s = deadline_s
        self._found: TtlCache[ClientName] = TtlCache(monotonic, CLIENT_NAMES)

    def known(self, ip: str) -> ClientName | None:
        """The name of an address, where no question is needed."""
        found = self._found.get(ip, "PTR")
        if found is None and is_loopback(ip):
            found = _LOCALHOST if ip in ("127.0.0.1", "::1", "") else NOBODY
        return found

    async def find(self, ip: str) -> ClientName:
        """Asks the DNS, for CLIENT_NAME_S at most."""
        try:
            found = await asyncio.wait_for(self._ask(ip), self._deadline_s)
        except (LookupTrouble, TimeoutError):
            found = ClientName(is_certain=False)
        self._found.put(ip, "PTR", found, _KEPT_S if found.is_certain else _TROUBLE_KEPT_S)
        return found

    async def _ask(self, ip: str) -> ClientName:
        address = ipaddress.ip_address(ip.partition("%")[0])
        try:
            names = [name for name in await self._resolver.ptr(str(address)) if _is_name(name)][:CLIENT_PTR_NAMES]
        except NotFound:
            return NOBODY
        reverse = names[0] if names else UNKNOWN_NAME
        trouble = False
        for name in names:
            try:
                if address in map(ipaddress.ip_address, await self._resolver.addresses(name)):
                    return ClientName(name, reverse)
            except NotFound:
                continue
            except LookupTrouble:
                trouble = True
        return ClientName(UNKNOWN_NAME, reverse, not trouble)


def _is_name(name: str) -> bool:
    """Whether the DNS gave a host's name: no address, and nothing that a log or a header would have to escape."""
    return len(name) <= 253 and bool(_HOST.fullmatch(name)) and not name.replace(".", "").isdigit()
