"""Quarantined mail: the acts `quarantine.*`. It lies in a mailbox of each user: `quarantine_mailbox`, else \\Junk.

An ID is the account's address and the number of the message there: bill@example.org:17.
"""

from array import array
from collections.abc import AsyncIterator
from email import policy
from email.parser import BytesHeaderParser
from typing import TYPE_CHECKING, Annotated

import msgspec

from fastmta.model.errors import ActFailed
from fastmta.operations.acts import act, rows
from fastmta.operations.desk import Desk
from fastmta.operations.values import account_address, stamp

if TYPE_CHECKING:
    from fastmta.config.schema import Config
    from fastmta.store import MailStore
    from fastmta.store.accounts import Account

HEADER_BYTES = 16_384  # of a message that is listed
MESSAGES_AT_ONCE = 100  # read before others get their turn
ACCOUNTS_AT_ONCE = 100
SHOWN_CHARACTERS = 200

_IDS = msgspec.Meta(extra={"metavar": "ID..."}, description="As `fastmta quarantine list` shows them.")


class Quarantined(msgspec.Struct):
    """One message in quarantine."""

    id: str
    user: str
    received: str
    sender: str
    subject: str
    size: int


class List(msgspec.Struct, forbid_unknown_fields=True):
    user: Annotated[
        str | None, msgspec.Meta(extra={"argument": True, "metavar": "[USER]"}, description="Of this account alone.")
    ] = None


class Chosen(msgspec.Struct, forbid_unknown_fields=True):
    ids: Annotated[tuple[str, ...], _IDS]


class Count(msgspec.Struct):
    messages: int


@rows("quarantine.list")
async def list_(desk: Desk, asked: List) -> AsyncIterator[Quarantined]:
    """List the quarantined messages of an account, or of all."""
    if asked.user:
        account = _account(desk, asked.user)
        async for row in _of(desk, account):
            yield row
        return
    after = b""
    while True:
        page, after = desk.store.accounts.page(after, ACCOUNTS_AT_ONCE)
        for account in page:
            async for row in _of(desk, account):
                yield row
        if not after:
            return
        await desk.pause()


@act("quarantine.release", changes=True)
async def release(desk: Desk, asked: Chosen) -> Count:
    """Deliver quarantined messages to their user's inbox, octet for octet as they came."""
    done = 0
    for account, mailbox_id, uid in [_found(desk, each) for each in asked.ids]:
        wanted = array("I", [uid])
        await desk.store.mailboxes.set_flags(mailbox_id, wanted, 0, 0)  # unread, and marked as nothing
        _, moved, _ = await desk.store.mailboxes.copy(mailbox_id, wanted, account.inbox_id, move=True)
        done += len(moved)
        desk.note(ids=_shown(asked.ids), messages=done)
        await desk.pause()
    return Count(done)


@act("quarantine.delete", changes=True)
async def delete(desk: Desk, asked: Chosen) -> Count:
    """Delete quarantined messages for good."""
    done = 0
    for _, mailbox_id, uid in [_found(desk, each) for each in asked.ids]:
        done += len(
            await desk.store.mailboxes.expunge(mailbox_id, array("I", [uid]), only_deleted=False, for_good=True)
        )
        desk.note(ids=_shown(asked.ids), messages=done)
        await desk.pause()
    return Count(done)


def _shown(ids: tuple[str, ...]) -> str:
    return ",".join(ids)[:1000]


async def _of(desk: Desk, account: "Account") -> AsyncIterator[Quarantined]:
    mailboxes = desk.store.mailboxes
    mailbox_id = mailbox_of(desk.config, desk.store, account)
    if not mailbox_id:
        return
    uids = mailboxes.uids(mailbox_id)
    for start in range(0, len(uids), MESSAGES_AT_ONCE):
        for row in mailboxes.rows(mailbox_id, uids[start : start + MESSAGES_AT_ONCE]):
            raw = mailboxes.read(mailbox_id, row.uid, 0, HEADER_BYTES) or b""
            sender, subject = described(raw)
            received = stamp(row.internal_date_s)
            yield Quarantined(f"{account.address}:{row.uid}", account.address, received, sender, subject, row.size)
        await desk.pause()


def mailbox_of(config: "Config", store: "MailStore", account: "Account") -> int:
    """Where an account's quarantined mail lies; 0: nowhere yet."""
    return store.mailboxes.quarantine_of(account.id, config.quarantine_mailbox)


def described(raw: bytes) -> tuple[str, str]:
    """From and Subject of a message's beginning, decoded as far as they can be."""
    header = BytesHeaderParser(policy=policy.compat32).parsebytes(raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    return _decoded(header.get("From")), _decoded(header.get("Subject"))


def _decoded(value: object) -> str:
    from email.errors import HeaderParseError
    from email.header import decode_header, make_header

    text = " ".join(str(value or "").split())[:1000]
    try:
        text = str(make_header(decode_header(text)))
    except (HeaderParseError, LookupError, ValueError):
        pass  # shown as it stands
    return "".join(c if c.isprintable() else "?" for c in text)[:SHOWN_CHARACTERS]


def _account(desk: Desk, address: str) -> "Account":
    name = account_address(address, desk.config)
    account = desk.store.accounts.lookup(name)
    if account is None:
        raise ActFailed(f"there is no account {name}", "no_user")
    return account


def _found(desk: Desk, text: str) -> tuple["Account", int, int]:
    """(account, mailbox, uid) of an ID."""
    address, colon, number = text.rpartition(":")
    if not colon or not number.isascii() or not number.isdigit() or not 0 < int(number[:11]) < 2**32:
        raise ActFailed(f"{text!r} is no ID such as bill@example.org:17; fastmta quarantine list shows them", "usage")
    account = _account(desk, address)
    mailbox_id = mailbox_of(desk.config, desk.store, account)
    uid = int(number)
    if not mailbox_id or not desk.store.mailboxes.rows(mailbox_id, array("I", [uid])):
        raise ActFailed(f"{text} is not in quarantine", "invalid")
    return account, mailbox_id, uid
