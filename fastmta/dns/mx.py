"""From a destination's name to the addresses to try, in order: RFC 5321 §5.1, with Postfix's limits.

Hosts go by MX preference, in random order within one preference; no MX record means the domain itself. At most
`address_limit` addresses are given, with a share for each family, so that a dead IPv6 cannot hide IPv4. What must never
be tried is left out here: an MX on loopback, one in a private network for mail with the null sender (who writes a
domain's DNS must not make our reports knock at hosts behind our firewall), and ourselves, with all that is not better.
"""

import asyncio
import ipaddress
import random
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import msgspec

from fastmta.config.values import parse_endpoint
from fastmta.dns.resolver import LookupTrouble, NotFound, Resolver
from fastmta.model.errors import PermanentFailure, TemporaryFailure
from fastmta.model.reply import Reply
from fastmta.model.routes import written_address
from fastmta.model.services import speaking

if TYPE_CHECKING:
    from fastmta.config.delivery_keys import DeliveryConfig
    from fastmta.config.schema import Config

HOSTS_ASKED: Final = 20  # MX hosts whose addresses are looked up; a domain may list thousands

_PRIVATE: Final = tuple(
    ipaddress.ip_network(network) for network in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
)
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


class Address(msgspec.Struct, frozen=True, gc=False):
    """One address to connect to; `host` is the name by which it was found, for logs and TLS.

    `domain` is the destination that was asked for where an MX record led to `host`, "" where they are the same.
    """

    host: str
    ip: str
    port: int
    preference: int = 0
    domain: str = ""
    private: bool = False  # an MX in a private network: not for mail with the null sender
    next_hop: str = ""  # as the route has it: "[host]:port", "domain"


class Ourselves:
    """Knows whether an address and port is one of our own listeners."""

    __slots__ = ("_any", "_exact")

    def __init__(self, listeners: Iterable[str] = ()) -> None:
        """`listeners`: "host:port" as in [listen]; unix sockets are passed over."""
        self._exact: set[tuple[str, int]] = set()
        self._any: set[int] = set()
        for text in listeners:
            endpoint = parse_endpoint(text)
            if endpoint.path:
                continue
            for host in ("127.0.0.1", "::1") if endpoint.host == "localhost" else (endpoint.host,):
                try:
                    address = _plain(host)
                except ValueError:  # a name: of this machine, and who knows when it is looked up
                    self._any.add(endpoint.port)
                    continue
                if address.is_unspecified:
                    self._any.add(endpoint.port)
                else:
                    self._exact.add((str(address), endpoint.port))

    def __contains__(self, place: tuple[str, int]) -> bool:
        ip, port = _reached(place[0]), place[1]
        if (ip, port) in self._exact:
            return True
        return port in self._any and _is_here(ip)

    def have(self, ip: str) -> bool:
        """Whether an address is one that we listen on, whatever the port."""
        ip = _reached(ip)
        return any(host == ip for host, _ in self._exact) or (bool(self._any) and _is_here(ip))


def ourselves(config: "Config") -> Ourselves:
    """Our own listeners of SMTP and LMTP, and what stands before them (Postfix's proxy_interfaces)."""
    port = config.delivery.smtp_tcp_port
    own = [text for name in speaking("smtp", "lmtp") for text in config.listen.of(name)]
    fronts = [f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip in config.proxy_interfaces]
    return Ourselves([*own, *fronts])


def _is_here(ip: str) -> bool:
    """Whether an address is this machine's."""
    # Whether an address is this machine's is what bind(2) knows best, also after an interface came up.
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((ip, 0))
    except OSError:
        return False
    return True


class MxLookup:
    """Finds the addresses of destinations. Raises PermanentFailure or TemporaryFailure with the reply to record."""

    def __init__(
        self,
        resolver: Resolver,
        ourselves: Ourselves,
        delivery: "DeliveryConfig",
        *,
        shuffle: Callable[[list[tuple[int, str]]], None] = random.shuffle,
    ) -> None:
        self._resolver = resolver
        self._host_lookup = tuple(delivery.smtp_host_lookup)
        self._ourselves = ourselves
        self._allow_loopback_mx = delivery.allow_loopback_mx
        self._address_limit = delivery.smtp_mx_address_limit
        self._shuffle = shuffle
        self._first = {"ipv4": 4, "ipv6": 6}.get(delivery.smtp_address_preference, 0)

    async def by_mx(self, domain: str, port: int, *, null_sender: bool = False) -> list[Address]:
        """The addresses of a domain's mail exchangers, at least one; those in private networks only for mail that
        somebody sent.
        """
        hosts = await self._exchangers(domain)
        found: list[Address] = []
        trouble: LookupTrouble | None = None
        for preference, host in hosts[:HOSTS_ASKED]:
            families = {":" in address.ip for address in found}
            enough = len(found) >= self._address_limit and len(families) == 2
            if enough and preference > found[-1].preference:  # among equal ones we may be, and send to none of them
                break
            try:
                for ip in await self._addresses(host):
                    private = not self._allow_loopback_mx and is_private(ip)
                    found.append(Address(host, ip, port, preference, domain, private))
            except NotFound:
                continue
            except LookupTrouble as error:
                trouble = error
        if not found:
            if trouble is not None:
                raise TemporaryFailure(Reply(450, "4.4.3", f"Host or domain name not found: {trouble}")) from trouble
            if len(hosts) == 1 and hosts[0][1] == domain:
                raise PermanentFailure(Reply(550, "5.4.4", f"Host or domain name not found: {domain}"))
            raise PermanentFailure(Reply(550, "5.4.4", f"No mail exchanger of {domain} has an address"))
        found = self._without_ourselves(domain, found)
        usable = [address for address in found if self._allow_loopback_mx or _may_try(address, null_sender)]
        if not usable:
            raise PermanentFailure(unusable(domain, found[0].ip))
        return _balance(self._ordered(usable), self._address_limit)

    async def by_name(self, host: str, port: int) -> list[Address]:
        """The addresses of a host that an administrator's route names: no MX, and loopback is as good as any."""
        literal = written_address(host)
        if literal is not None:
            ips: tuple[str, ...] = (literal,)
        else:
            try:
                ips = ("::1", "127.0.0.1") if host == "localhost" else await self._addresses(host)
            except NotFound as error:
                raise PermanentFailure(Reply(550, "5.4.4", f"Host not found: {error}")) from error
            except LookupTrouble as error:
                raise TemporaryFailure(Reply(450, "4.4.3", f"Host not found: {error}")) from error
        found = self._without_ourselves(host, [Address(host, ip, port) for ip in ips])
        return _balance(self._ordered(found), self._address_limit)

    def _ordered(self, found: list[Address]) -> list[Address]:
        """With the addresses of smtp_address_preference first among those of one MX preference."""
        if self._first:
            found.sort(key=lambda address: (address.preference, (":" in address.ip) != (self._first == 6)))
        return found

    async def _addresses(self, host: str) -> tuple[str, ...]:
        """As Resolver.addresses, by the first of smtp_host_lookup that knows the host; trouble ends the search."""
        missing: NotFound | None = None
        for where in self._host_lookup:
            try:
                return await (native_addresses(host) if where == "native" else self._resolver.addresses(host))
            except NotFound as error:
                missing = error
        assert missing is not None
        raise missing

    async def _exchangers(self, domain: str) -> list[tuple[int, str]]:
        try:
            records = await self._resolver.mx(domain)
        except NotFound as error:
            if error.name_exists:
                return [(0, domain)]  # the implicit MX, RFC 5321 §5.1
            raise PermanentFailure(Reply(550, "5.4.4", f"Host or domain name not found: {domain}")) from error
        except LookupTrouble as error:
            raise TemporaryFailure(Reply(450, "4.4.3", f"Host or domain name not found: {error}")) from error
        if all(not host for _, host in records):
            raise PermanentFailure(Reply(556, "5.1.10", f"Domain {domain} does not accept mail (null MX)"))  # RFC 7505
        hosts = [record for record in records if record[1]]
        self._shuffle(hosts)
        hosts.sort(key=lambda record: record[0])
        return hosts

    def _without_ourselves(self, name: str, found: list[Address]) -> list[Address]:
        """Without our own addresses and all that are not preferred to them (RFC 5321 §5.1)."""
        own = [address.preference for address in found if (address.ip, address.port) in self._ourselves]
        if not own:
            return found
        better = [address for address in found if address.preference < min(own)]
        if not better:
            raise PermanentFailure(Reply(554, "5.4.6", f"Mail for {name} loops back to myself"))
        return better


async def native_addresses(host: str) -> tuple[str, ...]:
    """A host's addresses as this system finds them (nsswitch.conf). Raises NotFound and LookupTrouble."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        if error.errno in (socket.EAI_NONAME, socket.EAI_NODATA):
            raise NotFound(host, "A", name_exists=False) from error
        raise LookupTrouble(f"{host}: {error.strerror}") from error
    except UnicodeError as error:  # a label that is too long for the codec
        raise NotFound(host, "A", name_exists=False) from error
    return tuple(dict.fromkeys(str(each[4][0]) for each in found))


def _reached(ip: str) -> str:
    """The address that a connection to `ip` arrives at: the unspecified one means loopback, a mapped one is IPv4."""
    if ":" in ip:
        address = ipaddress.IPv6Address(ip)
        if address.ipv4_mapped is None:
            return "::1" if address.is_unspecified else str(address)
        ip = str(address.ipv4_mapped)
    return "127.0.0.1" if ip == "0.0.0.0" else ip


def unusable(domain: str, ip: str) -> Reply:
    """What mail to a domain bounces with whose exchangers all have addresses that mail is not sent to."""
    return Reply(550, "5.4.4", f"The mail exchanger of {domain} has an address that mail is not sent to: {ip}")


def _may_try(address: Address, null_sender: bool) -> bool:
    return not null_sender if address.private else not is_internal(address.ip)


def is_private(ip: str) -> bool:
    """Whether an address is in a private network (RFC 1918, RFC 4193)."""
    address = _plain(ip)
    return any(address.version == network.version and address in network for network in _PRIVATE)


def _plain(ip: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address, or that of IPv4 which it stands for: mapped, by this site's NAT64 (RFC 6052), or by 6to4."""
    address = ipaddress.ip_address(ip)
    if isinstance(address, ipaddress.IPv6Address):
        translated = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF) if address in _NAT64 else None
        return address.ipv4_mapped or translated or address.sixtofour or address
    return address


def is_internal(ip: str) -> bool:
    """Whether an address is loopback, link-local, private or none at all: no place of mail from outside."""
    address = _plain(ip)
    return (
        address.is_loopback
        or address.is_unspecified
        or address.is_link_local
        or address.is_multicast
        or (address.version == 4 and address in ipaddress.ip_network("0.0.0.0/8"))
        or is_private(ip)
    )


def _balance(found: list[Address], limit: int) -> list[Address]:
    """The first `limit` addresses in order, with at least half of the places for either family that has so many."""
    if len(found) <= limit:
        return found
    six = sum(1 for address in found if ":" in address.ip)
    six_places = min(six, max(limit // 2, limit - (len(found) - six)))
    places = {True: six_places, False: limit - six_places}
    out = []
    for address in found:
        family = ":" in address.ip
        if places[family] > 0:
            places[family] -= 1
            out.append(address)
    return out
