"""Passwords for one program each: the acts `app-password.*`. A running server knows of a change at once."""

from typing import Annotated

import msgspec

from fastmta.model.errors import ActFailed, Refused
from fastmta.operations.acts import act
from fastmta.operations.desk import Desk
from fastmta.operations.users import required
from fastmta.operations.values import Subject, account_address, stamp

PROTOCOLS = ("imap", "pop3", "smtp")
NAME_CHARACTERS = 80


class Listed(msgspec.Struct):
    """An app password as it is listed; itself it is not kept."""

    name: str
    protocols: tuple[str, ...]
    created_at: str


class Add(msgspec.Struct, forbid_unknown_fields=True):
    address: str
    name: str
    protocol: Annotated[
        tuple[str, ...], msgspec.Meta(description="What it opens: imap, pop3 or smtp; may be repeated. [default: all]")
    ] = ()


class Made(msgspec.Struct):
    """The new password: it is shown this once."""

    password: str


class Delete(msgspec.Struct, forbid_unknown_fields=True):
    address: str
    name: str


@act("app-password.add", changes=True)
async def add(desk: Desk, asked: Add) -> Made:
    """Make a password for one program, and show it: it opens the account until it is deleted."""
    account = required(desk, account_address(asked.address, desk.config))
    name = asked.name.strip()
    if not 0 < len(name) <= NAME_CHARACTERS or not name.isprintable():
        raise ActFailed(f"a name has 1 to {NAME_CHARACTERS} printable characters", "invalid")
    if wrong := [each for each in asked.protocol if each not in PROTOCOLS]:
        raise ActFailed(f"{wrong[0]}: expected one of {', '.join(PROTOCOLS)}", "usage")
    try:
        password = await desk.store.credentials.add_app_password(account.id, name, tuple(sorted(set(asked.protocol))))
    except Refused as refused:
        if refused.code == "exists":
            raise ActFailed(f"{account.address} has an app password of that name", "invalid") from refused
        if refused.code == "full":
            raise ActFailed(f"{account.address} has too many app passwords: delete one", "invalid") from refused
        raise
    desk.note(address=account.address, name=name)
    return Made(password)


@act("app-password.list")
async def list_(desk: Desk, asked: Subject) -> list[Listed]:
    """List an account's app passwords."""
    account = required(desk, account_address(asked.address, desk.config))
    return [
        Listed(each.name, each.protocols, stamp(each.created_at_s))
        for each in desk.store.credentials.app_passwords(account.id)
    ]


@act("app-password.delete", changes=True)
async def delete(desk: Desk, asked: Delete) -> None:
    """Delete an app password: whoever has it is not let in any more, and sessions that it has opened end."""
    account = required(desk, account_address(asked.address, desk.config))
    try:
        await desk.store.credentials.delete_app_password(account.id, asked.name)
    except Refused as refused:
        raise ActFailed(f"{account.address} has no app password {asked.name!r}", "no_user") from refused
    desk.note(address=account.address, name=asked.name)
