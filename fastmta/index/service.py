"""The text index in a worker: answers searches, and brings mailboxes up to date, one after the other, behind all else.

A mailbox is indexed when a search had to look through many messages of it and, with `fts_autoindex`, when many have
come. One process works on an account at a time (runtime/account_locks.py). Searches ask from a thread, so a cold file
holds nobody up; building reads on the loop, in turns like a session's, and does the rest on a thread (building.py).

Nothing here ever fails a search: where the index cannot answer, the messages are looked through.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from fastmta.index.building import NoRoom, build
from fastmta.index.files import FOLDER, LOCKS, IndexDamaged, IndexFile, discard
from fastmta.index.marker import Marker
from fastmta.model.errors import StorageFailure
from fastmta.model.found import Found, Word
from fastmta.model.limits import INDEX_BEHIND, INDEX_OPEN, INDEX_WAITING
from fastmta.runtime.account_locks import AccountLocks
from fastmta.runtime.metrics import METRICS
from fastmta.runtime.tasks import seen_through

if TYPE_CHECKING:
    from fastmta.imap.seams import Mailboxes
    from fastmta.runtime.log import Log
    from fastmta.runtime.metrics import Cells
    from fastmta.runtime.tasks import Tasks
    from fastmta.runtime.turns import Share, Turns
    from fastmta.store.mailbox_names import Mailbox

T = TypeVar("T")
FINDERS: Final = 2  # threads that searches ask on: they wait for the disk, not for each other


class Config(Protocol):
    """What of the configuration the index goes by."""

    @property
    def data_directory(self) -> str: ...
    @property
    def fts(self) -> str: ...
    @property
    def fts_autoindex(self) -> bool: ...
    @property
    def fts_autoindex_exclude(self) -> tuple[str, ...]: ...
    @property
    def fts_autoindex_max_recent_msgs(self) -> int: ...
    @property
    def fts_message_max_size(self) -> int: ...


class Store(Protocol):
    @property
    def mailboxes(self) -> "Mailboxes": ...
    @property
    def number(self) -> int: ...
    def last_txn_id(self) -> int: ...


class Services(Protocol):
    """What of a worker's parts the index takes."""

    @property
    def config(self) -> Config: ...
    @property
    def store(self) -> Store: ...
    @property
    def log(self) -> "Log": ...
    @property
    def cells(self) -> "Cells": ...
    @property
    def tasks(self) -> "Tasks": ...
    @property
    def turns(self) -> "Turns": ...
    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def storage_ok(self) -> Callable[[], bool]: ...


class _Open:
    """A file that searches read; one at a time."""

    def __init__(self, file: IndexFile) -> None:
        self.file = file
        self.busy = asyncio.Lock()


class Indexing:
    """All text indexes, as one worker has them. OSError where their folder cannot be used."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._folder = Path(services.config.data_directory) / FOLDER
        self._number = services.store.number
        self._marker = Marker(self._folder, self._number)
        self._locks = AccountLocks(self._folder / LOCKS)
        self._finders = ThreadPoolExecutor(FINDERS, thread_name_prefix="index-find")
        self._maker = ThreadPoolExecutor(1, thread_name_prefix="index-make")
        self._open: OrderedDict[int, _Open] = OrderedDict()
        self._waiting: dict[int, None] = {}  # mailboxes, in the order of their asking
        self._touched: set[int] = set()  # that got mail since the last look
        self._until: OrderedDict[int, int] = OrderedDict()  # of mailboxes that were looked at
        self._working = False
        reason = self._marker.begin(services.store.last_txn_id)
        if reason:
            services.log.info("index.discarded", reason=reason)

    def close(self) -> None:
        """What is under way is left as it is."""
        for pool in (self._finders, self._maker):
            pool.shutdown(wait=True, cancel_futures=True)
        for each in self._open.values():
            each.file.close()
        self._open.clear()
        self._locks.close()
        self._marker.close()

    # --- searches ---

    async def find(self, mailbox_id: int, words: Sequence[Word], /) -> Found | None:
        box = self._services.store.mailboxes.by_id(mailbox_id)
        if box is None:
            return None
        opened = self._opened(box.account_id)
        if not opened.file.exists():
            return None
        async with opened.busy:
            try:
                found = await seen_through(
                    self._services.loop.run_in_executor(self._finders, opened.file.find, mailbox_id, words)
                )
            except IndexDamaged as error:
                self._throw_away(opened.file, str(error))
                return None
            except OSError as error:
                self._services.log.warning("index.unreadable", file=str(opened.file.path), error=error.strerror)
                return None
        return found

    def wanted(self, mailbox_id: int, /) -> None:
        if len(self._waiting) < INDEX_WAITING:
            self._waiting[mailbox_id] = None
        if not self._working:
            self._working = True
            self._services.tasks.spawn("index", self._work())

    def _opened(self, account_id: int) -> _Open:
        opened = self._open.get(account_id)
        if opened is None:
            opened = self._open[account_id] = _Open(IndexFile(self._folder, account_id, self._number))
            for each in list(self._open):
                if len(self._open) <= INDEX_OPEN:
                    break
                if each != account_id and not self._open[each].busy.locked():
                    self._open.pop(each).file.close()
        self._open.move_to_end(account_id)
        return opened

    def _throw_away(self, file: IndexFile, reason: str) -> None:
        self._services.cells[METRICS.index_damaged_total] += 1
        self._services.log.warning("index.damaged", reason=reason, effect="thrown away, and made anew")
        file.close()
        try:
            discard(self._folder, file.account_id)
        except OSError as error:
            self._services.log.error("index.stuck", file=str(file.path), error=error.strerror, remedy="remove it")

    # --- what has come ---

    def came(self, mailboxes: list[tuple[int, int]]) -> None:
        """Mailboxes have changed: they are looked at within a second (fts_autoindex)."""
        if len(self._touched) < INDEX_WAITING:
            self._touched.update([mailbox_id for mailbox_id, _ in mailboxes])

    def tick(self) -> None:
        """Once a second."""
        if self._touched and not self._working:
            touched, self._touched = self._touched, set()
            self._working = True
            self._services.tasks.spawn("index", self._look(touched))

    async def _look(self, touched: set[int]) -> None:
        try:
            for mailbox_id in touched:
                box = self._services.store.mailboxes.by_id(mailbox_id)
                if box is not None and self._is_behind(box) and not self._is_excluded(box):
                    self._waiting[mailbox_id] = None
                await asyncio.sleep(0)
        except StorageFailure:
            pass  # whoever reads the mailbox is told
        await self._work()

    def _is_behind(self, box: "Mailbox") -> bool:
        return box.exists > INDEX_BEHIND and box.uid_next - 1 - self._until.get(box.id, 0) > INDEX_BEHIND

    def _is_excluded(self, box: "Mailbox") -> bool:
        config = self._services.config
        recent = config.fts_autoindex_max_recent_msgs
        if recent and box.uid_next - box.recent_uid > recent:
            return True
        names = [box.name, *box.special_use.split()]
        return any(
            name.lower() == pattern.lower() if pattern.startswith("\\") else fnmatchcase(name, pattern)
            for pattern in config.fts_autoindex_exclude
            for name in names
        )

    # --- the work ---

    async def _work(self) -> None:
        share = self._services.turns.share()
        share.begin()
        try:
            while self._waiting:
                mailbox_id = next(iter(self._waiting))
                del self._waiting[mailbox_id]
                await self._bring_up(mailbox_id, share)
        finally:
            self._working = False
            share.leave()

    async def _bring_up(self, mailbox_id: int, share: "Share") -> None:
        services = self._services
        try:
            box = services.store.mailboxes.by_id(mailbox_id)
        except StorageFailure:
            return  # whoever reads it is told
        if box is None or not self._locks.acquire(box.account_id):
            return  # another worker is at it; what it does not do the next search finds
        file = IndexFile(self._folder, box.account_id, self._number)
        try:
            done = await build(mailbox_id, file, services.store.mailboxes, _Bench(self, share), lambda count: None)
            services.cells[METRICS.index_messages_total] += done
            self._remember(mailbox_id, file.until(mailbox_id))
            services.log.debug("index.built", mailbox=mailbox_id, messages=done, bytes=file.size_bytes)
        except IndexDamaged as error:
            self._throw_away(file, str(error))
        except NoRoom:
            services.log.warning("index.no_room", effect="searches look through what is not indexed")
        except StorageFailure as error:
            services.log.warning("index.not_built", mailbox=mailbox_id, cause=str(error))
        except OSError as error:
            services.log.warning("index.not_written", file=str(file.path), error=error.strerror)
        finally:
            file.close()
            self._locks.release(box.account_id)

    def _remember(self, mailbox_id: int, until: int) -> None:
        self._until[mailbox_id] = until
        if len(self._until) > INDEX_WAITING:
            self._until.popitem(last=False)

    def noted(self) -> None:
        self._marker.note(self._services.store.last_txn_id())

    async def make(self, work: Callable[..., T], *arguments: Any) -> T:
        return await seen_through(self._services.loop.run_in_executor(self._maker, work, *arguments))

    @property
    def largest_bytes(self) -> int:
        return self._services.config.fts_message_max_size

    def has_room(self) -> bool:
        return self._services.storage_ok()


class _Bench:
    """Where a worker builds: building.Place."""

    def __init__(self, indexing: Indexing, share: "Share") -> None:
        self.offload = indexing.make
        self.seen = indexing.noted
        self.has_room = indexing.has_room
        self.largest_bytes = indexing.largest_bytes
        self._share = share

    def pause_now(self) -> Awaitable[None] | None:
        return self._share.pause() if self._share.over() else None
