"""Aggregate reports of DMARC, sent: a mail a domain and day to whom the domain names (RFC 9990, RFC 7489 §7.1).

What was counted (store/dmarc_rows.py) becomes a report, is compressed, and is handed in by the spool, where it is
signed as all mail of ours (daily_reports.py). An address in another organization gets it only where that one says so
in the DNS. A report that is larger than its reader wants is left out.
"""

import asyncio
from email.message import EmailMessage
from typing import TYPE_CHECKING

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
from fastmta.model.limits import REPORT_SENT_BYTES, REPORT_TARGETS
from fastmta.pickup.daily_reports import DAY_S, Sent, Target, begin_of, hand_in, mail_target, send_days

if TYPE_CHECKING:
    from fastmta.config.schema import Config
    from fastmta.dns.resolver import Resolver
    from fastmta.store import MailStore
    from fastmta.store.dmarc_rows import Published, Row


def targets_of(record: DmarcRecord) -> list[Target]:
    """The mailto: addresses of rua=, with RFC 7489 §6.2's size behind "!"; what is none is passed over."""
    found = [mail_target(uri) for uri in record.rua[: 2 * REPORT_TARGETS]]
    return list(dict.fromkeys(each for each in found if each is not None))[:REPORT_TARGETS]


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
    begin = begin_of(day)
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
        end=begin + DAY_S - 1,
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

    async def send(day: str, domain: str, published: "Published", counts: "dict[Row, int]") -> Sent:
        return await _send(config, dns, now, day, domain, published, counts)

    return await send_days(store.dmarc_rows, now, send, today=today)


async def _send(
    config: "Config",
    dns: "Resolver",
    now: float,
    day: str,
    domain: str,
    published: "Published",
    counts: "dict[Row, int]",
) -> Sent:
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
                if len(attached) > min(target.most or REPORT_SENT_BYTES, REPORT_SENT_BYTES):
                    reason = f"{target.address} takes {target.most or REPORT_SENT_BYTES} octets at the most"
                    continue
                raw = mail_of(config, report, target.address, attached)
                await hand_in(config, config.dmarc_report_email, target.address, raw)
                to.append(target.address)
    except (NotFound, LookupTrouble) as error:
        reason = f"its record cannot be read: {type(error).__name__}"
        return Sent(day, domain, messages, tuple(to), reason, later=isinstance(error, LookupTrouble))
    return Sent(day, domain, messages, tuple(to), reason)
