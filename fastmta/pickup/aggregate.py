"""Aggregate reports of DMARC, sent: a mail a domain and day to whom the domain names (RFC 9990, RFC 7489 §7.1).

What was counted (store/dmarc_rows.py) becomes a report, is compressed, and is handed in by the spool, where it is
signed as all mail of ours. An address in another organization gets it only where that one says so
in the DNS. A report that is larger than its reader wants is left out; what cannot be sent is forgotten after its day,
since reports are best effort.
"""

import asyncio
import time
from email.message import EmailMessage
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import unquote

from fastmta.authentication.dmarc import tree_walk
from fastmta.authentication.dmarc_record import DmarcRecord, parse_record
from fastmta.authentication.dmarc_report import (
    DkimAuth,
    Report,
    ReportRecord,
    SpfAuth,
    compressed,
    encode_report,
    file_name,
)
from fastmta.dns.resolver import LookupTrouble, NotFound
from fastmta.model.limits import DMARC_REPORT_SENT_BYTES, DMARC_REPORT_TARGETS
from fastmta.pickup.spool import Drop, Ticket, deposit

if TYPE_CHECKING:
    from fastmta.config.schema import Config
    from fastmta.dns.resolver import Resolver
    from fastmta.store import MailStore
    from fastmta.store.dmarc_rows import Published, Row

_DAY_S: Final = 86_400
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class Target(NamedTuple):
    """An address that a domain names, and the most octets that it takes; 0: as many as come."""

    address: str
    most: int


class Sent(NamedTuple):
    """One report: to whom it went, or why to nobody."""

    day: str
    domain: str
    messages: int
    to: tuple[str, ...]
    reason: str


def targets_of(record: DmarcRecord) -> list[Target]:
    """The mailto: addresses of rua=, with RFC 7489 §6.2's size behind "!"; what is none is passed over."""
    found: list[Target] = []
    for uri in record.rua[: 2 * DMARC_REPORT_TARGETS]:
        scheme, colon, rest = uri.partition(":")
        if scheme.strip().lower() != "mailto" or not colon:
            continue
        address, _, size = rest.partition("!")
        address = unquote(address.partition("?")[0]).strip()
        number, unit = size.rstrip("kmgtKMGT"), size[-1:].lower() if size[-1:].isalpha() else ""
        most = int(number[:12]) * _UNITS.get(unit, 1) if number.isascii() and number.isdigit() else 0
        local, at, domain = address.rpartition("@")
        if at and local and domain and address.isascii() and not any(ord(c) <= 32 or c in '<>,;"\\' for c in address):
            found.append(Target(f"{local}@{domain.lower().rstrip('.')}", most))
    return list(dict.fromkeys(found))[:DMARC_REPORT_TARGETS]


async def may_report_to(dns: "Resolver", domain: str, target: Target) -> bool:
    """Whether an address may be sent reports about a domain: it is of the same organization, or its own says so."""
    host = target.address.rpartition("@")[2]
    if host == domain:
        return True
    try:
        if (await tree_walk(dns, host)).organizational == (await tree_walk(dns, domain)).organizational:
            return True
        texts = await dns.txt(f"{domain}._report._dmarc.{host}")
    except (NotFound, LookupTrouble):
        return False
    return any(parse_record(text) is not None for text in texts)


def report_of(
    config: "Config", day: str, domain: str, published: "Published", counts: "dict[Row, int]", made_at: float
) -> Report:
    """The report of a day."""
    import calendar

    begin = calendar.timegm(time.strptime(day, "%Y%m%d"))
    records = tuple(
        ReportRecord(
            row.source_ip,
            count,
            row.disposition,
            row.dkim,
            row.spf,
            row.header_from,
            row.envelope_from,
            "",
            tuple(DkimAuth(*each) for each in row.dkim_auth),
            tuple(SpfAuth(*each) for each in row.spf_auth),
            row.reasons,
        )
        for row, count in sorted(counts.items(), key=lambda item: -item[1])
    )
    return Report(
        org_name=config.dmarc_report_org_name,
        email=config.dmarc_report_email,
        report_id=f"{domain}.{begin}.{int(made_at)}",
        begin=begin,
        end=begin + _DAY_S - 1,
        domain=domain,
        records=records,
        p=published.p,
        sp=published.sp,
        np=published.np,
        adkim=published.adkim,
        aspf=published.aspf,
        testing=published.testing,
        generator="FastMTA",
    )


def mail_of(config: "Config", report: Report, to: str, attached: bytes) -> bytes:
    """The mail that brings a report (RFC 9990 §3.5)."""
    receiver = config.dmarc_report_email.rpartition("@")[2]
    mail = EmailMessage()
    mail["From"] = f"{config.dmarc_report_org_name} <{config.dmarc_report_email}>"
    mail["To"] = to
    mail["Subject"] = f"Report Domain: {report.domain} Submitter: {receiver} Report-ID: {report.report_id}"
    mail["Auto-Submitted"] = "auto-generated"
    messages = sum(record.messages for record in report.records)
    mail.set_content(f"An aggregate report of DMARC about {report.domain}: {messages} messages.\n")
    name = file_name(receiver, report)
    mail.add_attachment(attached, maintype="application", subtype="gzip", filename=name)
    return mail.as_bytes()


async def send_reports(config: "Config", store: "MailStore", dns: "Resolver", now: float, *, today: bool) -> list[Sent]:
    """Sends the reports of all days that are over, or with `today` of this one too; each is forgotten then."""
    await store.dmarc_rows.flush()
    this_day = time.strftime("%Y%m%d", time.gmtime(now))
    out = []
    for day, domain in store.dmarc_rows.pending():
        if day < this_day or today:
            out.append(await _send(config, store, dns, now, day, domain))
            await asyncio.sleep(0)
    return out


async def _send(config: "Config", store: "MailStore", dns: "Resolver", now: float, day: str, domain: str) -> Sent:
    published, counts, keys = store.dmarc_rows.of(day, domain)
    messages = sum(counts.values())
    to: list[str] = []
    reason = ""
    try:
        records = [record for record in map(parse_record, await dns.txt(f"_dmarc.{domain}")) if record is not None]
        targets = targets_of(records[0]) if len(records) == 1 else []
        allowed = [each for each in targets if await may_report_to(dns, domain, each)]
        reason = "" if allowed else "nobody is named who may get it" if targets else "it asks for none any more"
        if allowed:
            report = report_of(config, day, domain, published, counts, now)
            attached = await asyncio.to_thread(lambda: compressed(encode_report(report)))
            for target in allowed:
                if len(attached) > min(target.most or DMARC_REPORT_SENT_BYTES, DMARC_REPORT_SENT_BYTES):
                    reason = f"{target.address} takes {target.most or DMARC_REPORT_SENT_BYTES} octets at the most"
                    continue
                raw = mail_of(config, report, target.address, attached)
                ticket = Ticket(config.dmarc_report_email, [Drop(target.address)])
                await asyncio.to_thread(deposit, config.data_directory, ticket, [raw], 0)
                to.append(target.address)
    except (NotFound, LookupTrouble) as error:
        reason = f"its record cannot be read: {type(error).__name__}"
    await store.dmarc_rows.forget(keys)
    return Sent(day, domain, messages, tuple(to), reason)
