"""The TLS that a destination is to get, as one value: Postfix's levels, attributes of its policy maps, and checks.

A policy map's entry is "level attribute=value ...". What it leaves out is the configuration's. Whatever cannot be
understood defers the mail: to guess would send it with less protection than somebody asked for.
"""

import datetime
import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from fastmta.config.kinds import TLS_LEVELS
from fastmta.config.tls_words import parse_ciphers, parse_protocols
from fastmta.config.values import parse_match
from fastmta.dns.mx import Address
from fastmta.model.errors import TemporaryFailure
from fastmta.model.reply import Reply
from fastmta.tls.names import matching
from fastmta.tls.tlsa import Tlsa, fingerprints, matching_record, presented_chain

if TYPE_CHECKING:
    from fastmta.config.delivery_keys import DeliveryConfig

_AUTHORITIES: Final = ("verify", "secure", "mta-sts")  # levels whose certificates an authority must vouch for
AUTHENTICATED: Final = frozenset({"verify", "secure", "fingerprint", "dane", "mta-sts"})


class ReportedPolicy(msgspec.Struct, frozen=True):
    """The policy as TLS reports name it (RFC 8460 §4.2). `domain`: "" for the recipients' own.

    `kind`: tlsa, sts, no-policy-found; local: an administrator's, which is nobody else's business.
    """

    kind: str = "no-policy-found"
    domain: str = ""
    strings: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()


NO_POLICY: Final = ReportedPolicy()
_LOCAL: Final = ReportedPolicy("local")


class Refused(TemporaryFailure):
    """A server gets no mail now, by the policy of its domain. `result`: one of RFC 8460 §4.3's types."""

    def __init__(self, reply: Reply, reported: ReportedPolicy, result: str) -> None:
        super().__init__(reply)
        self.reported = reported
        self.result = result


class TlsPolicy(msgspec.Struct, frozen=True):
    """`level` in Postfix's words, or "mta-sts". `is_ours`: an administrator's map says so.

    `match`: strategies for names (verify, secure), or fingerprints. `names`: what a DANE-TA certificate may be for.
    `reported`: what TLS reports say that it is; `problem`: what they tell as wrong though mail goes its way.
    """

    level: str
    protocols: frozenset[str]
    grade: str
    is_ours: bool = False
    match: tuple[str, ...] = ()
    digest: str = "sha256"
    tlsa: tuple[Tlsa, ...] = ()
    names: tuple[str, ...] = ()
    servername: str = ""
    is_wrapped: bool = False  # TLS comes before the server's greeting
    reported: ReportedPolicy = NO_POLICY
    problem: str = ""
    is_trial: bool = False  # a server that fails it gets the mail all the same

    @property
    def trust(self) -> str:
        """The level of the context: whether an authority has to vouch for the certificate."""
        if self.level in _AUTHORITIES:
            return "secure"
        return "may" if self.level == "may" else "encrypt"

    @property
    def must_verify(self) -> bool:
        return self.level in AUTHENTICATED

    def verified(self, tls: ssl.SSLObject, address: Address, now: float) -> tuple[str, str] | None:
        """(by what, which name or fingerprint) a server is who it must be; None: it is not."""
        if self.level == "fingerprint":
            chain = presented_chain(tls)
            found = fingerprints(chain[0], self.digest) if chain else ()
            return next((("fingerprint", each) for each in found if each in self.match), None)
        if self.level == "dane":
            when = datetime.datetime.fromtimestamp(now, datetime.UTC)
            record = matching_record(presented_chain(tls), self.tlsa, self.names, when)
            if record is None:
                return None
            name = f"{record.usage} {record.selector} {record.matching} {record.data[:8].hex()}"
            return ("dane-ee" if record.usage == 3 else "dane-ta"), name
        return matching(
            tls.getpeercert() or {}, self.match, hostname=address.host, nexthop=address.domain or address.host
        )


def default_policy(settings: "DeliveryConfig", level: str) -> TlsPolicy:
    """The policy of a level by the configuration alone."""
    optional = level in ("none", "may")
    match: tuple[str, ...] = ()
    if level == "verify":
        match = settings.smtp_tls_verify_cert_match
    elif level == "secure":
        match = settings.smtp_tls_secure_cert_match
    elif level == "fingerprint":
        match = tuple(each.upper() for each in settings.smtp_tls_fingerprint_cert_match)
    return TlsPolicy(
        level,
        parse_protocols(settings.smtp_tls_protocols if optional else settings.smtp_tls_mandatory_protocols),
        settings.smtp_tls_ciphers if optional else settings.smtp_tls_mandatory_ciphers,
        match=match,
        digest=settings.smtp_tls_fingerprint_digest,
    )


def parse_entry(settings: "DeliveryConfig", value: str) -> TlsPolicy:
    """An entry of a policy map. ValueError says what is wrong with it."""
    level, *attributes = value.replace(",", " ").split()
    level = level.lower()
    if level not in TLS_LEVELS:
        raise ValueError(f'"{level}" is no TLS level: {", ".join(TLS_LEVELS)}')
    policy = default_policy(settings, level)
    if level == "none":  # what else the entry says is not looked at, as in Postfix
        return msgspec.structs.replace(policy, is_ours=True, reported=_LOCAL)
    matches: list[str] = []
    changes: dict[str, object] = {}
    for attribute in attributes:
        name, equals, text = attribute.partition("=")
        if not equals or not text:
            raise ValueError(f'"{attribute}" is not attribute=value')
        if name == "protocols":
            changes["protocols"] = parse_protocols(text)
        elif name == "ciphers":
            changes["grade"] = parse_ciphers(text)
        elif name == "servername":
            changes["servername"] = text
        elif name == "match" and level == "fingerprint":
            matches += [each.upper() for each in text.split("|") if each]
        elif name == "match" and level in ("verify", "secure"):
            matches += [parse_match(each) for each in text.split(":") if each]
        elif name == "match":
            raise ValueError(f"level {level} has no attribute match")
        else:
            raise ValueError(f'"{name}" is no attribute: match, protocols, ciphers, servername')
    if matches:
        changes["match"] = tuple(matches)
    if level == "fingerprint" and not matches and not policy.match:
        raise ValueError("level fingerprint needs match=FINGERPRINT")
    return msgspec.structs.replace(policy, is_ours=True, reported=_LOCAL, **changes)


def keys_of(next_hop: str) -> Sequence[str]:
    """What an entry is looked up by: the next hop as it is written; a domain's parents too, each after a dot."""
    if next_hop.startswith("[") or ":" in next_hop:
        return (next_hop,)
    keys = [next_hop]
    dot = next_hop.find(".")
    while dot >= 0:
        keys.append(next_hop[dot:])
        dot = next_hop.find(".", dot + 1)
    return keys
