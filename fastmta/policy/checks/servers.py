"""What the DNS says of a domain's servers, for check_*_a_access, check_*_mx_access, check_*_ns_access and
permit_mx_backup.

Whoever writes a domain's DNS chooses how much there is: hosts, addresses and parents that are asked for are bounded.
"""

import ipaddress
import re
from collections.abc import AsyncIterator
from typing import Final

import idna

from fastmta.config.schema import Config
from fastmta.dns.mx import ourselves
from fastmta.dns.resolver import LookupTrouble, NotFound, Resolver
from fastmta.model.limits import SERVER_ADDRESSES, SERVER_HOSTS, SERVER_PARENTS
from fastmta.policy.networks import Networks

_HOST: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(?:\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
Key = tuple[str, str]


class Servers:
    """Asks one resolver."""

    def __init__(self, config: Config, resolver: Resolver) -> None:
        self._resolver = resolver
        self._ourselves = ourselves(config)
        self._our_names = frozenset({config.myhostname.lower(), *config.mydestination})
        self._primaries = Networks(config.permit_mx_backup_networks)

    def have(self, ip: str) -> bool:
        """Whether an address is one that we listen on (permit_inet_interfaces)."""
        return bool(ip) and self._ourselves.have(ip)

    async def keys(self, name: str, kind: str) -> AsyncIterator[Key]:
        """What access tables are asked about a domain's servers: each one's name, ("domain", host), and its addresses,
        ("address", ip). `kind`: "a", "mx" or "ns"; an address literal is its own server. Raises LookupTrouble where the
        servers themselves cannot be told.
        """
        if name.startswith("["):
            literal = _literal(name) if kind != "ns" else ""
            if literal:
                yield "address", literal
            return
        domain = _ascii(name)
        addresses = 0
        for host in (await self._hosts(domain, kind))[:SERVER_HOSTS]:
            if kind != "a":
                yield "domain", host
            try:
                found = await self._addresses(host)
            except (NotFound, LookupTrouble):
                continue
            for ip in found:
                addresses += 1
                if addresses > SERVER_ADDRESSES:
                    return
                yield "address", ip

    async def _hosts(self, domain: str, kind: str) -> list[str]:
        if kind == "a":
            return [domain]
        if kind == "mx":
            try:
                return [host for _, host in sorted(await self._resolver.mx(_asked(domain))) if host]
            except NotFound:
                return [domain]
        labels = domain.split(".")
        above = [".".join(labels[place:]) for place in range(1, len(labels))]
        for name in (domain, *above[-SERVER_PARENTS:]):
            try:
                return list(await self._resolver.ns(_asked(name)))
            except NotFound:
                continue
        return []

    async def _addresses(self, host: str) -> tuple[str, ...]:
        return await self._resolver.addresses(_asked(host))

    async def are_backup(self, domain: str) -> bool:
        """Whether we are an MX of a domain, but none of its best ones. Raises LookupTrouble."""
        try:
            found = sorted(await self._resolver.mx(_asked(_ascii(domain))))[:SERVER_HOSTS]
        except NotFound:
            return False
        best = [host for preference, host in found if preference == found[0][0]]
        others = [host for preference, host in found if preference != found[0][0]]
        trouble: list[LookupTrouble] = []
        if await self._are_among(best, trouble):
            return False
        if not await self._are_among(others, trouble):
            if trouble:
                raise trouble[0]
            return False
        return not self._primaries or await self._are_primaries(best)

    async def _are_among(self, hosts: list[str], trouble: list[LookupTrouble]) -> bool:
        if any(host in self._our_names for host in hosts):
            return True
        for host in hosts:
            try:
                if any(map(self.have, await self._addresses(host))):
                    return True
            except NotFound:
                continue
            except LookupTrouble as error:
                trouble.append(error)
        return False

    async def _are_primaries(self, hosts: list[str]) -> bool:
        for host in hosts:
            try:
                found = await self._addresses(host)
            except NotFound as absence:
                raise LookupTrouble(str(absence)) from None
            if not all(ip in self._primaries for ip in found):
                return False
        return True


def _literal(name: str) -> str:
    """The address in "[192.0.2.1]" or "[IPv6:2001:db8::1]"; "" where there is none."""
    text = name[1:-1] if name.endswith("]") else ""
    try:
        return str(ipaddress.ip_address(text[5:] if text[:5].upper() == "IPV6:" else text))
    except ValueError:
        return ""


def _asked(name: str) -> str:
    """A name that the DNS may be asked for; what is none is in nobody's DNS. Raises NotFound."""
    if not _HOST.fullmatch(name):
        raise NotFound(name, "any", name_exists=False)
    return name


def _ascii(name: str) -> str:
    name = name.rstrip(".").lower()
    if name.isascii():
        return name
    try:
        return idna.encode(name, uts46=True).decode("ascii").lower()
    except (UnicodeError, idna.IDNAError):
        return ""
