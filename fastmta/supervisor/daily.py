"""What the server does once a day, in the worker of the first slot: digests of quarantined mail, DMARC and TLS reports,
and forgetting old answers about addresses.

The day of the last run lies in the store, so a restart repeats nothing, and a server that was down at the hour does it
when it is up again. Mail of ours goes by the spool, as a local program's does: it is signed, counted and logged there.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from email.message import EmailMessage
from typing import Any, Final, Protocol

from fastmta.config.schema import Config
from fastmta.dns.resolver import Resolver
from fastmta.model.limits import DIGEST_MESSAGES
from fastmta.operations.quarantine import HEADER_BYTES, described, mailbox_of
from fastmta.pickup.aggregate import send_reports
from fastmta.pickup.daily_reports import Sent, hand_in
from fastmta.pickup.tls_reports import send_tls_reports
from fastmta.runtime.clock import Clock
from fastmta.runtime.log import Log
from fastmta.store import MailStore
from fastmta.tls.contexts import Contexts

LOOK_S: Final = 30.0  # between two looks whether the hour has come
_ACCOUNTS_AT_ONCE: Final = 50
_HEADINGS: Final = "received              size  from, subject and ID"


class Services(Protocol):
    @property
    def config(self) -> Config: ...
    @property
    def store(self) -> MailStore: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def log(self) -> Log: ...
    @property
    def resolver(self) -> Resolver: ...
    @property
    def contexts(self) -> Contexts: ...


Spawn = Callable[[str, Coroutine[Any, Any, None]], Any]
Job = Callable[[Services], Awaitable[int]]  # how many mails it has handed in


class Daily:
    """The daily jobs of a server. `tick` once a second."""

    def __init__(self, spawn: Spawn) -> None:
        self._spawn = spawn
        self._looked_at = float("-inf")
        self._running: set[str] = set()

    def tick(self, services: Services) -> None:
        now = services.clock.monotonic()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        if services.config.quarantine_digest:
            self._offer(services, "digest", digest)
        if services.store.verified.count:
            self._offer(services, "verified", forget_verified)
        if services.config.dmarc_reports:
            self._offer(services, "dmarc", report)
        if services.config.delivery.smtp_tlsrpt_enable:
            self._offer(services, "tlsrpt", report_tls)

    def _offer(self, services: Services, name: str, job: Job) -> None:
        if name in self._running:
            return
        local = time.localtime(services.clock.now())
        today = time.strftime("%Y-%m-%d", local)
        if local.tm_hour < services.config.quarantine_digest_hour or services.store.days.last(name) >= today:
            return
        self._running.add(name)
        self._spawn(f"daily.{name}", self._run(services, name, job, today))

    async def _run(self, services: Services, name: str, job: Job, today: str) -> None:
        try:
            sent = await job(services)
            await services.store.days.note(name, today)
            services.log.info("daily.done", job=name, mails=sent)
        finally:
            self._running.discard(name)


async def report(services: Services) -> int:
    """Sends the aggregate reports of the days that are over."""
    sent = await send_reports(services.config, services.store, services.resolver, services.clock.now(), today=False)
    return _told(services, "dmarc.report", "messages", sent)


async def report_tls(services: Services) -> int:
    """Sends the TLS reports of the days that are over."""
    sent = await send_tls_reports(
        services.config,
        services.store,
        services.resolver,
        services.contexts.https_context,
        services.clock.now(),
        today=False,
    )
    return _told(services, "tlsrpt.report", "sessions", sent)


def _told(services: Services, event: str, counted: str, sent: list[Sent]) -> int:
    """A line for each report; how many went out."""
    for each in sent:
        count = {counted: each.messages}
        services.log.info(event, domain=each.domain, day=each.day, **count, to=each.to, reason=each.reason)
    return sum(len(each.to) for each in sent)


async def forget_verified(services: Services) -> int:
    """Forgets what next hops have said of addresses too long ago."""
    now, config = services.clock.now(), services.config
    await services.store.verified.forget_old(
        ok_before_ms=int((now - config.address_verify_positive_expire_time) * 1000),
        others_before_ms=int((now - config.address_verify_negative_expire_time) * 1000),
    )
    return 0


async def digest(services: Services) -> int:
    """Tells each user what came into quarantine during the last day."""
    since = services.clock.now() - 86_400
    after, sent = b"", 0
    while True:
        page, after = services.store.accounts.page(after, _ACCOUNTS_AT_ONCE)
        for account in page:
            if not account.enabled:
                continue
            text = _digest_text(services, account, since)
            if text:
                await post(services.config, account.address, "Mail in quarantine", text)
                sent += 1
            await asyncio.sleep(0)
        if not after:
            return sent


def _digest_text(services: Services, account: Any, since: float) -> str:
    """One user's digest; "" where nothing came."""
    mailboxes = services.store.mailboxes
    mailbox_id = mailbox_of(services.config, services.store, account)
    if not mailbox_id:
        return ""
    uids = mailboxes.uids(mailbox_id)[-DIGEST_MESSAGES:]
    lines = []
    for row in mailboxes.rows(mailbox_id, uids):
        if row.internal_date_s < since:
            continue
        sender, subject = described(mailboxes.read(mailbox_id, row.uid, 0, HEADER_BYTES) or b"")
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(row.internal_date_s))
        lines.append(f"{when} {row.size:>9}  {sender}\n{'':28}{subject}\n{'':28}{account.address}:{row.uid}\n")
    if not lines:
        return ""
    mailbox = mailboxes.by_id(mailbox_id)
    name = mailbox.name if mailbox is not None else "quarantine"
    return (
        f"These messages were put into your mailbox {name!r} during the last day:\n\n{_HEADINGS}\n\n"
        + "\n".join(lines)
        + "\nWhat is no spam can be moved out of that mailbox, or asked of the postmaster by its ID.\n"
    )


async def post(config: Config, to: str, subject: str, text: str) -> None:
    """Hands in a mail of ours, on a thread."""
    mail = EmailMessage()
    mail["From"] = f"Mail Delivery System <MAILER-DAEMON@{config.myorigin}>"
    mail["To"] = to
    mail["Subject"] = subject
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(text)
    await hand_in(config, "", to, mail.as_bytes())
