"""SPF: whether an address may send for a domain (RFC 7208). One `check` a message; look-ups and time are bounded."""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Final, NamedTuple, Protocol

from fastmta.authentication.asking import at_once
from fastmta.authentication.spf_record import (
    Mechanism,
    Record,
    RecordError,
    check_macros,
    expand,
    is_queryable,
    is_record,
    letters_in,
    parse_record,
    shortened,
)
from fastmta.dns.resolver import LookupTrouble, NotFound
from fastmta.model.limits import (
    SPF_CLIENTS,
    SPF_EXPLANATION_BYTES,
    SPF_LOOKUPS,
    SPF_NAMES,
    SPF_TIME_S,
    SPF_VOID_LOOKUPS,
)

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_VALIDATING: Final = frozenset("p")


class SpfDns(Protocol):
    """What of dns.resolver.Resolver is asked here."""

    def txt(self, name: str) -> Awaitable[tuple[bytes, ...]]: ...
    def a(self, name: str) -> Awaitable[tuple[str, ...]]: ...
    def aaaa(self, name: str) -> Awaitable[tuple[str, ...]]: ...
    def mx(self, domain: str) -> Awaitable[tuple[tuple[int, str], ...]]: ...
    def ptr(self, address: str) -> Awaitable[tuple[str, ...]]: ...


class SpfVerdict(NamedTuple):
    """The result, and the domain that was asked: MAIL's, or HELO's where the sender is null."""

    result: str  # none neutral pass fail softfail temperror permerror
    domain: str
    explanation: str = ""  # the domain owner's words for a fail, or why there was an error
    lookups: int = 0  # terms that asked the DNS
    from_helo: bool = False


class _PermError(Exception):
    """permerror, with its reason."""


async def check_spf(
    dns: SpfDns,
    client_ip: str,
    helo: str,
    sender: str,
    *,
    receiver: str = "unknown",
    now: Callable[[], float] = lambda: 0.0,
    time_s: float = SPF_TIME_S,
) -> SpfVerdict:
    """The verdict on MAIL FROM `sender` ("" for the null sender: HELO is asked, §2.4) by a client at `client_ip`."""
    check = _Check(dns, client_ip, helo, sender, receiver, now)
    try:
        async with asyncio.timeout(time_s):
            verdict = await check.verdict()
    except TimeoutError:
        return check.said("temperror", "it took too long")
    if verdict.result != "fail":
        return verdict
    return verdict._replace(explanation=await check.explained(time_s))


def spf_at_once(dns: SpfDns, client_ip: str, helo: str, sender: str) -> SpfVerdict | None:
    """The same where all answers are known already and nobody explains a failure; None: `check_spf` has to be asked."""
    check = _Check(dns, client_ip, helo, sender, "", lambda: 0.0)
    verdict = at_once(check.verdict())
    return None if verdict is None or check.explains else verdict


@lru_cache(SPF_CLIENTS)
def _address(text: str) -> IpAddress:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _a_labels(domain: str) -> str:
    import idna

    if len(domain) > 255:
        return domain
    try:
        return idna.encode(domain, uts46=True).decode("ascii")
    except (UnicodeError, idna.IDNAError):
        return domain


class _Check:
    """One evaluation: its counters, and what macros stand for."""

    def __init__(
        self,
        dns: SpfDns,
        client_ip: str,
        helo: str,
        sender: str,
        receiver: str,
        now: Callable[[], float],
    ) -> None:
        local_part, _, domain = sender.rpartition("@")
        self._from_helo = not domain
        if self._from_helo:
            local_part, domain = "postmaster", helo
        domain = domain.lower().removesuffix(".")
        if not domain.isascii():
            domain = _a_labels(domain)
        self._dns = dns
        self._address = _address(client_ip)
        self._helo = helo
        self._local_part = local_part or "postmaster"
        self._sender_domain = domain
        self._receiver = receiver
        self._now = now
        self._void = 0
        self._names: tuple[str, ...] | None = None  # PTR's, once asked for
        self.lookups = 0
        self._explain_by: tuple[str, str] | None = None  # exp= of the record that said fail, and its domain

    @property
    def explains(self) -> bool:
        """Whether the domain's owner has more to say of a failure."""
        return self._explain_by is not None

    def said(self, result: str, explanation: str = "") -> SpfVerdict:
        return SpfVerdict(result, self._sender_domain, explanation, self.lookups, self._from_helo)

    async def verdict(self) -> SpfVerdict:
        """The verdict, a failure without its owner's explanation."""
        domain = self._sender_domain
        if "." not in domain or not is_queryable(domain) or domain.startswith("["):
            return self.said("none")
        try:
            return self.said(await self.host(domain, top=True))
        except LookupTrouble as error:
            return self.said("temperror", str(error))
        except (_PermError, RecordError) as error:
            return self.said("permerror", str(error))

    async def host(self, domain: str, *, top: bool) -> str:
        """check_host() of §4 for one domain; `top` is false inside of an include, whose explanation is not ours."""
        record = await self._record(domain)
        if record is None:
            return "none"
        for mechanism in record.mechanisms:
            if await self._matches(mechanism, domain):
                if mechanism.result == "fail" and top and record.explanation:
                    self._explain_by = (record.explanation, domain)
                return mechanism.result
        if not record.redirect or any(mechanism.kind == "all" for mechanism in record.mechanisms):
            return "neutral"
        self._count()
        target = await self._target(record.redirect, domain)
        result = await self.host(target, top=top) if is_queryable(target) else "none"
        if result == "none":
            raise _PermError(f"redirect to {target}, which has no record")
        return result

    async def _record(self, domain: str) -> Record | None:
        try:
            texts = await self._dns.txt(domain)
        except NotFound:
            return None
        records = [text for text in texts if is_record(text)]
        if len(records) > 1:
            raise _PermError(f"{domain} has {len(records)} records")
        return parse_record(records[0]) if records else None

    def _count(self) -> None:
        self.lookups += 1
        if self.lookups > SPF_LOOKUPS:
            raise _PermError(f"more than {SPF_LOOKUPS} terms ask the DNS")

    def _nothing(self) -> None:
        self._void += 1
        if self._void > SPF_VOID_LOOKUPS:
            raise _PermError(f"more than {SPF_VOID_LOOKUPS} look-ups found nothing")

    async def _matches(self, mechanism: Mechanism, domain: str) -> bool:
        kind = mechanism.kind
        if kind == "all":
            return True
        if mechanism.network is not None:
            return self._address in mechanism.network
        self._count()
        target = await self._target(mechanism.domain, domain) if mechanism.domain else domain
        if not is_queryable(target):
            if kind == "include":
                raise _PermError("an include of a name that cannot exist")
            return False
        if kind == "include":
            result = await self.host(target, top=False)
            if result == "none":
                raise _PermError(f"an include of {target}, which has no record")
            return result == "pass"
        if kind == "exists":
            return bool(await self._found(self._dns.a, target))
        if kind == "a":
            return self._is_in(await self._addresses(target), mechanism)
        if kind == "mx":
            return await self._is_mx(target, mechanism)
        return await self._is_ptr(target)

    async def _found(self, ask: Callable, name: str) -> tuple:  # type: ignore[type-arg]
        """What there is, or nothing, which counts as void."""
        try:
            return tuple(await ask(name))
        except NotFound:
            self._nothing()
            return ()

    async def _addresses(self, name: str, *, counts: bool = True) -> tuple[str, ...]:
        ask = self._dns.a if self._address.version == 4 else self._dns.aaaa
        try:
            return await ask(name)
        except NotFound:
            if counts:
                self._nothing()
            return ()

    def _is_in(self, addresses: tuple[str, ...], mechanism: Mechanism) -> bool:
        prefix = mechanism.prefix4 if self._address.version == 4 else mechanism.prefix6
        size = self._address.max_prefixlen
        own = int(self._address) >> (size - prefix)
        family = socket.AF_INET if size == 32 else socket.AF_INET6
        return any(int.from_bytes(socket.inet_pton(family, one)) >> (size - prefix) == own for one in addresses)

    async def _is_mx(self, target: str, mechanism: Mechanism) -> bool:
        hosts = await self._found(self._dns.mx, target)
        if len(hosts) > SPF_NAMES:
            raise _PermError(f"more than {SPF_NAMES} MX hosts")
        empty = bool(hosts)
        for _, host in hosts:
            addresses = await self._addresses(host, counts=False) if is_queryable(host) else ()
            if self._is_in(addresses, mechanism):
                return True
            empty &= not addresses
        if empty:  # once a term: an IPv6 client of a domain with three IPv4 hosts is no error (§4.6.4)
            self._nothing()
        return False

    async def _validated(self) -> tuple[str, ...]:
        """The client's names that lead back to its address (§5.5)."""
        if self._names is None:
            self._names = ()
            try:
                names = await self._dns.ptr(str(self._address))
            except NotFound:
                self._nothing()
                return ()
            except LookupTrouble:
                return ()
            valid = []
            for name in names[:SPF_NAMES]:
                try:
                    addresses = await self._addresses(name, counts=False) if is_queryable(name) else ()
                except LookupTrouble:
                    continue
                if any(ipaddress.ip_address(text) == self._address for text in addresses):
                    valid.append(name.lower().removesuffix("."))
            self._names = tuple(valid)
        return self._names

    async def _is_ptr(self, target: str) -> bool:
        wanted = target.lower().removesuffix(".")
        return any(name == wanted or name.endswith("." + wanted) for name in await self._validated())

    async def explained(self, time_s: float) -> str:
        """The explanation of a fail; a server that is slow with it takes nothing from the fail."""
        if self._explain_by is None:
            return ""
        try:
            async with asyncio.timeout(time_s):
                return await self._explain(*self._explain_by)
        except TimeoutError:
            return ""

    async def _explain(self, domain_spec: str, domain: str) -> str:
        """The owner's explanation, or "" for whatever is wrong with it (§6.2)."""
        try:
            target = await self._target(domain_spec, domain)
            texts = await self._dns.txt(target) if is_queryable(target) else ()
            if len(texts) != 1:
                return ""
            text = texts[0].decode("ascii")
            check_macros(text, explaining=True)
            return expand(text, await self._values(letters_in(text), domain, explaining=True))[:SPF_EXPLANATION_BYTES]
        except (NotFound, LookupTrouble, RecordError, UnicodeDecodeError, _PermError):
            return ""

    async def _target(self, domain_spec: str, domain: str) -> str:
        if "%" not in domain_spec:
            return domain_spec.removesuffix(".")
        return shortened(expand(domain_spec, await self._values(letters_in(domain_spec), domain)))

    async def _values(self, letters: frozenset[str], domain: str, *, explaining: bool = False) -> dict[str, str]:
        address = self._address
        dotted = str(address) if address.version == 4 else ".".join(address.exploded.replace(":", "")).upper()
        values = {
            "s": f"{self._local_part}@{self._sender_domain}",
            "l": self._local_part,
            "o": self._sender_domain,
            "d": domain,
            "i": dotted,
            "v": "in-addr" if address.version == 4 else "ip6",
            "h": self._helo,
        }
        if letters & _VALIDATING:
            values["p"] = _best_name(await self._validated(), domain)
        if explaining:
            values |= {"c": str(address), "r": self._receiver, "t": str(int(self._now()))}
        return values


def _best_name(names: tuple[str, ...], domain: str) -> str:
    """%{p}: the domain itself, else a name below it, else any (§7.3). `names` are in lower case."""
    domain = domain.lower().removesuffix(".")
    if domain in names:
        return domain
    below = [name for name in names if name.endswith("." + domain)]
    return (below or list(names) or ["unknown"])[0]
