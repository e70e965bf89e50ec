"""TLS reports of ours: the acts `tlsrpt.*`. A server sends them by itself once a day."""

from collections.abc import AsyncIterator

import msgspec

from fastmta.operations.acts import act, rows
from fastmta.operations.desk import Desk
from fastmta.operations.reporting import Send, send_by
from fastmta.operations.values import Nothing


class Counted(msgspec.Struct):
    """What is counted of one result of a domain's sessions on a day of UTC, and not sent yet."""

    day: str
    domain: str
    policy: str
    result: str
    host: str
    sessions: int
    reason: str


class Reported(msgspec.Struct):
    """A report: to whom it was handed in or posted, or why to nobody."""

    day: str
    domain: str
    sessions: int
    to: list[str]
    reason: str


@rows("tlsrpt.show")
async def show(desk: Desk, asked: Nothing) -> AsyncIterator[Counted]:
    """List what will be reported to the domains that ask for it; the last minute may be missing."""
    from fastmta.pickup.daily_reports import day_shown

    found = desk.store.tls_rows
    for day, domain in found.pending():
        _, counts, _ = found.of(day, domain)
        for row, count in sorted(counts.items(), key=lambda item: (item[0].result, -item[1])):
            result = row.result or "success"
            yield Counted(day_shown(day), domain, row.policy_type, result, row.receiving_host, count, row.reason)
        await desk.pause()


@act("tlsrpt.send", changes=True)
async def send(desk: Desk, asked: Send) -> list[Reported]:
    """Send the TLS reports that are due, each to whom its domain names."""
    from fastmta.pickup.tls_reports import send_tls_reports
    from fastmta.tls.contexts import Contexts

    verifies = Contexts(desk.config.tls).https_context
    now = desk.clock.now()
    sent = await send_by(
        desk, lambda dns: send_tls_reports(desk.config, desk.store, dns, verifies, now, today=asked.today)
    )
    return [Reported(each.day, each.domain, each.messages, list(each.to), each.reason) for each in sent]
