"""Expunged mail that comes back: the acts `mailbox.expunged` and `undelete`; store/retained.py has what there is."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

import msgspec

from fastmta.model.errors import ActFailed, Refused, StorageFailure
from fastmta.operations.acts import act, rows
from fastmta.operations.desk import Desk
from fastmta.operations.users import required
from fastmta.operations.values import account_address, stamp

if TYPE_CHECKING:
    from fastmta.store.accounts import Account
    from fastmta.store.retained import Retained

AT_ONCE = 50  # messages looked at, and brought back, between two pauses
TRIES = 3  # for one message, where its mailbox goes or comes meanwhile
HEADER_BYTES = 16_384  # of a message that is listed


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """What is as all of this says."""

    user: Annotated[str, msgspec.Meta(description="An account.")]
    mailbox: Annotated[str | None, msgspec.Meta(description="What was in this mailbox, by its name then.")] = None
    since: Annotated[
        str | None, msgspec.Meta(description='Expunged at most so long ago ("2h"), or after an instant of UTC.')
    ] = None


class Expunged(msgspec.Struct):
    """One message that can be had back."""

    expunged: str
    mailbox: str
    sender: str
    subject: str
    size: int


class Count(msgspec.Struct):
    messages: int


@rows("mailbox.expunged")
async def expunged(desk: Desk, asked: Wanted) -> AsyncIterator[Expunged]:
    """List what an account has expunged and can have back."""
    from fastmta.operations.quarantine import described

    async for each in _found(desk, required(desk, account_address(asked.user, desk.config)), asked):
        sender, subject = described(await desk.store.retained.read(each, 0, HEADER_BYTES))
        yield Expunged(stamp(each.expunged_s), each.mailbox, sender, subject, each.size)


@act("mailbox.undelete", changes=True)
async def undelete(desk: Desk, asked: Wanted) -> Count:
    """Bring an account's expunged mail back into the mailboxes that it was in, for as long as mail_undelete_time says.

    A mailbox that has been deleted is made again. The messages have new numbers there, and their old flags.
    """
    account = required(desk, account_address(asked.user, desk.config))
    total, done = desk.store.retained.totals(account.id)[0], 0
    async for each in _found(desk, account, asked):
        done += await _restore(desk, account, each, done)
        desk.note(address=account.address, messages=done)
        desk.progress(done, total)
    return Count(done)


async def _found(desk: Desk, account: "Account", asked: Wanted) -> AsyncIterator["Retained"]:
    """What is wanted, the oldest first, with pauses; not what goes while this looks."""
    from fastmta.imap.mailbox_name import canonical
    from fastmta.operations.tracing import instant

    wanted = canonical(asked.mailbox) if asked.mailbox is not None else None
    since_s = int(instant("--since", asked.since)) if asked.since is not None else 0
    last_s, after = int(desk.store.clock.now()) + 1, b""
    while page := desk.store.retained.page(account.id, after, since_s, AT_ONCE):
        after = page[-1].key
        for each in page:
            if each.expunged_s <= last_s and (wanted is None or each.mailbox == wanted):
                yield each
        await desk.pause()


async def _restore(desk: Desk, account: "Account", message: "Retained", done: int) -> bool:
    """Whether it is there now: somebody else may have had it back, or it had to go, since it was listed."""
    retained, mailbox_id = desk.store.retained, 0
    for _ in range(TRIES):
        try:
            mailbox_id = await _home(desk, account, message)
            structure = await retained.structure(message)
            await desk.store.commit(retained.restoring(account.id, message, mailbox_id, structure))
            return True
        except StorageFailure:
            if retained.holds(account.id, message):
                raise
            return False
        except Refused as refused:
            if not retained.holds(account.id, message):
                return False
            why = "the account's quota is used up" if refused.code == "quota" else refused.code
            if refused.code == "quota" or desk.store.mailboxes.by_id(mailbox_id) is not None:
                break
            mailbox_id = 0  # somebody deleted its mailbox, or made it, meanwhile
    raise ActFailed(f"{why}; {done} messages were brought back before", "cannot_create")


async def _home(desk: Desk, account: "Account", message: "Retained") -> int:
    """The mailbox that it was in, wherever that is now; else the one of that name, made where it is missing."""
    mailboxes = desk.store.mailboxes
    own = mailboxes.by_id(message.mailbox_id)
    if own is not None and own.account_id == account.id:
        return own.id
    found = mailboxes.get(account.id, message.mailbox)
    if found is None:
        found = await mailboxes.create(account.id, message.mailbox)
        await mailboxes.subscribe(account.id, message.mailbox)
    return found.id
