"""What of the wanted records the DNS has, and what is wrong with what it has instead."""

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from fastmta.authentication.dmarc_record import parse_record as parse_dmarc
from fastmta.authentication.spf import SpfDns, check_spf
from fastmta.authentication.spf_record import is_record
from fastmta.authentication.tags import TagError, parse_tags, without_spaces
from fastmta.cli.dns_records import Facts, Wanted
from fastmta.dns.resolver import LookupTrouble, NotFound

OK: Final = "ok"
MISSING: Final = "missing"
WRONG: Final = "wrong"
UNKNOWN: Final = "unknown"


class Dns(SpfDns, Protocol):
    """What of dns.resolver.Resolver is asked here."""

    async def srv(self, name: str) -> tuple[tuple[int, int, int, str], ...]: ...
    async def tlsa(self, name: str) -> tuple[tuple[int, int, int, bytes], ...]: ...


class Finding(NamedTuple):
    """How a wanted record stands. `note` says what is there instead, or what a right one still lacks."""

    wanted: Wanted
    state: str
    note: str = ""


async def check_all(dns: Dns, facts: Facts, records: Sequence[Wanted]) -> list[Finding]:
    """A finding for each record, in their order; the questions are asked side by side."""
    return list(await asyncio.gather(*(_check(dns, facts, record) for record in records)))


async def _check(dns: Dns, facts: Facts, record: Wanted) -> Finding:
    try:
        state, note = await _look(dns, facts, record)
    except NotFound:
        state, note = MISSING, ""
    except LookupTrouble as trouble:
        state, note = UNKNOWN, str(trouble)
    return Finding(record, state, note)


async def _look(dns: Dns, facts: Facts, record: Wanted) -> tuple[str, str]:
    kind = record.kind
    if kind == "MX":
        hosts = [host for _, host in await dns.mx(record.name)]
        return _among(facts.host, hosts, "mail goes to")
    if kind in ("A", "AAAA"):
        found = await (dns.a if kind == "A" else dns.aaaa)(record.name)
        return _among(record.value, found, "it points to")
    if kind == "PTR":
        names = await dns.ptr(_address_of(facts, record))
        return _among(facts.host, names, "its name is")
    if kind == "CNAME":
        return await _same_place(dns, record.name, facts.host)
    if kind == "SRV":
        return _service(record.value, await dns.srv(record.name))
    if kind == "TLSA":
        certificates = [f"{u} {s} {m} {digest.hex()}" for u, s, m, digest in await dns.tlsa(record.name)]
        if record.value in certificates:
            return OK, ""
        return WRONG, "it names another key: senders with DANE refuse to deliver to this server"
    return await _text(dns, facts, record)


def _among(wanted: str, found: Sequence[str], words: str) -> tuple[str, str]:
    names = [name.rstrip(".").lower() for name in found]
    if wanted.rstrip(".").lower() not in names:
        return WRONG, f"{words} {', '.join(names[:5]) or 'nothing'}"
    others = [name for name in names if name != wanted]
    return OK, f"also {', '.join(others[:5])}" if others else ""


def _address_of(facts: Facts, record: Wanted) -> str:
    import ipaddress

    return next(text for text in facts.addresses if ipaddress.ip_address(text).reverse_pointer == record.name)


async def _same_place(dns: Dns, name: str, host: str) -> tuple[str, str]:
    """Whether `name` leads to the host's address, by an alias or by an address of its own."""

    async def addresses(of: str) -> set[str]:
        found: set[str] = set()
        for ask in (dns.a, dns.aaaa):
            try:
                found.update(await ask(of))
            except NotFound:
                continue
        return found

    there, here = await addresses(name), await addresses(host)
    if not there:
        return MISSING, ""
    if here and not there & here:
        return WRONG, f"it leads to {', '.join(sorted(there)[:5])}"
    return OK, ""


def _service(value: str, found: Sequence[tuple[int, int, int, str]]) -> tuple[str, str]:
    _, _, port, target = value.split()
    offers = [(str(number), name.rstrip(".").lower()) for _, _, number, name in found]
    if (port, target.rstrip(".").lower()) in offers:
        return OK, ""
    return WRONG, "it names " + ", ".join(f"{name or '.'}:{number}" for number, name in offers[:5])


async def _text(dns: Dns, facts: Facts, record: Wanted) -> tuple[str, str]:
    texts = await dns.txt(record.name)
    if "._domainkey." in record.name:
        return _key(record, texts)
    if record.name.startswith("_dmarc."):
        return _dmarc(texts)
    if record.name.startswith(("_mta-sts.", "_smtp._tls.")):
        version = b"v=STSv1" if record.name.startswith("_mta-sts.") else b"v=TLSRPTv1"
        own = [text for text in texts if text.partition(b";")[0].strip() == version]
        if len(own) == 1:
            return OK, ""
        return (WRONG, f"{len(own)} records, which count as none") if own else (MISSING, "")
    return await _spf(dns, facts, record, texts)


def _key(record: Wanted, texts: Sequence[bytes]) -> tuple[str, str]:
    wanted = parse_tags(record.value.replace('" "', "").strip('"').encode())
    if len(texts) != 1:
        return WRONG, f"{len(texts)} records, of which a verifier takes any"
    try:
        found = parse_tags(texts[0])
    except TagError as error:
        return WRONG, str(error)
    if without_spaces(found.get("p", b"")) != wanted["p"]:
        return WRONG, "it has another key" if found.get("p") else "the key is revoked"
    return OK, "t=y: verifiers may treat signatures as if there were none" if b"y" in found.get("t", b"") else ""


def _dmarc(texts: Sequence[bytes]) -> tuple[str, str]:
    records = [record for record in map(parse_dmarc, texts) if record is not None]
    if not records:
        return MISSING, ""
    if len(records) > 1:
        return WRONG, f"{len(records)} records, which count as none"
    record = records[0]
    if record.broken:
        taken = "no record" if record.p is None else "p=none"
        return WRONG, f"p= is missing, or p=, sp= or np= is unknown, which counts as {taken}"
    notes = []
    if record.p == "none":
        notes.append("p=none asks for nothing: go on to quarantine and reject when the reports look well")
    if not record.rua:
        notes.append("no rua=: nobody reports to you")
    if record.testing:
        notes.append("t=y: receivers do one step less than p= says")
    return OK, "; ".join(notes)


async def _spf(dns: Dns, facts: Facts, record: Wanted, texts: Sequence[bytes]) -> tuple[str, str]:
    own = [text for text in texts if is_record(text)]
    if not own:
        return MISSING, ""
    if len(own) > 1:
        return WRONG, f"{len(own)} records, which is an error: all mail of the domain is doubted"
    worst: tuple[str, str] = (OK, "")
    for address in facts.addresses:
        verdict = await check_spf(dns, address, record.name, f"postmaster@{record.name}")
        if verdict.result == "temperror":
            return UNKNOWN, verdict.explanation
        if verdict.result != "pass":
            worst = (WRONG, f"mail from {address} gets {verdict.result} {verdict.explanation}".rstrip())
        elif verdict.lookups > 8 and worst[0] == OK:
            worst = (OK, f"{verdict.lookups} of 10 look-ups are used")
    if worst[0] == OK and own[0].lower().rstrip().endswith(b"+all"):
        return WRONG, "+all lets everybody send for the domain"
    return worst
