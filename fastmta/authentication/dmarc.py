"""DMARC: whether an author's domain stands behind a message, and what its owner asks for if not (RFC 9989)."""

from collections.abc import Awaitable, Sequence
from functools import partial
from typing import Final, NamedTuple, Protocol

from fastmta.authentication.asking import side_by_side
from fastmta.authentication.authors import TooManyAuthors, author_domains
from fastmta.authentication.dkim import DkimVerdict
from fastmta.authentication.dmarc_record import DmarcRecord, Policy, parse_record, policy_for
from fastmta.authentication.message import Field
from fastmta.authentication.spf import SpfVerdict
from fastmta.dns.resolver import LookupTrouble, NotFound
from fastmta.model.limits import DMARC_WALK_QUERIES

_ORDER: Final = {"none": 0, "quarantine": 1, "reject": 2}
_DOUBT: Final = {"fail": 3, "temperror": 2, "none": 1, "pass": 0}
_WEAKER: Final[dict[str, Policy]] = {"reject": "quarantine", "quarantine": "none", "none": "none"}


class DmarcDns(Protocol):
    """What of dns.resolver.Resolver is asked here."""

    def txt(self, name: str) -> Awaitable[tuple[bytes, ...]]: ...
    def a(self, name: str) -> Awaitable[tuple[str, ...]]: ...


class DmarcVerdict(NamedTuple):
    """The result, and what follows from it."""

    result: str  # none pass fail temperror permerror
    policy: str  # as published for this author domain; "" where there is no record
    disposition: str  # none quarantine reject: after t=y, and none for a pass
    domain: str  # where the record stands
    author_domain: str = ""
    spf_aligned: bool = False
    dkim_aligned: bool = False
    record: DmarcRecord | None = None


class Walk(NamedTuple):
    """A DNS Tree Walk: the records that were found, the longest name first (§4.10)."""

    start: str
    found: tuple[tuple[str, DmarcRecord], ...]

    @property
    def organizational(self) -> str:
        """The Organizational Domain (§4.10.2); the start where nothing was found."""
        for name, record in self.found:
            if record.psd == "n":
                return name
            if record.psd == "y" and name != self.start:
                return self.start.removesuffix("." + name).rpartition(".")[2] + "." + name
        return self.found[-1][0] if self.found else self.start

    @property
    def policy_record(self) -> tuple[str, DmarcRecord] | None:
        """The start's own record, else the Organizational Domain's, else the public suffix's (§4.10.1)."""
        by_name = dict(self.found)
        for name in (self.start, self.organizational):
            if name in by_name:
                return name, by_name[name]
        return self.found[-1] if self.found else None


async def tree_walk(dns: DmarcDns, domain: str) -> Walk:
    """The walk from `domain` up (§4.10). Raises LookupTrouble where a name server could not say."""
    labels = domain.split(".")
    found = []
    left = len(labels)
    for _ in range(DMARC_WALK_QUERIES):
        name = ".".join(labels[len(labels) - left :])
        record = await _record(dns, name)
        if record is not None:
            found.append((name, record))
            if record.psd != "u":
                break
        if left <= 1:
            break
        left = 7 if left >= 8 else left - 1
    return Walk(domain, tuple(found))


async def _record(dns: DmarcDns, name: str) -> DmarcRecord | None:
    try:
        texts = await dns.txt(f"_dmarc.{name}")
    except NotFound:
        return None
    records = [record for record in map(parse_record, texts) if record is not None]
    return records[0] if len(records) == 1 else None  # several are none at all


async def _exists(dns: DmarcDns, domain: str) -> bool:
    """Whether the name exists (RFC 8020): anything but NXDOMAIN."""
    try:
        await dns.a(domain)
    except NotFound as absence:
        return absence.name_exists
    return True


async def check_dmarc(
    dns: DmarcDns, fields: Sequence[Field], spf: SpfVerdict | None, dkim: Sequence[DkimVerdict]
) -> DmarcVerdict:
    """The verdict on a message. Where From has several domains, each is judged and the strictest failure counts."""
    try:
        domains = author_domains(fields)
    except TooManyAuthors as error:
        return DmarcVerdict("permerror", "", "reject", "", error.first)
    if not domains:
        return DmarcVerdict("none", "", "none", "")
    walks: dict[str, Walk] = {}

    async def judged(domain: str) -> DmarcVerdict:
        try:
            return await _judge(dns, domain, spf, dkim, walks)
        except LookupTrouble:
            return DmarcVerdict("temperror", "", "none", "", domain)

    if len(domains) == 1:
        return await judged(domains[0])
    # Side by side: the slow servers of one author would leave no time for the policy of the next.
    verdicts: list[DmarcVerdict] = await side_by_side(*(partial(judged, domain) for domain in domains))
    return max(verdicts, key=lambda verdict: (_ORDER[verdict.disposition], _DOUBT[verdict.result]))


async def _judge(
    dns: DmarcDns, domain: str, spf: SpfVerdict | None, dkim: Sequence[DkimVerdict], walks: dict[str, Walk]
) -> DmarcVerdict:
    if "." not in domain:
        return DmarcVerdict("none", "", "none", "", domain)

    async def walk_of(name: str) -> Walk:
        if name not in walks:
            walks[name] = await tree_walk(dns, name)
        return walks[name]

    # A record at the domain itself says all: nobody is asked further up but where another identifier has to be aligned.
    where, record = domain, await _record(dns, domain)
    if record is None:
        chosen = (await walk_of(domain)).policy_record
        if chosen is None:
            return DmarcVerdict("none", "", "none", "", domain)
        where, record = chosen
    own = where == domain
    exists = own or record.np is None or await _exists(dns, domain)
    policy = policy_for(record, own=own, exists=exists)
    if policy is None:
        return DmarcVerdict("none", "", "none", "", domain)

    async def aligned(identifier: str, strict: bool) -> bool:
        if identifier == domain:
            return True
        if strict or not identifier:
            return False
        # An organisation is a name or one above it. Nobody else is asked: a stranger's name servers could make trouble,
        # and a failure pass for doubt.
        organizational = (await walk_of(domain)).organizational
        if not f".{identifier}".endswith(f".{organizational}"):
            return False
        return (await walk_of(identifier)).organizational == organizational

    async def stands(result: str, identifier: str, strict: bool) -> bool | None:
        """Whether this result is a pass for the author; None where nobody can say."""
        if result not in ("pass", "temperror"):
            return False
        try:
            if not await aligned(identifier, strict):
                return False
        except LookupTrouble:  # another identifier may still pass
            return None
        return result == "pass" or None

    spf_stands = await stands(spf.result, spf.domain, record.strict_spf) if spf is not None else False
    dkim_stand = [await stands(one.result, one.domain, record.strict_dkim) for one in dkim]
    spf_aligned, dkim_aligned = bool(spf_stands), any(dkim_stand)
    trouble = spf_stands is None or None in dkim_stand
    passed = spf_aligned or dkim_aligned
    result = "pass" if passed else "temperror" if trouble else "fail"
    disposition = _WEAKER[policy] if record.testing else policy
    if result != "fail":
        disposition = "none"
    return DmarcVerdict(result, policy, disposition, where, domain, spf_aligned, dkim_aligned, record)
