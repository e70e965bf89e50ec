"""Questions to the name servers, with answers that say what mail needs to know: there, not there, or ask again later.

`NotFound` (no such name, or no such record) is permanent; `LookupTrouble` (SERVFAIL, timeout, a broken answer) is
temporary. Results, also negative ones, are cached for their TTL; trouble is not. Those who ask for the same thing at
the same time share one query. Nothing outside this folder imports dnspython, and it is imported on the first question.
"""

import asyncio
import ipaddress
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from fastmta.dns.cache import NEGATIVE_TTL_S, TtlCache
from fastmta.dns.exchange import Exchange, NoAnswer

QUERY_TIMEOUT_S: Final = 5.0  # one question to one server
LOOKUP_TIMEOUT_S: Final = 20.0  # one look-up over all servers and repetitions


class NotFound(Exception):
    """The name does not exist (`name_exists` false), or has no record of the type."""

    def __init__(self, name: str, kind: str, *, name_exists: bool, is_secure: bool = False) -> None:
        super().__init__(f"{name} has no {kind} record" if name_exists else f"no such domain: {name}")
        self.name_exists = name_exists
        self.is_secure = is_secure


class LookupTrouble(Exception):
    """Nobody could say; worth asking again later."""


class Answer(tuple[Any, ...]):
    """The values of a look-up. `is_secure`: a resolver that we believe has validated them by DNSSEC, with the chain of
    aliases that led to them; `canonical` is the name at its end.
    """

    is_secure: bool = False
    canonical: str = ""


class Resolver:
    """A caching stub resolver. `nameservers`: "address", "address:port", "[v6]:port"; empty: the system's.

    `dnssec`: asks for DNSSEC's verdict, the AD bit. It is believed of a server on loopback, of others where `trust_ad`.
    """

    def __init__(
        self,
        nameservers: Sequence[str] = (),
        *,
        monotonic: Callable[[], float],
        dnssec: bool = False,
        trust_ad: bool = False,
        query_timeout_s: float = QUERY_TIMEOUT_S,
        lookup_timeout_s: float = LOOKUP_TIMEOUT_S,
    ) -> None:
        self._nameservers = tuple(nameservers)
        self._query_timeout_s = query_timeout_s
        self._lookup_timeout_s = lookup_timeout_s
        self._dnssec = dnssec
        self._trust_ad = trust_ad
        self._cache: TtlCache[tuple[Any, ...] | NotFound] = TtlCache(monotonic)
        self._asking: dict[tuple[str, str], list[asyncio.Future[tuple[Any, ...]]]] = {}  # who waits for what
        self._exchange: Exchange | None = None

    def mx(self, domain: str) -> Coroutine[Any, Any, tuple[tuple[int, str], ...]]:
        """(preference, host name) of each MX record; the null MX (RFC 7505) is (preference, "")."""
        return self._lookup(domain, "MX")

    def a(self, name: str) -> Coroutine[Any, Any, tuple[str, ...]]:
        return self._lookup(name, "A")

    def aaaa(self, name: str) -> Coroutine[Any, Any, tuple[str, ...]]:
        return self._lookup(name, "AAAA")

    async def ns(self, name: str) -> tuple[str, ...]:
        """The names of a domain's name servers."""
        return await self._lookup(name, "NS")

    def txt(self, name: str) -> Coroutine[Any, Any, tuple[bytes, ...]]:
        """The TXT records, each with its strings joined."""
        return self._lookup(name, "TXT")

    def srv(self, name: str) -> Coroutine[Any, Any, tuple[tuple[int, int, int, str], ...]]:
        """(priority, weight, port, target) of each SRV record; the target "" says that the service is not offered."""
        return self._lookup(name, "SRV")

    def tlsa(self, name: str) -> Coroutine[Any, Any, tuple[tuple[int, int, int, bytes], ...]]:
        """(usage, selector, matching type, data) of each TLSA record (RFC 6698)."""
        return self._lookup(name, "TLSA")

    def cname(self, name: str) -> Coroutine[Any, Any, tuple[str, ...]]:
        return self._lookup(name, "CNAME")

    async def security(self, name: str, kind: str) -> tuple[bool, str]:
        """(whether the answer is validated, the canonical name) of a look-up; of an absence too. LookupTrouble."""
        try:
            found = await self._lookup(name, kind)
        except NotFound as absence:
            return absence.is_secure, name
        return getattr(found, "is_secure", False), getattr(found, "canonical", name)

    @property
    def believes_ad(self) -> bool:
        """Whether a validated answer can be had at all: every server is on loopback, or is to be trusted."""
        if not self._dnssec:
            return False
        try:
            servers = self._servers()
        except LookupTrouble:
            return False
        return self._trust_ad or all(_is_loopback(address) for address, _ in servers)

    async def ptr(self, address: str) -> tuple[str, ...]:
        """The names of an address; names only, nothing is checked forwards."""
        import dns.reversename

        return await self._lookup(dns.reversename.from_address(address).to_text(omit_final_dot=True), "PTR")

    async def addresses(self, name: str) -> tuple[str, ...]:
        """Both families' addresses, IPv6 first. NotFound where there are none; trouble only where it hid them all."""
        results = await asyncio.gather(self.aaaa(name), self.a(name), return_exceptions=True)
        found = [address for result in results if not isinstance(result, BaseException) for address in result]
        if found:
            return tuple(found)
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, NotFound):
                raise result
        assert isinstance(results[1], BaseException)
        raise results[1]

    def configure(self, nameservers: Sequence[str]) -> None:
        """Other name servers from the next question on."""
        self._nameservers = tuple(nameservers)
        self.flush()

    def flush(self) -> None:
        """Forgets everything, for a reload or a test; what is being asked is asked again, of the present servers."""
        self._cache.clear()
        if self._exchange is not None:
            self._exchange.close()
            self._exchange = None
            for asked in list(self._asking):
                self._send(asked)

    async def _lookup(self, name: str, kind: str) -> tuple[Any, ...]:
        name = name.lower().rstrip(".")
        cached = self._cache.get(name, kind)
        if cached is None:
            return await self._asked(name, kind)
        if isinstance(cached, NotFound):
            raise NotFound(name, kind, name_exists=cached.name_exists, is_secure=cached.is_secure)
        return cached

    def _asked(self, name: str, kind: str) -> "asyncio.Future[tuple[Any, ...]]":
        """A future of the answer; those who ask the same share the question."""
        future: asyncio.Future[tuple[Any, ...]] = asyncio.get_running_loop().create_future()
        asked = (name, kind)
        waiters = self._asking.get(asked)
        if waiters is not None:
            waiters.append(future)
        else:
            self._asking[asked] = [future]
            self._send(asked)
        return future

    def _send(self, asked: tuple[str, str]) -> None:
        import dns.exception
        import dns.name

        name, kind = asked
        try:
            self._wire().ask(asked)
        except LookupTrouble as trouble:
            self._tell(name, kind, trouble)
        except (
            dns.name.NameTooLong,
            dns.name.LabelTooLong,
            dns.name.EmptyLabel,
            dns.name.BadEscape,
            dns.name.IDNAException,
        ):
            # Such a name cannot exist: no server has trouble with it, and its writer must not be able to say so.
            self._tell(name, kind, NotFound(name, kind, name_exists=False))
        except (dns.exception.DNSException, NoAnswer, OSError, ValueError) as error:
            self._tell(name, kind, LookupTrouble(f"look-up of {name} {kind} failed: {_told(error)}"))

    def _answered(self, asked: tuple[str, str], result: Any) -> None:
        name, kind = asked
        if isinstance(result, Exception):
            self._tell(name, kind, LookupTrouble(f"no name server could answer for {name} {kind}: {result}"))
            return
        try:
            self._tell(name, kind, self._understood(name, kind, result))
        except NotFound as raised:
            # Another one is kept: that which was raised holds by its traceback all that the answer was read with.
            absence = NotFound(name, kind, name_exists=raised.name_exists, is_secure=raised.is_secure)
            self._cache.put(name, kind, absence, _absent_ttl(result))
            self._tell(name, kind, absence)
        except Exception as error:  # whoever made this answer, those who wait must hear of it
            self._tell(name, kind, LookupTrouble(f"look-up of {name} {kind} failed: {_told(error)}"))

    def _understood(self, name: str, kind: str, message: Any) -> tuple[Any, ...]:
        """The values in an answer, kept for their time. Raises NotFound."""
        import dns.message
        import dns.rcode

        try:
            chain = message.resolve_chaining()
        except dns.message.ChainTooLong as error:
            # Postfix calls a loop of aliases "not found" as well: no later question will find its end.
            raise NotFound(name, kind, name_exists=True) from error
        is_secure = self._is_secure(message)
        if chain.answer is None:
            raise NotFound(name, kind, name_exists=message.rcode() != dns.rcode.NXDOMAIN, is_secure=is_secure)
        values = Answer(_value(kind, record) for record in chain.answer)
        values.is_secure = is_secure
        values.canonical = chain.canonical_name.to_text(omit_final_dot=True).lower()
        self._cache.put(name, kind, values, chain.minimum_ttl)
        return values

    def _is_secure(self, message: Any) -> bool:
        import dns.flags

        return self._dnssec and bool(message.flags & dns.flags.AD) and self.believes_ad

    def _tell(self, name: str, kind: str, result: tuple[Any, ...] | Exception) -> None:
        for waiter in self._asking.pop((name, kind), ()):
            if waiter.done():
                continue
            if not isinstance(result, Exception):
                waiter.set_result(result)
            elif isinstance(result, NotFound):
                waiter.set_exception(NotFound(name, kind, name_exists=result.name_exists, is_secure=result.is_secure))
            else:
                waiter.set_exception(LookupTrouble(str(result)))

    async def close(self) -> None:
        """Gives up what is being asked."""
        if self._exchange is not None:
            self._exchange.close()
            self._exchange = None
        for waiters in self._asking.values():
            for waiter in waiters:
                waiter.cancel()
        self._asking.clear()

    def _wire(self) -> Exchange:
        loop = asyncio.get_running_loop()
        if self._exchange is None:
            self._exchange = Exchange(
                self._servers(),
                loop,
                self._answered,
                timeout_s=self._query_timeout_s,
                lifetime_s=self._lookup_timeout_s,
                dnssec=self._dnssec,
            )
        return self._exchange

    def _servers(self) -> list[tuple[str, int]]:
        if self._nameservers:
            return [_endpoint(text) for text in self._nameservers]
        import dns.resolver

        try:
            system = dns.resolver.Resolver()
        except dns.resolver.NoResolverConfiguration as error:
            raise LookupTrouble("the system has no usable resolv.conf") from error
        return [(str(address), system.port) for address in system.nameservers]


def _endpoint(text: str) -> tuple[str, int]:
    """Address and port of "192.0.2.1", "192.0.2.1:5353", "2001:db8::1" or "[2001:db8::1]:5353"."""
    if text.startswith("["):
        address, _, port = text[1:].partition("]")
        return address, int(port[1:] or 53)
    if text.count(":") == 1:
        address, _, port = text.partition(":")
        return address, int(port)
    return text, 53


def _value(kind: str, record: Any) -> Any:
    if kind == "MX":
        return record.preference, record.exchange.to_text(omit_final_dot=True).rstrip(".").lower()
    if kind in ("A", "AAAA"):
        return record.address
    if kind == "TXT":
        return b"".join(record.strings)
    if kind == "SRV":
        target = record.target.to_text(omit_final_dot=True).rstrip(".").lower()
        return record.priority, record.weight, record.port, target
    if kind == "TLSA":
        return record.usage, record.selector, record.mtype, record.cert
    return record.target.to_text(omit_final_dot=True).lower()


def _absent_ttl(message: Any) -> float:
    """For how long an absence may be kept: the SOA's minimum (RFC 2308 §5), at most NEGATIVE_TTL_S."""
    import dns.rdatatype

    for rrset in message.authority:
        if rrset.rdtype == dns.rdatatype.SOA:
            return float(min(rrset.ttl, rrset[0].minimum, NEGATIVE_TTL_S))
    return NEGATIVE_TTL_S


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _told(error: Exception) -> str:
    return str(error)[:200] if isinstance(error, NoAnswer) else type(error).__name__
