"""Accounts: the acts `user.*`. A running server sees a change within a second."""

from collections.abc import AsyncIterator
from functools import partial
from typing import TYPE_CHECKING, Annotated

import msgspec

from fastmta.model.errors import ActFailed, Refused
from fastmta.model.limits import PASSWORD_BYTES
from fastmta.model.mechanisms import SCRAM
from fastmta.model.quota import NO_QUOTA, NO_QUOTA_MESSAGES
from fastmta.operations.acts import act, rows
from fastmta.operations.desk import Desk
from fastmta.operations.values import Nothing, Secret, Subject, account_address, note_of, parsed_size, stamp

if TYPE_CHECKING:
    from fastmta._unit import Unit
    from fastmta.store.accounts import Account

SCRAM_NAMES = frozenset(SCRAM)
ACCOUNTS_AT_ONCE = 100  # read before others get their turn
ALIASES_AT_ONCE = 500  # the same, about half a millisecond
QUOTA_MESSAGES = 2**32 - 2  # what its record holds
RETARGETED = 200  # aliases changed in one unit

DEFAULT = "default"  # what quota_rule says
Count = Annotated[int, msgspec.Meta(ge=0, le=QUOTA_MESSAGES)]


class Listed(msgspec.Struct):
    """An account as it is listed."""

    address: str
    enabled: bool
    quota_bytes: int
    used_bytes: int
    messages: int
    created_at: str
    last_login: str
    last_login_address: str
    last_login_protocol: str
    quota_messages: int = 0


class Known(msgspec.Struct):
    """An account that was made or renamed, and what to know of that."""

    address: str
    note: str


class AddUser(msgspec.Struct, forbid_unknown_fields=True):
    address: str
    password: Secret
    quota: Annotated[str | None, msgspec.Meta(description='What the mailboxes may hold, such as "2G".')] = None
    messages: Annotated[Count | None, msgspec.Meta(description="How many messages.")] = None


class SetPassword(msgspec.Struct, forbid_unknown_fields=True):
    address: str
    password: Secret


class Rename(msgspec.Struct, forbid_unknown_fields=True):
    address: str
    new_address: str


class SetQuota(msgspec.Struct, forbid_unknown_fields=True):
    address: str
    size: str | None = None
    messages: Annotated[Count | None, msgspec.Meta(description="How many messages.")] = None


class Quota(msgspec.Struct):
    address: str
    used_bytes: int
    quota_bytes: int
    messages: int
    quota_messages: int


@act("user.add", changes=True)
async def add(desk: Desk, asked: AddUser) -> Known:
    """Add an account with the usual mailboxes; without quotas of its own it has those of quota_rule."""
    name = account_address(asked.address, desk.config)
    from fastmta.config.values import parse_mailbox_names

    quota_bytes, quota_messages = _own_bytes(asked.quota) or 0, _own_messages(asked.messages) or 0
    password_hash = await _hashed(desk, asked.password)
    try:
        account = await desk.store.accounts.add(
            name,
            password_hash,
            quota_bytes=quota_bytes,
            quota_messages=quota_messages,
            names=parse_mailbox_names(desk.config.autocreated_mailbox_names),
        )
    except Refused as refused:
        if refused.code != "exists":
            raise
        raise ActFailed(f"{name} exists already", "invalid") from refused
    await _keep_scram_keys(desk, account.id, password_hash, asked.password)
    desk.note(address=name, quota=quota_bytes or None, quota_messages=quota_messages or None)
    return Known(name, note_of(name, desk.config))


@rows("user.list", waits=False)
async def list_(desk: Desk, asked: Nothing) -> AsyncIterator[Listed]:
    """List the accounts, in order of address."""
    after = b""
    while True:
        page, after = desk.store.accounts.page(after, ACCOUNTS_AT_ONCE)
        for account in page:
            yield _listed(desk, account)
        if not after:
            return
        await desk.pause()


@act("user.show")
async def show(desk: Desk, asked: Subject) -> Listed:
    """Show one account."""
    return _listed(desk, required(desk, account_address(asked.address, desk.config)))


@act("user.passwd", changes=True)
async def passwd(desk: Desk, asked: SetPassword) -> None:
    """Change the password of an account."""
    name = account_address(asked.address, desk.config)
    password_hash = await _hashed(desk, asked.password)
    account = required(desk, name)
    await desk.store.accounts.set_password(name, password_hash)
    await _keep_scram_keys(desk, account.id, password_hash, asked.password)
    desk.note(address=name)


@act("user.rename", changes=True)
async def rename(desk: Desk, asked: Rename) -> Known:
    """Give an account another address; its mail, password and the aliases for it stay.

    Mail for the old address is refused from now on, unless an alias is made for it. Very many aliases are changed some
    at a time; until the last one is, the old address is an alias of the new one. Who is interrupted calls it again.
    """
    name = account_address(asked.address, desk.config)
    new_name = account_address(asked.new_address, desk.config)
    known = Known(new_name, note_of(new_name, desk.config))
    if name == new_name:
        return known
    aliases = desk.store.aliases
    if desk.store.accounts.lookup(name) is None and aliases.is_stand_in(name, new_name):
        required(desk, new_name)
        await _retarget(desk, name, new_name)
        desk.note(address=name, new_address=new_name)
        return known
    required(desk, name)
    if aliases.lookup(new_name) is not None:
        raise ActFailed(f"{new_name} is an alias already", "invalid")
    naming = await _naming(desk, name)
    at_once = len(naming) <= RETARGETED

    def together(unit: "Unit") -> None:
        if at_once:
            aliases.retarget(unit, naming, name, new_name)
        else:
            aliases.stand_in(unit, name, new_name)

    try:
        await desk.store.accounts.rename(name, new_name, together=together)
    except Refused as refused:
        if refused.code != "exists":
            raise
        raise ActFailed(f"{new_name} exists already", "invalid") from refused
    desk.note(address=name, new_address=new_name)
    if not at_once:
        await _retarget(desk, name, new_name)
    return known


async def _naming(desk: Desk, target: str) -> list[str]:
    """The aliases that have this target."""
    found: list[str] = []
    after = b""
    while True:
        page, after = desk.store.aliases.naming(target, after, ALIASES_AT_ONCE)
        found += page
        if not after:
            return found
        await desk.pause()


async def _retarget(desk: Desk, old: str, new: str) -> None:
    """Has all aliases of `old` name `new`, and ends the alias that stood in for it meanwhile."""
    aliases = desk.store.aliases
    while names := await _naming(desk, old):
        for start in range(0, len(names), RETARGETED):
            await desk.committed([partial(aliases.retarget_some, names[start : start + RETARGETED], old, new)])
            await desk.pause()
    if aliases.is_stand_in(old, new):
        await aliases.delete(old)


@act("user.disable", changes=True)
async def disable(desk: Desk, asked: Subject) -> None:
    """Lock an account: no login, its sessions end, its mail is refused. What it holds stays."""
    await _set_enabled(desk, asked.address, False)


@act("user.enable", changes=True)
async def enable(desk: Desk, asked: Subject) -> None:
    """Open an account that was disabled."""
    await _set_enabled(desk, asked.address, True)


async def _set_enabled(desk: Desk, address: str, enabled: bool) -> None:
    name = account_address(address, desk.config)
    required(desk, name)
    await desk.store.accounts.set_enabled(name, enabled)
    desk.note(address=name)


@act("user.delete", changes=True)
async def delete(desk: Desk, asked: Subject) -> None:
    """Delete an account with all its mail."""
    from pathlib import Path

    from fastmta.index.files import FOLDER, discard

    name = account_address(asked.address, desk.config)
    account = required(desk, name)
    await desk.store.accounts.delete(name)
    desk.note(address=name)
    discard(Path(desk.config.data_directory) / FOLDER, account.id)


@act("user.quota", changes=True)
async def quota(desk: Desk, asked: SetQuota) -> Quota:
    """Set what an account may hold ("2G", so many messages; 0 is no limit, "default" what quota_rule says)."""
    name = account_address(asked.address, desk.config)
    own_bytes, own_messages = _own_bytes(asked.size), _own_messages(asked.messages)
    if asked.size == DEFAULT and asked.messages is None:
        own_messages = 0
    required(desk, name)
    account = await desk.store.accounts.set_quota(name, own_bytes, own_messages)
    desk.note(address=name, quota=asked.size, quota_messages=asked.messages)
    used, messages, quota_bytes, quota_messages = desk.store.mailboxes.usage(account.id)
    return Quota(name, used, quota_bytes, messages, quota_messages)


def _own_bytes(text: str | None) -> int | None:
    """An account's own quota as it is kept (model/quota.py); None where nothing is said of it."""
    if text is None:
        return None
    return 0 if text == DEFAULT else min(parsed_size(text), NO_QUOTA // 2) or NO_QUOTA


def _own_messages(number: int | None) -> int | None:
    return None if number is None else number or NO_QUOTA_MESSAGES


def required(desk: Desk, name: str) -> "Account":
    """The account of a canonical address; ActFailed where there is none."""
    account = desk.store.accounts.lookup(name)
    if account is None:
        raise ActFailed(f"no such user: {name}", "no_user")
    return account


def _listed(desk: Desk, account: "Account") -> Listed:
    used, messages = desk.store.accounts.usage(account.id)
    quota_bytes, quota_messages = desk.store.accounts.quota(account.id)
    last = desk.store.last_logins.get(account.id)
    return Listed(
        account.address,
        account.enabled,
        quota_bytes,
        used,
        messages,
        stamp(account.created_at_s),
        stamp(last.at_s) if last is not None else "",
        last.address if last is not None else "",
        last.protocol if last is not None else "",
        quota_messages,
    )


async def _keep_scram_keys(desk: Desk, account_id: int, password_hash: str, password: str) -> None:
    """Where SCRAM is offered a new password is good for it at once."""
    if SCRAM_NAMES.isdisjoint(desk.config.auth.mechanisms):
        return
    from fastmta.auth.scram import derive_all

    keys = await desk.offload(derive_all, password)
    await desk.store.credentials.keep_scram_keys(account_id, password_hash, keys)


async def _hashed(desk: Desk, password: str) -> str:
    """The hash of a password that may be one."""
    if not password or "\0" in password:
        raise ActFailed("the password is empty" if not password else "a password holds no NUL", "invalid")
    try:
        length = len(password.encode())
    except UnicodeEncodeError:
        raise ActFailed("the password is not UTF-8", "invalid") from None
    if length > PASSWORD_BYTES:
        raise ActFailed(f"the password is longer than {PASSWORD_BYTES} bytes", "invalid")
    from fastmta.auth.passwords import hash_password

    return await desk.offload(hash_password, password)
