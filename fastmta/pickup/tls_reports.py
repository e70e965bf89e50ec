"""TLS reports, sent: a mail or an HTTPS request a domain and day to whom the domain names (RFC 8460 §5).

What was counted (store/tls_rows.py) becomes a report, is compressed, and is handed in by the spool, signed there as all
mail of ours, or posted. The mail says TLS-Required: No: a report on TLS that fails has to arrive all the same (§5.3).
"""

import asyncio
import ssl
from collections.abc import Callable
from email.mime.application import MIMEApplication
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.utils import formataddr, formatdate, make_msgid
from typing import TYPE_CHECKING, Final

from fastmta.dns.mx import is_internal
from fastmta.dns.resolver import LookupTrouble, NotFound
from fastmta.model.limits import REPORT_SENT_BYTES, TLS_REPORT_POST_BYTES, TLS_REPORT_POST_S
from fastmta.pickup.daily_reports import DAY_S, Sent, begin_of, hand_in, mail_target, send_days
from fastmta.tls.https import HttpsError, fetch, parse_url
from fastmta.tls.report import Failure, PolicyResult, TlsReport, compressed, encode_report, file_name
from fastmta.tls.report_record import report_uris

if TYPE_CHECKING:
    from fastmta.config.schema import Config
    from fastmta.dns.resolver import Resolver
    from fastmta.store import MailStore
    from fastmta.store.tls_rows import TlsRow

_TYPE: Final = "application/tlsrpt+gzip"


def report_of(config: "Config", day: str, domain: str, counts: "dict[TlsRow, int]", made_at: float) -> TlsReport:
    """The report of a day: the rows of each policy together."""
    begin = begin_of(day)
    found: dict[tuple[str, str, tuple[str, ...], tuple[str, ...]], list[tuple[TlsRow, int]]] = {}
    for row, count in counts.items():
        key = (row.policy_type, row.policy_domain, row.policy_string, row.mx_host)
        found.setdefault(key, []).append((row, count))
    policies = []
    for key, rows in sorted(found.items()):
        failures = tuple(
            Failure(
                row.result,
                count,
                sending_mta_ip=row.sending_ip,
                receiving_mx_hostname=row.receiving_host,
                receiving_ip=row.receiving_ip,
                failure_reason_code=row.reason,
            )
            for row, count in sorted(rows, key=lambda item: -item[1])
            if row.result
        )
        successful = sum(count for row, count in rows if not row.result)
        policies.append(PolicyResult(*key, successful, sum(each.sessions for each in failures), failures))
    delivery = config.delivery
    return TlsReport(
        delivery.tlsrpt_report_org_name,
        delivery.tlsrpt_report_email,
        f"{day}.{int(made_at)}.{domain}@{delivery.tlsrpt_report_email.rpartition('@')[2]}",
        begin,
        begin + DAY_S - 1,
        tuple(policies),
    )


def mail_of(config: "Config", domain: str, report: TlsReport, to: str, attached: bytes) -> bytes:
    """The mail that brings a report (RFC 8460 §5.3)."""
    sender = config.delivery.tlsrpt_report_email
    submitter = sender.rpartition("@")[2]
    mail = MIMEMultipart("report")
    mail.set_param("report-type", "tlsrpt")
    mail["From"] = formataddr((report.organization_name, sender))
    mail["To"] = to
    mail["Date"] = formatdate()
    mail["Message-ID"] = make_msgid(domain=submitter)
    mail["Subject"] = f"Report Domain: {domain} Submitter: {submitter} Report-ID: <{report.report_id}>"
    mail["TLS-Report-Domain"] = domain
    mail["TLS-Report-Submitter"] = submitter
    mail["TLS-Required"] = "No"
    mail["Auto-Submitted"] = "auto-generated"
    good, bad = sum(each.successful for each in report.policies), sum(each.failed for each in report.policies)
    mail.attach(MIMEText(f"A report about TLS to {domain}: {good} sessions as wanted, {bad} failures.\n", "plain"))
    part = MIMEApplication(attached, "tlsrpt+gzip")
    part.add_header("Content-Disposition", "attachment", filename=file_name(submitter, domain, report))
    mail.attach(part)
    return mail.as_bytes()


async def send_tls_reports(
    config: "Config",
    store: "MailStore",
    dns: "Resolver",
    context: Callable[[], ssl.SSLContext],
    now: float,
    *,
    today: bool,
) -> list[Sent]:
    """Sends the reports of all days that are over, or with `today` of this one too; each is forgotten then.

    `context`: verifies the hosts of https: addresses.
    """

    delivery = config.delivery

    async def send(day: str, domain: str, _: str, counts: "dict[TlsRow, int]") -> Sent:
        sessions = sum(counts.values())
        try:
            uris = report_uris(await dns.txt(f"_smtp._tls.{domain}"))
        except NotFound:
            uris = ()
        except LookupTrouble as error:
            reason = f"its record cannot be read: {type(error).__name__}"
            return Sent(day, domain, sessions, (), reason, later=True)
        if not uris:
            return Sent(day, domain, sessions, (), "it asks for none any more")
        report = report_of(config, day, domain, counts, now)
        attached = await asyncio.to_thread(lambda: compressed(encode_report(report)))
        if len(attached) > REPORT_SENT_BYTES:
            return Sent(day, domain, sessions, (), f"it has over {REPORT_SENT_BYTES} octets")
        to, reason = [], ""
        for uri in uris:
            target = mail_target(uri)
            try:
                if target is not None:
                    raw = mail_of(config, domain, report, target.address, attached)
                    await hand_in(config, delivery.tlsrpt_report_email, target.address, raw)
                    to.append(target.address)
                elif uri.lower().startswith("https:"):
                    await _post(dns, context(), uri, attached, may_be_internal=delivery.allow_loopback_mx)
                    to.append(uri)
            except (HttpsError, ValueError, NotFound, LookupTrouble) as error:
                reason = f"{uri}: {error}"
        return Sent(day, domain, sessions, tuple(to), reason, later=not to and bool(reason))

    return await send_days(store.tls_rows, now, send, today=today)


async def _post(dns: "Resolver", context: ssl.SSLContext, uri: str, attached: bytes, *, may_be_internal: bool) -> None:
    """HttpsError: it was not taken (RFC 8460 §5.4). A stranger names the host, so, as with mail exchangers, it is one
    of our own network only where the administrator allows such.
    """
    url = parse_url(uri)
    found = await dns.addresses(url.host)
    addresses = [each for each in found if may_be_internal or not is_internal(each)]
    if not addresses:
        raise HttpsError(f"{url.host} has an address that reports are not sent to: {found[0]}")
    response = await fetch(
        url,
        addresses,
        context,
        method="POST",
        body=attached,
        headers={"Content-Type": _TYPE},
        limit_bytes=TLS_REPORT_POST_BYTES,
        timeout_s=TLS_REPORT_POST_S,
    )
    if response.status // 100 != 2:
        raise HttpsError(f"{url.host} answers {response.status}")
