"""Groups of accounts that mailboxes can be shared with: the acts `user.group.*`, obeyed at once."""

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec

from fastmta.model.errors import ActFailed, Refused
from fastmta.operations.acts import act, rows
from fastmta.operations.desk import Desk
from fastmta.operations.users import required
from fastmta.operations.values import account_address

ACCOUNTS_AT_ONCE = 200
_WHY = {
    "invalid": "a group's name is letters, digits and . _ -, and begins with a letter or a digit",
    "limit": "the account is in too many groups",
}


class Member(msgspec.Struct):
    """That an account is in a group."""

    group: str
    address: str


class Of(msgspec.Struct, forbid_unknown_fields=True):
    group: Annotated[str | None, msgspec.Meta(extra={"argument": True, "metavar": "[GROUP]"})] = None


class Members(msgspec.Struct, forbid_unknown_fields=True):
    group: str
    addresses: Annotated[tuple[str, ...], msgspec.Meta(extra={"metavar": "ADDRESS..."})]


class Group(msgspec.Struct, forbid_unknown_fields=True):
    group: str


@rows("user.group.list")
async def list_(desk: Desk, asked: Of) -> AsyncIterator[Member]:
    """List who is in which group, or in this one."""
    groups = desk.store.groups
    names = {groups.id_of(name): name for name in groups.names()}
    if asked.group is not None:
        wanted = groups.id_of(asked.group)
        names = {wanted: asked.group.lower()} if wanted else {}
        if not wanted:
            raise ActFailed(f"there is no group {asked.group}", "no_user")
    after = b""
    while True:
        page, after = desk.store.accounts.page(after, ACCOUNTS_AT_ONCE)
        for account in page:
            for number in groups.of(account.id):
                if number in names:
                    yield Member(names[number], account.address)
        if not after:
            return
        await desk.pause()


@act("user.group.add", changes=True)
async def add(desk: Desk, asked: Members) -> None:
    """Put accounts into a group, which is made if need be. Mailboxes are shared with it as $GROUP."""
    accounts = [required(desk, account_address(each, desk.config)) for each in asked.addresses]
    for account in accounts:
        try:
            await desk.store.groups.add(asked.group.lower(), account.id)
        except Refused as refused:
            raise ActFailed(f"{asked.group}: {_WHY.get(refused.code, refused.code)}", "invalid") from refused
        desk.note(group=asked.group.lower(), addresses=",".join(asked.addresses)[:1000])


@act("user.group.remove", changes=True)
async def remove(desk: Desk, asked: Members) -> None:
    """Take accounts out of a group."""
    accounts = [required(desk, account_address(each, desk.config)) for each in asked.addresses]
    for account in accounts:
        if not await desk.store.groups.remove(asked.group, account.id):
            raise ActFailed(f"{account.address} is not in {asked.group}", "no_user")
        desk.note(group=asked.group.lower(), addresses=",".join(asked.addresses)[:1000])


@act("user.group.delete", changes=True)
async def delete(desk: Desk, asked: Group) -> None:
    """Delete a group; what was shared with it is nobody's any more, also where it is made again."""
    if not await desk.store.groups.delete(asked.group):
        raise ActFailed(f"there is no group {asked.group}", "no_user")
    desk.note(group=asked.group.lower())
