"""Full-text indexes of accounts: the acts `index.*`."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import msgspec

from fastmta.model.errors import ActFailed
from fastmta.operations.acts import act, rows
from fastmta.operations.desk import Desk
from fastmta.operations.mailboxes import of_account
from fastmta.operations.users import required
from fastmta.operations.values import account_address

if TYPE_CHECKING:
    from fastmta.index.marker import Marker
    from fastmta.store.accounts import Account

T = TypeVar("T")
ACCOUNTS_AT_ONCE: Final = 100
UIDS_AT_ONCE: Final = 4000
WAITS_S: Final = 30.0  # for a worker that is indexing the account to notice that its work is not wanted
DISK_SHARE: Final = 100  # a hundredth of the disk is left to mail


class Indexed(msgspec.Struct):
    """How much of an account's mail is in its index."""

    address: str
    messages: int
    indexed: int
    percent: int
    size_bytes: int


class Rebuilt(msgspec.Struct):
    accounts: int
    messages: int


class Whose(msgspec.Struct, forbid_unknown_fields=True):
    user: Annotated[
        str, msgspec.Meta(extra={"argument": True, "metavar": "[USER]"}, description="An account; all without it.")
    ] = ""


@rows("index.status", at_once=10)
async def status(desk: Desk, asked: Whose) -> AsyncIterator[Indexed]:
    """Show how much of the mail is in the full-text indexes. What is not, a search looks through."""
    from fastmta.index.files import IndexDamaged, IndexFile

    folder, number = _folder(desk), desk.store.number
    async for account in _accounts(desk, asked):
        file = IndexFile(folder, account.id, number)
        messages = indexed = 0
        try:
            await _Place(desk, folder, None).offload(file.refresh)
            async for box in of_account(desk, account.id):
                messages += box.exists
                indexed += box.exists - await _behind(desk, box.id, file.until(box.id), box.exists)
            size = file.size_bytes
        except (IndexDamaged, OSError):  # a search looks through all of it, and the log says why
            indexed, messages = 0, desk.store.accounts.usage(account.id)[1]
            size = 0
        finally:
            file.close()
        yield Indexed(account.address, messages, indexed, 100 * indexed // messages if messages else 100, size)


@act("index.rebuild", changes=True)
async def rebuild(desk: Desk, asked: Whose) -> Rebuilt:
    """Make the full-text index of an account anew, or of all accounts."""
    from fastmta.index.files import LOCKS, discard
    from fastmta.index.marker import Marker
    from fastmta.runtime.account_locks import AccountLocks

    if not desk.config.fts:
        raise ActFailed('there are no full-text indexes: fts is "" in the configuration', "config")
    folder = _folder(desk)
    marker = Marker(folder, desk.store.number)
    marker.begin(desk.store.last_txn_id)
    locks = AccountLocks(folder / LOCKS)
    progress = _Progress(desk)
    found = Rebuilt(0, 0)
    try:
        async for account in _accounts(desk, asked):
            progress.expect(desk.store.accounts.usage(account.id)[1])
            discard(folder, account.id)
            await _locked(desk, locks.acquire, account)
            try:
                found.messages += await _build(desk, account, folder, marker, progress)
            finally:
                locks.release(account.id)
            found.accounts += 1
            desk.note(address=account.address if asked.user else None, **msgspec.structs.asdict(found))
        if not asked.user:
            _drop_orphans(desk, folder)
    finally:
        locks.close()
        marker.close()
    return found


def _folder(desk: Desk) -> Path:
    from fastmta.index.files import FOLDER

    return Path(desk.config.data_directory) / FOLDER


async def _accounts(desk: Desk, asked: Whose) -> AsyncIterator["Account"]:
    if asked.user:
        yield required(desk, account_address(asked.user, desk.config))
        return
    after = b""
    while True:
        page, after = desk.store.accounts.page(after, ACCOUNTS_AT_ONCE)
        for account in page:
            yield account
            await desk.pause()
        if not after:
            return


async def _behind(desk: Desk, mailbox_id: int, until: int, exists: int) -> int:
    """How many messages of a mailbox come after this uid."""
    if not until:
        return exists
    behind = 0
    while uids := desk.store.mailboxes.uids(mailbox_id, until, UIDS_AT_ONCE):
        behind += len(uids)
        until = uids[-1]
        await desk.pause()
    return min(behind, exists)


async def _locked(desk: Desk, acquire: Callable[[int], bool], account: "Account") -> None:
    import asyncio

    ends_at = asyncio.get_running_loop().time() + WAITS_S
    while not acquire(account.id):
        if asyncio.get_running_loop().time() > ends_at:
            raise ActFailed(f"the index of {account.address} is being made by the server; try again later", "busy")
        await asyncio.sleep(0.05)
        await desk.pause()


async def _build(desk: Desk, account: "Account", folder: Path, marker: "Marker", progress: "_Progress") -> int:
    from fastmta.index.building import NoRoom, build
    from fastmta.index.files import IndexFile

    file: IndexFile = IndexFile(folder, account.id, desk.store.number)
    done = 0
    try:
        async for box in of_account(desk, account.id):
            place = _Place(desk, folder, marker)
            done += await build(box.id, file, desk.store.mailboxes, place, progress.add)
    except NoRoom:
        raise ActFailed("the disk is nearly full; what is not indexed is looked through", "storage") from None
    finally:
        file.close()
    return done


def _drop_orphans(desk: Desk, folder: Path) -> None:
    """Removes indexes of accounts that are gone."""
    from fastmta.index.files import account_of, discard

    for name in os.listdir(folder):
        account_id = account_of(name)
        if account_id is not None and desk.store.accounts.by_id(account_id) is None:
            discard(folder, account_id)


class _Progress:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._done = 0
        self._total = 0

    def expect(self, messages: int) -> None:
        self._total = max(self._total, self._done) + messages

    def add(self, messages: int) -> None:
        self._done += messages
        self._desk.progress(self._done, max(self._total, self._done))


class _Place:
    """Where an act builds: index.building.Place."""

    def __init__(self, desk: Desk, folder: Path, marker: "Marker | None") -> None:
        self._desk = desk
        self._folder = folder
        self._marker = marker
        self.largest_bytes = desk.config.fts_message_max_size

    async def offload(self, work: Callable[..., T], *arguments: Any) -> T:
        import asyncio

        from fastmta.runtime.tasks import seen_through

        return await seen_through(asyncio.ensure_future(self._desk.offload(work, *arguments)))

    def pause_now(self) -> Awaitable[None] | None:
        return self._desk.pause()

    def seen(self) -> None:
        assert self._marker is not None
        self._marker.note(self._desk.store.last_txn_id())

    def has_room(self) -> bool:
        disk = os.statvfs(self._folder)
        return disk.f_bavail > disk.f_blocks // DISK_SHARE
