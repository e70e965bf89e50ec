"""The whole store of one process, and how units are committed from a loop or from a command."""

import os
from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Final

from fastmta._store import TABLE_COUNTER, TABLE_META, Store
from fastmta._unit import COMMITTED, REFUSED, Blob, Engine, Unit
from fastmta.model.errors import Refused, StorageFailure, StoreDamaged
from fastmta.runtime.clock import Clock, SystemClock
from fastmta.store.guard import hold_open
from fastmta.store.record_keys import DIRECTORY_COUNTER
from fastmta.store.warming import Warming

if TYPE_CHECKING:
    import asyncio

    from fastmta.config.schema import Config
    from fastmta.runtime.bus import Observer
    from fastmta.runtime.metrics import Cells
    from fastmta.store.access import Access
    from fastmta.store.account_changes import AccountChanges
    from fastmta.store.accounts import Accounts
    from fastmta.store.acl import AccessLists
    from fastmta.store.aliases import Aliases
    from fastmta.store.annotations import Annotations
    from fastmta.store.bans import Bans
    from fastmta.store.believed_time import BelievedTime
    from fastmta.store.credentials import AccountCredentials
    from fastmta.store.days import Days
    from fastmta.store.dkim_keys import DkimKeys
    from fastmta.store.dmarc_rows import DmarcRows
    from fastmta.store.groups import Groups
    from fastmta.store.last_logins import LastLogins
    from fastmta.store.mailboxes import Mailboxes
    from fastmta.store.posting_notes import PostingNotes
    from fastmta.store.queue import Queue
    from fastmta.store.quota_rules import KeptQuotaRules
    from fastmta.store.quota_warnings import QuotaWarnings
    from fastmta.store.retained import RetainedMessages
    from fastmta.store.suspensions import Suspensions
    from fastmta.store.tls_rows import TlsRows
    from fastmta.store.url_keys import UrlKeys
    from fastmta.store.verified import VerifiedAddresses

# The modules of its parts.
PARTS: Final = (
    "access",
    "account_changes",
    "accounts",
    "acl",
    "aliases",
    "annotations",
    "bans",
    "credentials",
    "days",
    "dkim_keys",
    "dmarc_rows",
    "groups",
    "last_logins",
    "mailboxes",
    "posting_notes",
    "queue",
    "believed_time",
    "quota_rules",
    "quota_warnings",
    "retained",
    "url_keys",
    "suspensions",
    "tls_rows",
    "verified",
)


class MailStore:
    """Accounts, mailboxes, queue and aliases over one environment.

    Its parts are made, and their modules loaded, when they are first asked for: a command needs few of them.
    Reads are synchronous and short. Mutators are coroutines: with a loop attached they wait for the committer's signal;
    without one (commands, tests) they commit at once, blocking.
    """

    def __init__(self, raw: Store, clock: Clock | None = None, guard: int | None = None) -> None:
        """`guard` is hold_open's descriptor, closed after the store."""
        self.raw = raw
        self._guard = guard
        self.clock = clock if clock is not None else SystemClock()
        self.warming = Warming(raw.path)
        self.retained_bytes = 0  # of an account's expunged messages that can be had back; 0: none (store/retained.py)
        self._loop: asyncio.AbstractEventLoop | None = None

    # --- its parts ---

    @cached_property
    def accounts(self) -> "Accounts":
        from fastmta.store.accounts import Accounts

        return Accounts(self)

    @cached_property
    def mailboxes(self) -> "Mailboxes":
        from fastmta.store.mailboxes import Mailboxes

        return Mailboxes(self)

    @cached_property
    def access_lists(self) -> "AccessLists":
        from fastmta.store.acl import AccessLists

        return AccessLists(self, self.accounts, self.groups)

    @cached_property
    def access(self) -> "Access":
        from fastmta.store.access import Access

        return Access(self.mailboxes, self.accounts, self.access_lists)

    @cached_property
    def queue(self) -> "Queue":
        from fastmta.store.queue import Queue

        return Queue(self)

    @cached_property
    def aliases(self) -> "Aliases":
        from fastmta.store.aliases import Aliases

        return Aliases(self)

    @cached_property
    def dkim_keys(self) -> "DkimKeys":
        from fastmta.store.dkim_keys import DkimKeys

        return DkimKeys(self)

    @cached_property
    def annotations(self) -> "Annotations":
        from fastmta.store.annotations import Annotations

        return Annotations(self)

    @cached_property
    def credentials(self) -> "AccountCredentials":
        from fastmta.store.credentials import AccountCredentials

        return AccountCredentials(self)

    @cached_property
    def groups(self) -> "Groups":
        from fastmta.store.groups import Groups

        return Groups(self)

    @cached_property
    def last_logins(self) -> "LastLogins":
        from fastmta.store.last_logins import LastLogins

        return LastLogins(self)

    @cached_property
    def url_keys(self) -> "UrlKeys":
        from fastmta.store.url_keys import UrlKeys

        return UrlKeys(self)

    @cached_property
    def believed_time(self) -> "BelievedTime":
        from fastmta.store.believed_time import BelievedTime

        return BelievedTime(self)

    @cached_property
    def quota_rules(self) -> "KeptQuotaRules":
        from fastmta.store.quota_rules import KeptQuotaRules

        return KeptQuotaRules(self)

    @cached_property
    def quota_warnings(self) -> "QuotaWarnings":
        from fastmta.store.quota_warnings import QuotaWarnings

        return QuotaWarnings(self)

    @cached_property
    def retained(self) -> "RetainedMessages":
        from fastmta.store.retained import RetainedMessages

        return RetainedMessages(self)

    @cached_property
    def suspensions(self) -> "Suspensions":
        from fastmta.store.suspensions import Suspensions

        return Suspensions(self)

    @cached_property
    def bans(self) -> "Bans":
        from fastmta.store.bans import Bans

        return Bans(self)

    @cached_property
    def verified(self) -> "VerifiedAddresses":
        from fastmta.store.verified import VerifiedAddresses

        return VerifiedAddresses(self)

    @cached_property
    def dmarc_rows(self) -> "DmarcRows":
        from fastmta.store.dmarc_rows import DmarcRows

        return DmarcRows(self)

    @cached_property
    def tls_rows(self) -> "TlsRows":
        from fastmta.store.tls_rows import TlsRows

        return TlsRows(self)

    @cached_property
    def days(self) -> "Days":
        from fastmta.store.days import Days

        return Days(self)

    @cached_property
    def account_changes(self) -> "AccountChanges":
        from fastmta.store.account_changes import AccountChanges

        return AccountChanges(self)

    @cached_property
    def posting_notes(self) -> "PostingNotes":
        from fastmta.store.posting_notes import PostingNotes

        return PostingNotes(self)

    def configure(self, config: "Config") -> None:
        """What the configuration says of how mail is kept and shown.

        Without it nothing is shared under Shared/, and what is expunged goes.
        """
        self.access.public_address = config.imap_public_account
        self.retained_bytes = config.mail_undelete_size if config.mail_undelete_time else 0

    def changed_quota_rules(self, config: "Config") -> Unit | None:
        """A unit that makes the quota rules of the configuration the store's; None where they are."""
        from fastmta.config.reading_keys import QUOTA_RULES
        from fastmta.config.values import parse_quota_rules

        return self.quota_rules.change(parse_quota_rules(getattr(config, name) for name in QUOTA_RULES))

    @classmethod
    def load(cls) -> None:
        """Imports all parts: a process that forks, or has a loop, does it first."""
        for name in PARTS:
            import_module(f"fastmta.store.{name}")

    # --- opening and closing ---

    @classmethod
    def open(
        cls,
        path: "str | os.PathLike[str]",
        *,
        create: bool = True,
        sync: bool = True,
        map_size_bytes: int = 0,
        slot: int = 0,
        trash_delay_ms: int = 60_000,
        clock: Clock | None = None,
        gives_way: bool = False,
        engine: str | None = None,
    ) -> "MailStore":
        """Opens the store in directory `path`; StorageFailure where it is unreadable, this process has it open or
        a compaction is under way. `gives_way`: it writes in small transactions, and pauses for other processes.
        `engine="memory"` keeps the records in this process (adr/0065).
        """
        guard = hold_open(path, create=create)
        try:
            raw = Store(
                str(path),
                create=create,
                sync=sync,
                map_size_bytes=map_size_bytes,
                slot=slot,
                trash_delay_ms=trash_delay_ms,
                gives_way=gives_way,
                engine=engine,
            )
        except BaseException:
            os.close(guard)
            raise
        return cls(raw, clock, guard)

    def attach(self, loop: "asyncio.AbstractEventLoop") -> None:
        """From now on commits are signalled on `loop`; a block of identifiers is made ready (one commit, blocking)."""
        if self._loop is not None:
            raise RuntimeError("the store is attached to a loop already")
        self.raw.reserve_ids()
        loop.add_reader(self.raw.event_fd, self.raw.dispatch)
        self._loop = loop
        self.warming.attach(loop)

    def detach(self) -> None:
        """Leaves the loop; what is committed after this is told by close."""
        if self._loop is not None:
            self._loop.remove_reader(self.raw.event_fd)
            self._loop = None
            self.warming.attach(None)

    def close(self) -> None:
        """Commits what is pending, tells its waiters, and closes; calling it twice does nothing."""
        self.detach()
        self.warming.close()
        self.raw.close()
        if self._guard is not None:
            os.close(self._guard)
            self._guard = None

    async def commit(self, unit: Unit) -> Unit:
        """Commits one unit; Refused with its code word, or StorageFailure."""
        loop = self._loop
        if loop is None:
            return self.commit_sync(unit)
        await self.raw.fate(unit, loop)
        return require_committed(unit)

    def commit_sync(self, unit: Unit) -> Unit:
        """The same, blocking the thread."""
        return require_committed(self.raw.commit_sync(unit))

    # --- units that their maker fills himself ---

    @property
    def engine(self) -> Engine:
        """What carries units out: for the compiled path of SMTP, which submits to it without a call into Python."""
        return self.raw

    def new_unit(self) -> Unit:
        """An empty unit of this store."""
        return self.raw.new_unit()

    def new_id(self) -> int:
        """A number that nothing else has: of a queue entry, a mailbox or an account."""
        return self.raw.new_id()

    def new_blob(self) -> Blob:
        """A body to be filled, which becomes part of the store with the unit that names it."""
        return self.raw.new_blob()

    def submit(self, unit: Unit, told: Callable[[Unit], object] | None, /) -> None:
        """Hands a unit over; `told(unit)` is called on the loop, later, whatever became of it. None: nobody asks."""
        self.raw.submit(unit, told)

    # --- the state of the store, and who is told of what happens in it ---

    @property
    def path(self) -> str:
        """The directory that it is in."""
        return self.raw.path

    @property
    def number(self) -> int:
        """Drawn when the store was made: another store has another one, a copy of this one the same."""
        return int.from_bytes(self.raw.get(TABLE_META, b"environment") or b"", "little")

    @property
    def failed(self) -> bool:
        """It takes no more writes, for ever: an EIO. What is read is as it was."""
        return self.raw.failed

    @property
    def damage(self) -> str:
        """The first damage that this process met; "" where there was none."""
        return self.raw.damage

    @property
    def heals(self) -> int:
        """How often this process has opened the environment anew, after a full disk or a damaged page."""
        return self.raw.heals

    @property
    def own_commits(self) -> int:
        """Transactions that this process has committed since it opened the store."""
        return self.raw.own_commits

    def last_txn_id(self) -> int:
        """The last transaction of any process."""
        return self.raw.last_txn_id()

    def stats(self) -> dict[str, float]:
        """Figures of this process and of the environment, by name; StorageFailure where it is closed."""
        return self.raw.stats()

    @property
    def observer(self) -> "Observer | None":
        """Who is told, on the loop, of what this process commits: mailboxes with their modseqs, hops with new work."""
        return self.raw.observer

    @observer.setter
    def observer(self, observer: "Observer | None") -> None:
        self.raw.observer = observer

    def on_damage(self, told: Callable[[StoreDamaged], None] | None) -> None:
        """Has `told` called with each damage before it is raised; it must not raise itself."""
        self.raw.on_damage = told

    def set_metrics(self, cells: "Cells", commit_seconds_index: int, commit_messages_index: int) -> None:
        """Has the committer count its transactions in `cells`, from these indexes on."""
        self.raw.set_metrics(cells, commit_seconds_index, commit_messages_index)

    def set_reserve(self, reserve_bytes: int) -> None:
        """From now on, what brings new mail and would leave less of the disk free fails as full; 0: no reserve."""
        self.raw.set_reserve(reserve_bytes)

    def reap_soon(self) -> None:
        """Has the committer empty the trash at once."""
        self.raw.reap_soon()

    @property
    def directory_version(self) -> int:
        """Changes with every change of accounts or aliases, by any process."""
        value = self.raw.get(TABLE_COUNTER, DIRECTORY_COUNTER)
        return int.from_bytes(value, "little", signed=True) if value is not None else 0


def require_committed(unit: Unit) -> Unit:
    """The unit, where it was committed; else the exception that says why not."""
    if unit.status == COMMITTED:
        return unit
    code = unit.failure or "io"
    if unit.status == REFUSED:
        raise Refused(code)
    if code == "damaged":
        raise StorageFailure("what has to be changed is damaged; fastmta store check names it")
    raise StorageFailure("the store is full" if code == "full" else "the store could not commit")
