"""Questions to the name servers, with answers that say what mail needs to know: there, not there, or ask again later.

`NotFound` (no such name, or no such record) is permanent; `LookupTrouble` (SERVFAIL, timeout, a broken answer) is
temporary. Results, also negative ones, are cached for their TTL; trouble is not. Those who ask for the same thing at
the same time share one query. Nothing outside this folder imports dnspython, and it is imported on the first question.
"""

import asyncio
import ipaddress
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from fastmta.dns.cache import NEGATIVE_TTL_S, TtlCache

if TYPE_CHECKING:
    import dns.asyncresolver
    import dns.resolver

QUERY_TIMEOUT_S: Final = 5.0  # one question to one server
LOOKUP_TIMEOUT_S: Final = 20.0  # one look-up over all servers and repetitions
RECORDS: Final = 1024  # of one answer that are kept; 64 KB of DNS could hold 4,000


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
        self._asking: dict[tuple[str, str], asyncio.Future[tuple[Any, ...]]] = {}
        self._backend: dns.asyncresolver.Resolver | None = None

    async def mx(self, domain: str) -> tuple[tuple[int, str], ...]:
        """(preference, host name) of each MX record; the null MX (RFC 7505) is (preference, "")."""
        return await self._lookup(domain, "MX")

    async def a(self, name: str) -> tuple[str, ...]:
        return await self._lookup(name, "A")

    async def aaaa(self, name: str) -> tuple[str, ...]:
        return await self._lookup(name, "AAAA")

    async def txt(self, name: str) -> tuple[bytes, ...]:
        """The TXT records, each with its strings joined."""
        return await self._lookup(name, "TXT")

    async def tlsa(self, name: str) -> tuple[tuple[int, int, int, bytes], ...]:
        """(usage, selector, matching type, data) of each TLSA record (RFC 6698)."""
        return await self._lookup(name, "TLSA")

    async def cname(self, name: str) -> tuple[str, ...]:
        return await self._lookup(name, "CNAME")

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
            servers = self._resolver().nameservers
        except LookupTrouble:
            return False
        return self._trust_ad or all(_is_loopback(getattr(server, "address", str(server))) for server in servers)

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
        """Forgets everything, for a reload or a test."""
        self._cache.clear()
        self._backend = None

    async def _lookup(self, name: str, kind: str) -> tuple[Any, ...]:
        name = name.lower().rstrip(".")
        cached = self._cache.get(name, kind)
        if cached is None:
            return await asyncio.shield(self._asked(name, kind))
        if isinstance(cached, NotFound):
            raise NotFound(name, kind, name_exists=cached.name_exists, is_secure=cached.is_secure)
        return cached

    def _asked(self, name: str, kind: str) -> "asyncio.Future[tuple[Any, ...]]":
        """The question that is under way, or a new one."""
        key = (name, kind)
        asking = self._asking.get(key)
        if asking is None:
            asking = asyncio.get_running_loop().create_task(self._ask(name, kind), name=f"dns {kind} {name}")
            self._asking[key] = asking

            def answered(task: "asyncio.Future[tuple[Any, ...]]") -> None:
                del self._asking[key]
                if not task.cancelled():
                    task.exception()  # whoever asked has it; nobody may have waited to the end

            asking.add_done_callback(answered)
        return asking

    async def close(self) -> None:
        """Gives up what is being asked."""
        pending = list(self._asking.values())
        for task in pending:
            task.cancel()
        if pending:
            await asyncio.wait(pending)

    async def _ask(self, name: str, kind: str) -> tuple[Any, ...]:
        import dns.exception
        import dns.message
        import dns.resolver

        try:
            answer = await self._resolver().resolve(name, kind, search=False)
        except dns.resolver.NXDOMAIN as error:
            raise self._absent(name, kind, False, _soa_minimum(error), self._denied(error)) from error
        except dns.resolver.NoAnswer as error:
            raise self._absent(name, kind, True, _soa_minimum(error), self._denied(error)) from error
        except dns.resolver.NoNameservers as error:
            causes = [cause[3] for cause in error.kwargs.get("errors", ())]
            if any(isinstance(cause, dns.message.ChainTooLong) for cause in causes):
                # Postfix calls a loop of aliases "not found" as well: no later question will find its end.
                raise self._absent(name, kind, True, NEGATIVE_TTL_S) from error
            raise LookupTrouble(f"no name server could answer for {name} {kind}: {_cause(causes)}") from error
        except dns.exception.Timeout as error:
            raise LookupTrouble(f"name servers did not answer in time for {name} {kind}") from error
        except (dns.exception.DNSException, OSError, ValueError) as error:
            raise LookupTrouble(f"look-up of {name} {kind} failed: {type(error).__name__}") from error
        values = Answer(_value(kind, record) for record in list(answer)[:RECORDS])
        values.is_secure = self._is_secure(answer.response)
        values.canonical = answer.canonical_name.to_text(omit_final_dot=True).lower()
        self._cache.put(name, kind, values, answer.rrset.ttl if answer.rrset is not None else 0)
        return values

    def _is_secure(self, message: Any) -> bool:
        import dns.flags

        return self._dnssec and bool(message.flags & dns.flags.AD) and self.believes_ad

    def _denied(self, error: Any) -> bool:
        """Whether an absence is proved."""
        messages = _responses(error)
        return bool(messages) and all(self._is_secure(message) for message in messages)

    def _absent(self, name: str, kind: str, name_exists: bool, ttl_s: float, is_secure: bool = False) -> NotFound:
        absence = NotFound(name, kind, name_exists=name_exists, is_secure=is_secure)
        self._cache.put(name, kind, absence, ttl_s)
        return absence

    def _resolver(self) -> "dns.asyncresolver.Resolver":
        if self._backend is None:
            import dns.asyncresolver
            import dns.nameserver
            import dns.resolver

            try:
                backend = dns.asyncresolver.Resolver(configure=not self._nameservers)
            except dns.resolver.NoResolverConfiguration as error:
                raise LookupTrouble("the system has no usable resolv.conf") from error
            if self._nameservers:
                backend.nameservers = [dns.nameserver.Do53Nameserver(*_endpoint(text)) for text in self._nameservers]
            backend.timeout = self._query_timeout_s
            backend.lifetime = self._lookup_timeout_s
            backend.cache = None
            if self._dnssec:
                import dns.flags

                backend.use_edns(0, dns.flags.DO, 1232)
                backend.flags = dns.flags.RD | dns.flags.AD
            self._backend = backend
        return self._backend


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
    if kind == "TLSA":
        return record.usage, record.selector, record.mtype, record.cert
    return record.target.to_text(omit_final_dot=True).lower()


def _soa_minimum(error: Any) -> float:
    """For how long an absence may be kept: the SOA's minimum (RFC 2308 §5), at most NEGATIVE_TTL_S."""
    import dns.rdatatype

    for message in _responses(error):
        for rrset in message.authority:
            if rrset.rdtype == dns.rdatatype.SOA:
                return float(min(rrset.ttl, rrset[0].minimum, NEGATIVE_TTL_S))
    return NEGATIVE_TTL_S


def _responses(error: Any) -> list[Any]:
    responses = error.kwargs.get("responses", {}).values() if "responses" in error.kwargs else ()
    response = error.kwargs.get("response")
    return [*responses, *([response] if response is not None else [])]


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _cause(causes: Sequence[Any]) -> str:
    return ", ".join(sorted({str(cause) or type(cause).__name__ for cause in causes}))[:200] or "none is configured"
