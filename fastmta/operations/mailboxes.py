"""What accounts hold: the acts `mailbox.*`."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec

from fastmta.operations.acts import act, rows
from fastmta.operations.desk import Desk
from fastmta.operations.users import required
from fastmta.operations.values import account_address

if TYPE_CHECKING:
    from fastmta.store.mailbox_names import Mailbox as StoredMailbox

MAILBOXES_AT_ONCE = 100


class Mailbox(msgspec.Struct):
    """A mailbox as it is listed."""

    name: str
    messages: int
    unseen: int
    size: int
    special_use: str
    uid_validity: int
    uid_next: int


class Of(msgspec.Struct, forbid_unknown_fields=True):
    """All mailboxes of an account."""

    user: Annotated[str, msgspec.Meta(description="An account.")]


@rows("mailbox.list")
async def list_(desk: Desk, asked: Of) -> AsyncIterator[Mailbox]:
    """List the mailboxes of an account."""
    account = required(desk, account_address(asked.user, desk.config))
    async for each in of_account(desk, account.id):
        yield Mailbox(
            each.name, each.exists, each.unseen, each.size_bytes, each.special_use, each.uid_validity, each.uid_next
        )


@act("mailbox.purge", changes=True)
async def purge(desk: Desk, asked: Of) -> None:
    """Empty every mailbox of an account for good, with what undelete would bring back; the account stays."""
    from fastmta.index.files import FOLDER, discard
    from fastmta.store.retained import NEVER_S

    account = required(desk, account_address(asked.user, desk.config))
    total = desk.store.accounts.usage(account.id)[1]
    done = 0
    async for each in of_account(desk, account.id):
        if each.exists:
            await desk.store.mailboxes.expunge(each.id, only_deleted=False, for_good=True)
            done += each.exists
            desk.note(address=account.address, messages=done)
            desk.progress(done, total)
    done += await desk.store.retained.release(account.id, NEVER_S)
    desk.note(address=account.address, messages=done)
    discard(Path(desk.config.data_directory) / FOLDER, account.id)


async def of_account(desk: Desk, account_id: int) -> "AsyncIterator[StoredMailbox]":
    """An account's mailboxes in order of name, with pauses."""
    after = ""
    while page := desk.store.mailboxes.page(account_id, after, MAILBOXES_AT_ONCE):
        for each in page:
            yield each
        after = page[-1].name
        await desk.pause()
