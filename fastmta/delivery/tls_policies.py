"""Which TLS each server is to get: smtp_tls_policy_maps, else the configuration's level; DANE; MTA-STS.

An administrator's entry stands. DANE (RFC 7672) needs a validated MX, a validated address and a TLSA record; usable
ones make the server prove itself by them, unusable ones make TLS mandatory, none make `dane` fall to `may`, as in
Postfix; `dane-only` passes such a server over. Where nothing authenticates the server, the domain's MTA-STS policy does
(RFC 8461): it never weakens what DANE or an administrator asks for.
"""

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

from fastmta.delivery.tls_policy import (
    AUTHENTICATED,
    Refused,
    ReportedPolicy,
    TlsPolicy,
    default_policy,
    keys_of,
    parse_entry,
)
from fastmta.directory.maps import TableSet
from fastmta.dns.mx import Address
from fastmta.dns.resolver import LookupTrouble, NotFound, Resolver
from fastmta.model.errors import TemporaryFailure
from fastmta.model.reply import Reply
from fastmta.runtime.log import Log
from fastmta.tls.mta_sts import MtaSts
from fastmta.tls.tlsa import Tlsa

if TYPE_CHECKING:
    from fastmta.config.delivery_keys import DeliveryConfig

_DANE: Final = ("dane", "dane-only")
_TRIAL_S: Final = 300.0  # for so long a server that failed a policy in mode testing is not tried by it
_TRIALS: Final = 10_000


class TlsPolicies:
    """The policies of one configuration."""

    def __init__(
        self,
        settings: "DeliveryConfig",
        resolver: Resolver,
        sts: MtaSts | None,
        log: Log,
        monotonic: Callable[[], float],
    ) -> None:
        """`sts`: None where mta_sts is off."""
        self._settings = settings
        self._resolver = resolver
        self._sts = sts
        self._log = log
        self._tables = TableSet(settings.smtp_tls_policy_maps)
        level = settings.smtp_tls_security_level
        self._default = default_policy(settings, level)
        self._none = default_policy(settings, "none")
        self._lmtp = default_policy(settings, "none" if level == "none" else "may")
        self._told_dns = False
        self._is_wrapped = settings.smtp_tls_wrappermode
        self._monotonic = monotonic
        self._trials: dict[tuple[str, str], tuple[str, float]] = {}  # (host, address) -> (problem, until when)

    def refresh(self) -> None:
        """Reads maps again that have changed; for once a second."""
        self._tables.refresh()

    async def of(
        self, address: Address, *, lmtp: bool, plain_text: bool, relaxed: bool = False, required: bool = False
    ) -> TlsPolicy:
        """The policy for one address. TemporaryFailure: mail must not go there now, but may elsewhere.

        `relaxed`: the sender wants the mail there rather than its domain's policy obeyed (RFC 8689 §5); `required`: he
        wants it nowhere but where the server has proved who it is (§4.2.1).
        """
        if required and not lmtp:
            found = await self._of(address, lmtp=False, plain_text=False, relaxed=False)
            if not found.must_verify or found.is_trial:
                found = await self._proving(found, address)
        else:
            found = await self._of(address, lmtp=lmtp, plain_text=plain_text, relaxed=relaxed)
        if self._is_wrapped and not lmtp and address.port and found.level != "none":
            return self._wrapped(found)
        return found

    def _wrapped(self, policy: TlsPolicy) -> TlsPolicy:
        """The policy for a server that begins with TLS: it is never optional there."""
        if policy.level == "may":
            strict = default_policy(self._settings, "encrypt")
            policy = msgspec.structs.replace(strict, is_ours=policy.is_ours, reported=policy.reported)
        return msgspec.structs.replace(policy, is_wrapped=True)

    async def _proving(self, policy: TlsPolicy, address: Address) -> TlsPolicy:
        """The policy for a server whose name has to be in its certificate, where the name of the server can be
        believed; else the domain's.
        """
        believed = address.next_hop.startswith("[")
        if not believed and self._resolver.believes_ad:
            with contextlib.suppress(LookupTrouble):
                believed = await self._mx_is_secure(address)
        match = ("hostname",) if believed else self._settings.smtp_tls_secure_cert_match
        strict = default_policy(self._settings, "secure")
        return msgspec.structs.replace(strict, match=match, is_ours=policy.is_ours, reported=policy.reported)

    async def _of(self, address: Address, *, lmtp: bool, plain_text: bool, relaxed: bool) -> TlsPolicy:
        if plain_text or not address.port:
            return self._none
        if lmtp:
            return self._lmtp
        policy = self._entry(address.next_hop)
        if relaxed and policy.level == "dane":  # what an administrator asks for holds
            return default_policy(self._settings, "may")
        if policy.level in _DANE:
            policy = await self._dane(policy, address)
        if (
            self._sts is not None
            and not relaxed
            and not policy.is_ours
            and policy.level not in ("none", *AUTHENTICATED)
        ):
            policy = await self._mta_sts(self._sts, policy, address)
        return policy

    def _entry(self, next_hop: str) -> TlsPolicy:
        if not self._tables:
            return self._default
        for key in keys_of(next_hop):
            value = self._tables.get(key, whole=not key.startswith("."))
            if value is not None:
                try:
                    return parse_entry(self._settings, value)
                except ValueError as error:
                    self._log.warning("delivery.tls_policy_problem", next_hop=next_hop, problem=str(error))
                    reply = Reply(451, "4.7.5", f"client TLS configuration problem: {error}")
                    raise TemporaryFailure(reply) from error
        return self._default

    # --- DANE ---

    async def _dane(self, policy: TlsPolicy, address: Address) -> TlsPolicy:
        if not self._resolver.believes_ad:
            if not self._told_dns:
                self._told_dns = True
                self._log.warning(
                    "delivery.dane_without_dnssec", remedy="use a validating resolver on loopback, or dns.trust_ad"
                )
            return self._without_dane(policy, address, "the resolver's word on DNSSEC is not to be believed")
        try:
            mx_is_secure = await self._mx_is_secure(address)
            if not mx_is_secure and policy.level == "dane":
                insecure = self._settings.smtp_tls_dane_insecure_mx_policy
                insecure = insecure or ("dane" if self._settings.smtp_tls_security_level == "dane" else "may")
                if insecure != "dane":
                    return msgspec.structs.replace(default_policy(self._settings, insecure), is_ours=policy.is_ours)
            elif not mx_is_secure:
                return self._without_dane(policy, address, "its MX records are not signed")
            base, records = await self._records(address)
        except LookupTrouble as error:
            # Nobody may turn DANE off by making this look-up fail (RFC 7672 §2.2).
            text = f"TLSA lookup error for {address.host}:{address.port}: {error}"
            raise Refused(Reply(451, "4.7.5", text), ReportedPolicy("tlsa", address.host), "dnssec-invalid") from error
        if not records:
            return self._without_dane(policy, address, "it has no TLSA record that is signed")
        if not any(record.is_usable for record in records):
            if policy.level == "dane-only":
                return self._without_dane(policy, address, "none of its TLSA records can be used")
            return msgspec.structs.replace(
                default_policy(self._settings, "encrypt"),
                is_ours=policy.is_ours,
                reported=_dane_policy(base, records),
                problem="tlsa-invalid",
            )
        domain = address.domain or address.host
        return msgspec.structs.replace(
            policy,
            level="dane",
            tlsa=records,
            names=(base, domain, address.host),
            servername=base,
            reported=_dane_policy(base, records),
        )

    def _without_dane(self, policy: TlsPolicy, address: Address, why: str) -> TlsPolicy:
        if policy.level == "dane-only":
            reply = Reply(451, "4.7.5", f"DANE is required for {address.host}, but {why}")
            raise Refused(reply, ReportedPolicy("tlsa", address.host), "dane-required")
        return msgspec.structs.replace(default_policy(self._settings, "may"), is_ours=policy.is_ours)

    async def _mx_is_secure(self, address: Address) -> bool:
        """An address that a route names needs no MX (RFC 7672 §2.2.3); else the MX records, or their absence, count."""
        if address.next_hop.startswith("["):
            return True
        secure, _ = await self._resolver.security(address.domain or address.host, "MX")
        return secure

    async def _records(self, address: Address) -> tuple[str, tuple[Tlsa, ...]]:
        """(TLSA base domain, records): of the name at the end of the host's aliases first, then of the host itself
        (RFC 7672 §2.2.2); empty where the address is not signed, so that nobody is asked for records.
        """
        resolver = self._resolver
        kind = "AAAA" if ":" in address.ip else "A"
        secure, canonical = await resolver.security(address.host, kind)
        if address.host == address.ip:
            return address.host, ()
        names = [canonical, address.host] if secure else []
        if not secure:
            alias_is_secure, _ = await resolver.security(address.host, "CNAME")
            try:
                aliases = await resolver.cname(address.host)
            except NotFound:
                aliases = ()
            if aliases and alias_is_secure:
                names = [address.host]
        for base in dict.fromkeys(names):
            try:
                found = await resolver.tlsa(f"_{address.port}._tcp.{base}")
            except NotFound:
                continue
            if getattr(found, "is_secure", False):
                return base, tuple(Tlsa(*each) for each in found)
        return address.host, ()

    # --- MTA-STS ---

    async def _mta_sts(self, sts: MtaSts, policy: TlsPolicy, address: Address) -> TlsPolicy:
        if address.next_hop.startswith("["):
            return policy  # a host that a route names is no domain's exchanger
        domain = address.domain or address.host
        found = await sts.policy(domain)
        if found is None or found.mode == "none":
            problem = sts.problem(domain)
            if problem:
                return msgspec.structs.replace(policy, reported=ReportedPolicy("sts"), problem=problem)
            return policy
        reported = ReportedPolicy("sts", "", found.strings, found.mx)
        if not found.admits(address.host):
            if found.mode == "testing":
                self._log.info("mta_sts.would_fail", domain=domain, host=address.host, cause="not among its mx")
                return msgspec.structs.replace(policy, reported=reported, problem="validation-failure")
            text = f"the MTA-STS policy of {domain} does not list {address.host}"
            raise Refused(Reply(451, "4.7.5", text), reported, "validation-failure")
        is_trial = found.mode == "testing"
        failed = self._trials.get((address.host, address.ip), ("", 0.0)) if is_trial else ("", 0.0)
        if failed[1] > self._monotonic():
            return msgspec.structs.replace(policy, reported=reported, problem=failed[0])
        strict = default_policy(self._settings, "encrypt")
        protocols = strict.protocols & {"TLSv1.2", "TLSv1.3"} or strict.protocols
        return msgspec.structs.replace(
            strict, level="mta-sts", match=("hostname",), protocols=protocols, reported=reported, is_trial=is_trial
        )

    def trial_failed(self, address: Address, problem: str) -> None:
        """A server did not do what a policy in mode testing asks for: for a while mail goes there as without one, and
        TLS reports say why.
        """
        if len(self._trials) >= _TRIALS:
            self._trials.clear()
        self._trials[address.host, address.ip] = problem, self._monotonic() + _TRIAL_S
        self._log.info("mta_sts.would_fail", domain=address.domain, host=address.host, cause=problem)


def _dane_policy(base: str, records: tuple[Tlsa, ...]) -> ReportedPolicy:
    strings = (f"{each.usage} {each.selector} {each.matching} {each.data.hex()}" for each in records)
    return ReportedPolicy("tlsa", base, tuple(sorted(strings)))
