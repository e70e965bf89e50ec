"""Reports that go out once a day, of DMARC (aggregate.py) and of TLS (tls_reports.py): their days, addresses, mails.

A report is a mail or a request a domain and day, to whom the domain names in the DNS. Mail is handed in by the spool,
where it is signed as all mail of ours. Reports are best effort: what nobody may get is forgotten with its day; what
could not be looked up or handed over now is kept for one more day.
"""

import asyncio
import calendar
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import unquote

from fastmta.pickup.spool import Drop, Ticket, deposit

if TYPE_CHECKING:
    from fastmta.config.schema import Config
    from fastmta.store.day_rows import DayRows

DAY_S: Final = 86_400
_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class Target(NamedTuple):
    """An address that a domain names, and the most octets that it takes; 0: as many as come."""

    address: str
    most: int


class Sent(NamedTuple):
    """One report: to whom it went, or why to nobody. `day` is 2026-11-27; `later`: it is tried again."""

    day: str
    domain: str
    messages: int
    to: tuple[str, ...]
    reason: str
    later: bool = False


def mail_target(uri: str) -> Target | None:
    """Of a mailto: URI, with RFC 7489 §6.2's size behind "!"; None: it is none that mail can go to."""
    scheme, colon, rest = uri.partition(":")
    if scheme.strip().lower() != "mailto" or not colon:
        return None
    address, _, size = rest.partition("!")
    address = unquote(address.partition("?")[0]).strip()
    number, unit = size.rstrip("kmgtKMGT"), size[-1:].lower() if size[-1:].isalpha() else ""
    most = int(number[:12]) * _UNITS.get(unit, 1) if number.isascii() and number.isdigit() else 0
    local, at, domain = address.rpartition("@")
    if at and local and domain and address.isascii() and not any(ord(c) <= 32 or c in '<>,;"\\' for c in address):
        return Target(f"{local}@{domain.lower().rstrip('.')}", most)
    return None


def day_shown(day: str) -> str:
    """A day of UTC as it is kept, 20261127, in the way that it is listed."""
    return f"{day[:4]}-{day[4:6]}-{day[6:]}"


def begin_of(day: str) -> int:
    """The first second of a day of UTC, as 20261127."""
    return calendar.timegm(time.strptime(day, "%Y%m%d"))


async def send_days(
    rows: "DayRows[Any, Any]",
    now: float,
    send: Callable[[str, str, Any, dict[Any, int]], Awaitable[Sent]],
    *,
    today: bool,
) -> list[Sent]:
    """Has the reports sent of all days that are over, or with `today` of this one too; each is forgotten then.

    `send(day, domain, published, counts)`.
    """
    await rows.flush()
    this_day = time.strftime("%Y%m%d", time.gmtime(now))
    out = []
    for day, domain in rows.pending():
        if day < this_day or today:
            published, counts, keys = rows.of(day, domain)
            sent = (await send(day, domain, published, counts))._replace(day=day_shown(day))
            if sent.later and now - begin_of(day) < 3 * DAY_S:
                out.append(sent._replace(reason=f"{sent.reason}; tried again tomorrow"))
            else:
                out.append(sent)
                await rows.forget(keys)
            await asyncio.sleep(0)
    return out


async def hand_in(config: "Config", sender: str, to: str, raw: bytes) -> None:
    """Leaves a mail in the spool, on a thread."""
    await asyncio.to_thread(deposit, config.data_directory, Ticket(sender, [Drop(to)]), [raw], 0)
