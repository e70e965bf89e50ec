"""DMARC aggregate reports of ours: the acts `dmarc.*`. A server sends them by itself once a day."""

from collections.abc import AsyncIterator

import msgspec

from fastmta.operations.acts import act, rows
from fastmta.operations.desk import Desk
from fastmta.operations.reporting import Send, send_by
from fastmta.operations.values import Nothing


class Pending(msgspec.Struct):
    """What is counted of a domain on a day of UTC, and not sent yet."""

    day: str
    domain: str
    messages: int
    sources: int


class Reported(msgspec.Struct):
    """A report: to whom it was handed in, or why to nobody."""

    day: str
    domain: str
    messages: int
    to: list[str]
    reason: str


@rows("dmarc.pending")
async def pending(desk: Desk, asked: Nothing) -> AsyncIterator[Pending]:
    """List what will be reported to the domains that ask for it; the last minute may be missing."""
    from fastmta.pickup.daily_reports import day_shown

    found = desk.store.dmarc_rows
    for day, domain in found.pending():
        _, counts, _ = found.of(day, domain)
        sources = len({row.source_ip for row in counts})
        yield Pending(day_shown(day), domain, sum(counts.values()), sources)
        await desk.pause()


@act("dmarc.send", changes=True)
async def send(desk: Desk, asked: Send) -> list[Reported]:
    """Send the aggregate reports that are due, each to whom its domain names."""
    from fastmta.pickup.aggregate import send_reports

    now = desk.clock.now()
    sent = await send_by(desk, lambda dns: send_reports(desk.config, desk.store, dns, now, today=asked.today))
    return [Reported(each.day, each.domain, each.messages, list(each.to), each.reason) for each in sent]
