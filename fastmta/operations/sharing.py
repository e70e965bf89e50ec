"""Who else may read and change an account's mailboxes (RFC 4314): the acts `mailbox.share.*`, obeyed at once."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated

import msgspec

from fastmta.model import rights
from fastmta.model.errors import ActFailed, Refused
from fastmta.operations.acts import act, rows
from fastmta.operations.desk import Desk
from fastmta.operations.mailboxes import of_account
from fastmta.operations.users import required
from fastmta.operations.values import account_address

if TYPE_CHECKING:
    from fastmta.store.mailbox_names import Mailbox

EVERYBODY = ("anyone", "authenticated")
_HOW = {"+": 1, "-": 2}  # store/acl.py: ADD, TAKE; else SET
_WHY = {
    "unknown": "there is no such user or group",
    "owner": "the owner has all rights",
    "limit": "too many entries",
}


class Entry(msgspec.Struct):
    """What somebody may do in a mailbox: letters of RFC 4314."""

    mailbox: str
    identifier: str
    rights: str


class Of(msgspec.Struct, forbid_unknown_fields=True):
    user: Annotated[str, msgspec.Meta(description="An account.")]
    mailbox: Annotated[str | None, msgspec.Meta(description="Of this mailbox alone.")] = None


class Add(msgspec.Struct, forbid_unknown_fields=True):
    user: str
    mailbox: str
    identifier: str
    rights: str


class Remove(msgspec.Struct, forbid_unknown_fields=True):
    user: str
    mailbox: str
    identifier: str


@rows("mailbox.share.list")
async def list_(desk: Desk, asked: Of) -> AsyncIterator[Entry]:
    """List who else may read or change the mailboxes of an account."""
    account = required(desk, account_address(asked.user, desk.config))
    if asked.mailbox is not None:
        _box(desk, account.id, asked.mailbox)
    async for box in of_account(desk, account.id):
        if asked.mailbox is None or box.name == asked.mailbox:
            for each in desk.store.access_lists.entries(account.id, box.id):
                yield Entry(box.name, each.identifier, rights.letters(each.rights))


@act("mailbox.share.add", changes=True)
async def add(desk: Desk, asked: Add) -> None:
    """Give a user, or everybody, rights on a mailbox, in place of those given before.

    IDENTIFIER is a user, "group=NAME" (fastmta user group), "anyone" or "authenticated"; with "-" before it the rights
    are taken away whoever gives them.
    RIGHTS are letters of RFC 4314, such as "lrs" (see it, read it, mark as read), or Dovecot's words, such as
    "lookup,read,write-seen", or "all". With "+" or "-" before them they are added or taken.

    \b
    l lookup        r read     s write-seen  w write  i insert          p post
    k create below  x delete   t write-deleted        e expunge         a admin
    """
    account = required(desk, account_address(asked.user, desk.config))
    box = _box(desk, account.id, asked.mailbox)
    how = _HOW.get(asked.rights[:1], 0)
    given = rights.parse_words(asked.rights[1:] if how else asked.rights)
    if given is None:
        raise ActFailed(f"{asked.rights}: expected letters of {rights.LETTERS}, or words such as lookup,read", "usage")
    identifier = _identifier(desk, asked.identifier)
    try:
        await desk.store.access_lists.change(account.id, box.id, identifier, given, how)
    except Refused as refused:
        raise ActFailed(f"{identifier}: {_WHY.get(refused.code, refused.code)}", "invalid") from refused
    desk.note(address=account.address, mailbox=box.name, identifier=identifier, rights=asked.rights)


@act("mailbox.share.remove", changes=True)
async def remove(desk: Desk, asked: Remove) -> None:
    """Take away what a user, or everybody, was given on a mailbox."""
    account = required(desk, account_address(asked.user, desk.config))
    box = _box(desk, account.id, asked.mailbox)
    identifier = _identifier(desk, asked.identifier)
    try:
        found = await desk.store.access_lists.remove(account.id, box.id, identifier)
    except Refused as refused:
        raise ActFailed(f"{identifier}: {_WHY.get(refused.code, refused.code)}", "invalid") from refused
    if not found:
        raise ActFailed(f"{box.name} is not shared with {identifier}", "no_user")
    desk.note(address=account.address, mailbox=box.name, identifier=identifier)


def _box(desk: Desk, account_id: int, name: str) -> "Mailbox":
    box = desk.store.mailboxes.get(account_id, name)
    if box is None:
        raise ActFailed(f"there is no mailbox {name}", "no_user")
    return box


def _identifier(desk: Desk, text: str) -> str:
    name = text.removeprefix("-")
    if name.lower() in EVERYBODY or name.startswith(("$", "group=")):
        return text.lower()
    return text[: len(text) - len(name)] + account_address(name.removeprefix("user="), desk.config)
