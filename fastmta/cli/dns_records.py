"""What a domain publishes so that its mail comes in, is believed, and is found by its users: the whole list."""

import hashlib
import ipaddress
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fastmta.admin.client_setup import first_port
from fastmta.cli.zone_file import quoted
from fastmta.config.schema import Config
from fastmta.model.services import SERVICES


class Wanted(NamedTuple):
    """A record to publish. `value` is as in a zone file; `cost` is what happens without it."""

    name: str
    kind: str
    value: str
    cost: str
    needed: bool = True  # false: mail works without it


class Facts(NamedTuple):
    """What of this server the records tell."""

    domain: str
    host: str
    addresses: tuple[str, ...]
    keys: tuple[tuple[str, str], ...]  # (name, record) of the domain's signing keys
    certificate: str  # SHA-256 of the public key in hexadecimal, "" where there is none


def wanted(facts: Facts, config: Config) -> list[Wanted]:
    """Every record, in the order in which it matters."""
    return [
        *_incoming(facts),
        *_believed(facts),
        *_encrypted(facts),
        *_found_by_users(facts, config),
    ]


def _incoming(facts: Facts) -> Iterator[Wanted]:
    yield Wanted(facts.domain, "MX", f"10 {facts.host}.", "other servers bring the domain's mail elsewhere or nowhere")
    for text in facts.addresses:
        address = ipaddress.ip_address(text)
        yield Wanted(facts.host, "A" if address.version == 4 else "AAAA", text, "nobody finds this server")
    for text in facts.addresses:
        pointer = ipaddress.ip_address(text).reverse_pointer
        cost = "large providers refuse mail of an address without a name; its owner (the hoster) publishes this"
        yield Wanted(pointer, "PTR", f"{facts.host}.", cost)


def _believed(facts: Facts) -> Iterator[Wanted]:
    cost = "anybody can send in the domain's name, and its own mail is taken for spam"
    yield Wanted(facts.domain, "TXT", quoted("v=spf1 mx -all"), cost)
    if facts.host != facts.domain:
        yield Wanted(
            facts.host, "TXT", quoted("v=spf1 a -all"), "reports and bounces, which have no sender, are not believed"
        )
    for name, record in facts.keys:
        yield Wanted(name, "TXT", quoted(record), "signatures by this key fail")
    record = f"v=DMARC1; p=none; rua=mailto:postmaster@{facts.domain}"
    cost = "nobody is told what to do with forged mail, and large providers refuse bulk mail"
    yield Wanted(f"_dmarc.{facts.domain}", "TXT", quoted(record), cost)


def policy_text(facts: Facts) -> str:
    """The MTA-STS policy (RFC 8461 §3.2) that belongs at https://mta-sts.DOMAIN/.well-known/mta-sts.txt."""
    return f"version: STSv1\nmode: testing\nmx: {facts.host}\nmax_age: 604800\n"


def _encrypted(facts: Facts) -> Iterator[Wanted]:
    number = hashlib.sha256(policy_text(facts).encode()).hexdigest()[:20]
    cost = "an attacker on the way can switch TLS off; it needs the policy file at https://mta-sts."
    yield Wanted(f"_mta-sts.{facts.domain}", "TXT", quoted(f"v=STSv1; id={number}"), cost + facts.domain, False)
    yield Wanted(f"mta-sts.{facts.domain}", "CNAME", f"{facts.host}.", "the MTA-STS policy is not found", False)
    record = f"v=TLSRPTv1; rua=mailto:postmaster@{facts.domain}"
    yield Wanted(f"_smtp._tls.{facts.domain}", "TXT", quoted(record), "nobody tells you where TLS to you fails", False)
    if facts.certificate:
        cost = "senders with DANE do not check the certificate (it counts only in a zone signed with DNSSEC)"
        yield Wanted(f"_25._tcp.{facts.host}", "TLSA", f"3 1 1 {facts.certificate}", cost, False)


def _found_by_users(facts: Facts, config: Config) -> Iterator[Wanted]:
    for service in SERVICES:
        if service.srv_priority is None:
            continue
        name, port = f"_{service.name}._tcp.{facts.domain}", first_port(config, service)
        if port:
            value = f"{service.srv_priority} 1 {port} {facts.host}."
            yield Wanted(name, "SRV", value, "mail programs ask their users", False)
        else:
            yield Wanted(name, "SRV", "0 0 0 .", "mail programs may try a service that is not offered", False)
    for name in ("autoconfig", "autodiscover"):
        cost = "Thunderbird" if name == "autoconfig" else "Outlook"
        yield Wanted(f"{name}.{facts.domain}", "CNAME", f"{facts.host}.", f"{cost} finds no settings by itself", False)


def certificate_digest(path: str | None) -> str:
    """For TLSA 3 1 1: the SHA-256 of the public key of the first certificate in a PEM file; "" where there is none."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    if not path:
        return ""
    try:
        certificate = x509.load_pem_x509_certificates(Path(path).read_bytes())[0]
    except (OSError, ValueError, IndexError):
        return ""
    public = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(public).hexdigest()


def public_only(addresses: Sequence[tuple[str, str, bool]]) -> tuple[str, ...]:
    """Of this host's (type, address, is public): those to publish, the public ones where there are any."""
    return tuple(a for _, a, public in addresses if public) or tuple(a for _, a, _ in addresses)
