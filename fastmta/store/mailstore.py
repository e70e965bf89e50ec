"""The whole store of one process, and how units are committed from a loop or from a command."""

import asyncio
import os
from pathlib import Path

from fastmta._store import TABLE_COUNTER, Store
from fastmta._unit import COMMITTED, REFUSED, Unit
from fastmta.model.errors import Refused, StorageFailure
from fastmta.runtime.clock import Clock, SystemClock
from fastmta.store.accounts import DIRECTORY_COUNTER, Accounts
from fastmta.store.aliases import Aliases
from fastmta.store.annotations import Annotations
from fastmta.store.dkim_keys import DkimKeys
from fastmta.store.guard import hold_open
from fastmta.store.mailboxes import Mailboxes
from fastmta.store.queue import Queue
from fastmta.store.suspensions import Suspensions


class MailStore:
    """Accounts, mailboxes, queue and aliases over one environment.

    Reads are synchronous and short. Mutators are coroutines: with a loop attached they wait for the committer's signal;
    without one (commands, tests) they commit at once, blocking.
    """

    def __init__(self, raw: Store, clock: Clock | None = None, guard: int | None = None) -> None:
        """`guard` is hold_open's descriptor, closed after the store."""
        self.raw = raw
        self._guard = guard
        self.clock = clock if clock is not None else SystemClock()
        self.accounts = Accounts(self)
        self.mailboxes = Mailboxes(self)
        self.queue = Queue(self)
        self.aliases = Aliases(self)
        self.dkim_keys = DkimKeys(self)
        self.annotations = Annotations(self)
        self.suspensions = Suspensions(self)
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        create: bool = True,
        sync: bool = True,
        map_size_bytes: int = 0,
        slot: int = 0,
        trash_delay_ms: int = 60_000,
        clock: Clock | None = None,
        gives_way: bool = False,
    ) -> "MailStore":
        """Opens the store in directory `path`; StorageFailure where it is unreadable, this process has it open or
        a compaction is under way. `gives_way`: it writes in small transactions, and pauses for other processes.
        """
        guard = hold_open(Path(path), create=create)
        try:
            raw = Store(
                str(path),
                create=create,
                sync=sync,
                map_size_bytes=map_size_bytes,
                slot=slot,
                trash_delay_ms=trash_delay_ms,
                gives_way=gives_way,
            )
        except BaseException:
            os.close(guard)
            raise
        return cls(raw, clock, guard)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on commits are signalled on `loop`; a block of identifiers is made ready (one commit, blocking)."""
        if self._loop is not None:
            raise RuntimeError("the store is attached to a loop already")
        self.raw.reserve_ids()
        loop.add_reader(self.raw.event_fd, self.raw.dispatch)
        self._loop = loop

    def detach(self) -> None:
        """Leaves the loop; what is committed after this is told by close."""
        if self._loop is not None:
            self._loop.remove_reader(self.raw.event_fd)
            self._loop = None

    def close(self) -> None:
        """Commits what is pending, tells its waiters, and closes; calling it twice does nothing."""
        self.detach()
        self.raw.close()
        if self._guard is not None:
            os.close(self._guard)
            self._guard = None

    async def commit(self, unit: Unit) -> Unit:
        """Commits one unit; Refused with its code word, or StorageFailure."""
        loop = self._loop
        if loop is None:
            return self.commit_sync(unit)
        done: asyncio.Future[None] = loop.create_future()

        def committed(_: Unit) -> None:
            if not done.done():
                done.set_result(None)

        self.raw.submit(unit, committed)
        await done
        return require_committed(unit)

    def commit_sync(self, unit: Unit) -> Unit:
        """The same, blocking the thread."""
        return require_committed(self.raw.commit_sync(unit))

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
