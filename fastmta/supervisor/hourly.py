"""What the server does once an hour, in the worker of the first slot: old mail leaves INBOX, Trash and Junk (Dovecot's
autoexpunge), what can be undeleted goes after its time, and who has nearly used his quota is told.

Both look at what is there, so an hour that was missed is made up for by the next. What is old is said by a time that
follows the clock by a day at a look and no faster: a clock that is suddenly far ahead would empty every Trash at once,
and a clock that is right after a month of rest is believed a day later.
"""

import asyncio
from array import array
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from fastmta.config.schema import Config
from fastmta.model.errors import Refused, StorageFailure
from fastmta.runtime.clock import Clock
from fastmta.runtime.log import Log
from fastmta.store import MailStore
from fastmta.store.accounts import Account
from fastmta.store.retained import NEVER_S
from fastmta.supervisor.daily import post

FIRST_S: Final = 60.0  # after the start
HOUR_S: Final = 3600.0
_ACCOUNTS_AT_ONCE: Final = 50
_MESSAGES_AT_ONCE: Final = 500
_BELIEVED_S: Final = 86_400  # that a look may be later than the one before it


class Services(Protocol):
    @property
    def config(self) -> Config: ...
    @property
    def store(self) -> MailStore: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def log(self) -> Log: ...


class Hourly:
    """The hourly work of a server. `tick` once a second."""

    def __init__(self, spawn: Callable[[str, Coroutine[Any, Any, None]], asyncio.Task[None]], now: float) -> None:
        self._spawn = spawn
        self._due_at = now + FIRST_S
        self._running: asyncio.Task[None] | None = None

    def tick(self, services: Services) -> None:
        now, config = services.clock.monotonic(), services.config
        if now < self._due_at or (self._running is not None and not self._running.done()):
            return
        self._due_at = now + HOUR_S
        if any(_ages(config).values()) or config.quota_mail_warnings or services.store.retained.accounts():
            self._running = self._spawn("hourly", look_at_all(services))


async def look_at_all(services: Services) -> None:
    """Looks at every account; one that cannot be read does not keep the others from their turn."""
    after = b""
    now_s = await _believed(services)
    await _release_retained(services, now_s)
    while True:
        page, after = services.store.accounts.page(after, _ACCOUNTS_AT_ONCE)
        for account in page:
            try:
                await _expunge_old(services, account, now_s)
                await _warn(services, account)
            except (StorageFailure, Refused) as error:
                services.log.error("hourly.failed", account=account.address, error=error)
            await asyncio.sleep(0)
        if not after:
            return


async def _believed(services: Services) -> int:
    """The time by which mail is old."""
    now_s, believed = int(services.clock.now()), services.store.believed_time
    last_s = believed.get()
    if last_s and now_s > last_s + _BELIEVED_S:
        services.log.warning("hourly.clock_jumped", hours=(now_s - last_s) // 3600, effect="old mail stays for longer")
        now_s = last_s + _BELIEVED_S
    try:
        await believed.note(now_s)
    except (StorageFailure, Refused) as error:
        services.log.error("hourly.failed", error=error)
    return now_s


# --- autoexpunge ---


def _ages(config: Config) -> dict[str, float]:
    """After how many seconds mail leaves a mailbox of this use; 0: never."""
    return {
        "INBOX": config.inbox_autoexpunge,
        "\\Trash": config.trash_autoexpunge,
        "\\Junk": config.junk_autoexpunge,
    }


async def _expunge_old(services: Services, account: Account, now_s: int) -> None:
    config, mailboxes = services.config, services.store.mailboxes
    ages = _ages(config)
    if not any(ages.values()):
        return
    last = ""
    while page := mailboxes.page(account.id, last):
        last = page[-1].name
        for box in page:
            age_s = max((ages.get(use, 0.0) for use in (box.name, *box.special_use.split())), default=0.0)
            if age_s and box.exists:
                gone = await _expunge_before(services, box.id, int(now_s - age_s))
                if gone:
                    services.log.info("mailbox.autoexpunged", account=account.address, mailbox=box.name, messages=gone)
        await asyncio.sleep(0)


async def _expunge_before(services: Services, mailbox_id: int, cutoff_s: int) -> int:
    """Removes what came into a mailbox before that moment; how many went. They came in the order of their uids."""
    mailboxes = services.store.mailboxes
    gone, last = 0, 0
    while uids := mailboxes.uids(mailbox_id, last, _MESSAGES_AT_ONCE):
        last = uids[-1]
        saved, received = mailboxes.dates(mailbox_id, uids, saved=True), mailboxes.dates(mailbox_id, uids)
        came = [each or other for each, other in zip(saved, received, strict=True)]  # not known in old stores
        old = array("I", [uid for uid, at in zip(uids, came, strict=True) if 0 < at < cutoff_s])
        if old:
            gone += len(await mailboxes.expunge(mailbox_id, old, only_deleted=False))
        if not old or came[-1] >= cutoff_s:
            break
        await asyncio.sleep(0)
    return gone


# --- undelete ---


async def _release_retained(services: Services, now_s: int) -> None:
    """What was expunged `mail_undelete_time` ago, or all of it where that is 0 now, cannot be had back any more."""
    retained, account_id = services.store.retained, 0
    kept_s = services.config.mail_undelete_time
    while account_id := retained.accounts(account_id):
        try:
            gone = await retained.release(account_id, int(now_s - kept_s) if kept_s else NEVER_S)
        except (StorageFailure, Refused) as error:
            services.log.error("hourly.failed", account=account_id, error=error)
            continue
        if gone:
            services.log.info("mailbox.undelete_ended", account=account_id, messages=gone)
        await asyncio.sleep(0)


# --- quota ---


async def _warn(services: Services, account: Account) -> None:
    """A mail where the account has passed a step since the last look; none when it falls below one."""
    if not services.config.quota_mail_warnings:
        return
    warnings = services.store.quota_warnings
    used, messages, quota, limit = services.store.mailboxes.usage(account.id)
    percent = max(100 * used // quota if quota else 0, 100 * messages // limit if limit else 0)
    steps = [int(each.rstrip("%")) for each in services.config.quota_mail_warnings]
    step = max((each for each in steps if each <= percent), default=0)
    before = warnings.step(account.id)
    if step == before:
        return
    await warnings.note(account.id, step)
    if step < before or not account.enabled:
        return
    services.log.info("quota.warning", account=account.address, percent=percent)
    text = (
        f"The mailboxes of {account.address} hold {used // 1024}{f' of {quota // 1024}' if quota else ''} KB in "
        f"{messages}{f' of {limit}' if limit else ''} messages, {percent} % of their quota.\n"
        "When it is used up, new mail is refused. Delete what you do not need, and empty the trash.\n"
    )
    await post(services.config, account.address, f"Your mailboxes are {percent} % full", text)
