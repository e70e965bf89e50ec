"""Accounts: who has mailboxes, under which address, with which password hash and quota."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

from fastmta._store import (
    TABLE_ACCOUNT,
    TABLE_ACCOUNT_NAME,
    TABLE_ACL,
    TABLE_ACL_INDEX,
    TABLE_ANNOTATION,
    TABLE_CREDENTIAL,
    TABLE_MAILBOX_NAME,
    TABLE_RETAINED,
    TABLE_SUBSCRIPTION,
    TABLE_USAGE,
    Store,
    mailbox_list,
    quota_fields,
    usage_fields,
)
from fastmta._unit import Unit
from fastmta.model.errors import Refused
from fastmta.model.first_mailboxes import FIRST_MAILBOXES
from fastmta.store.acl_rows import forget_list
from fastmta.store.committing import Committer, commit_guarded
from fastmta.store.record_keys import DIRECTORY_COUNTER, id_key

_KEPT_WITH_IT: Final = (TABLE_SUBSCRIPTION, TABLE_ANNOTATION, TABLE_CREDENTIAL, TABLE_ACL, TABLE_ACL_INDEX)  # by its id
_USUAL_NAMES: Final[Mapping[str, str]] = MappingProxyType({})
PAGE: Final = 1000
GONE: Final = 200  # mailboxes, or subscriptions, that go in one unit: two milliseconds
OLDEST: Final = 10_000  # accounts among which one that is enabled is looked for


class Account(msgspec.Struct, gc=False):
    """A user with mailboxes. `address` is canonical; `quota_bytes` and `quota_messages`: model/quota.py."""

    id: int
    address: str
    password_hash: str
    quota_bytes: int
    created_at_s: int
    enabled: bool = True
    inbox_id: int = 0
    quota_messages: int = 0


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Account)


def canonical_address(address: str) -> str:
    """The form under which an address is kept: lower case, without spaces around it."""
    return address.strip().lower()


class Accounts:
    """The accounts of all domains."""

    def __init__(self, store: Committer) -> None:
        self._store = store

    def lookup(self, address: str) -> Account | None:
        """The account of an address, or None."""
        key = canonical_address(address).encode()
        if not 0 < len(key) <= 500:
            return None
        raw = self._store.raw
        value = raw.get(TABLE_ACCOUNT_NAME, key)
        if value is None:
            return None
        account = self.by_id(int.from_bytes(value, "big"))
        if account is None and raw.get(TABLE_ACCOUNT_NAME, key) == value:  # else it was deleted between the two reads
            raise raw.damaged("account", value, "the account that a name leads to is not there")
        return account

    def by_id(self, account_id: int) -> Account | None:
        """The account with this identifier, or None."""
        value = self._store.raw.get(TABLE_ACCOUNT, id_key(account_id))
        return self._decoded(id_key(account_id), value) if value is not None else None

    def _decoded(self, key: bytes, value: bytes) -> Account:
        try:
            return _decoder.decode(value)
        except (ValueError, RecursionError) as error:
            raise self._store.raw.damaged("account", key, "the record cannot be decoded") from error

    def page(self, after: bytes = b"", limit: int = PAGE) -> tuple[list[Account], bytes]:
        """Some accounts in order of address, and the token of the next page (b"": that was the last)."""
        rows = self._store.raw.scan(TABLE_ACCOUNT_NAME, b"", after, limit)
        found = [self.by_id(int.from_bytes(value, "big")) for _, value in rows]
        following = rows[-1][0] + b"\0" if len(rows) == limit else b""
        return [each for each in found if each is not None], following

    def list(self) -> list[Account]:
        """Every account, in order of address."""
        out: list[Account] = []
        after = b""
        while True:
            page, after = self.page(after)
            out += page
            if not after:
                return out

    def oldest(self) -> Account | None:
        """The enabled account that was made first (ids grow), or None; looks at OLDEST accounts at most."""
        start = b""
        for _ in range(OLDEST // PAGE):
            page = self._store.raw.scan(TABLE_ACCOUNT, b"", start, PAGE)
            for _, value in page:
                account = _decoder.decode(value)
                if account.enabled:
                    return account
            if len(page) < PAGE:
                return None
            start = page[-1][0] + b"\0"
        return None

    def usage(self, account_id: int) -> tuple[int, int]:
        """(bytes, messages) of all mailboxes."""
        fields = usage_fields(self._store.raw.get(TABLE_USAGE, id_key(account_id)))
        return fields[0], fields[1]

    def quota(self, account_id: int) -> tuple[int, int]:
        """What its mailboxes may hold, (bytes, messages), by its own quota or by the rules; 0: no limit."""
        return quota_fields(self._store.raw, account_id)[2:]

    def is_full(self, account_id: int, mailbox_id: int) -> bool:
        """Whether a quota of the account is used up, for what comes into this mailbox."""
        used, messages, quota, limit = quota_fields(self._store.raw, account_id, mailbox_id)
        return bool((quota and used >= quota) or (limit and messages >= limit))

    async def add(
        self,
        address: str,
        password_hash: str,
        *,
        quota_bytes: int = 0,
        quota_messages: int = 0,
        names: Mapping[str, str] = _USUAL_NAMES,
    ) -> Account:
        """Makes an account with its first mailboxes, subscribed; Refused("exists") where the address has one.

        `names`: what first mailboxes are called, where not by their usual names.
        """
        canonical = canonical_address(address)
        if not 0 < len(canonical.encode()) <= 500:
            raise ValueError("an address has 1 to 500 bytes")
        raw = self._store.raw
        now_s = int(self._store.clock.now())
        account = Account(raw.new_id(), canonical, password_hash, quota_bytes, now_s, quota_messages=quota_messages)
        unit = raw.new_unit()
        unit.put_new(TABLE_ACCOUNT_NAME, canonical.encode(), id_key(account.id))
        unit.quota(account.id, quota_bytes, quota_messages)
        for usual, special_use in FIRST_MAILBOXES:
            name, mailbox_id = names.get(usual, usual), raw.new_id()
            unit.mailbox_new(mailbox_id, account.id, name.encode(), special_use.encode(), now_s)
            unit.put(TABLE_SUBSCRIPTION, id_key(account.id) + name.encode(), b"")
            if name == "INBOX":
                account.inbox_id = mailbox_id
        unit.put_new(TABLE_ACCOUNT, id_key(account.id), _encoder.encode(account))
        unit.count(DIRECTORY_COUNTER, 1, -1)
        await self._store.commit(unit)
        return account

    async def set_password(self, address: str, password_hash: str) -> None:
        """Gives an account another password; Refused("missing") where there is no such account."""

        def compose() -> Unit:
            account, unit = self._changing(address)
            account.password_hash = password_hash
            unit.put(TABLE_ACCOUNT, id_key(account.id), _encoder.encode(account))
            return unit

        await commit_guarded(self._store, compose)

    async def set_quota(
        self, address: str, quota_bytes: int | None = None, quota_messages: int | None = None
    ) -> Account:
        """Sets the ceilings of an account's mailboxes, 0 for none, None to leave one; what is there already stays."""
        done: list[Account] = []

        def compose() -> Unit:
            account, unit = self._changing(address)
            account.quota_bytes = account.quota_bytes if quota_bytes is None else quota_bytes
            account.quota_messages = account.quota_messages if quota_messages is None else quota_messages
            unit.put(TABLE_ACCOUNT, id_key(account.id), _encoder.encode(account))
            unit.quota(account.id, account.quota_bytes, account.quota_messages)
            done[:] = [account]
            return unit

        await commit_guarded(self._store, compose)
        return done[0]

    async def rename(
        self, address: str, new_address: str, *, together: Callable[[Unit], None] = lambda unit: None
    ) -> None:
        """Gives an account another address; Refused("exists") where that is taken, Refused("missing") where there is
        no such account. `together` adds to the unit what has to change with it.
        """
        old, new = canonical_address(address), canonical_address(new_address)
        if not 0 < len(new.encode()) <= 500:
            raise ValueError("an address has 1 to 500 bytes")

        def compose() -> Unit:
            account, unit = self._changing(old)
            account.address = new
            unit.put_new(TABLE_ACCOUNT_NAME, new.encode(), id_key(account.id))
            unit.delete(TABLE_ACCOUNT_NAME, old.encode())
            unit.put(TABLE_ACCOUNT, id_key(account.id), _encoder.encode(account))
            together(unit)
            return unit

        await commit_guarded(self._store, compose)

    async def set_enabled(self, address: str, enabled: bool) -> None:
        """Opens an account or closes it: then nobody logs in, and its mail is refused (550 5.2.1)."""

        def compose() -> Unit:
            account, unit = self._changing(address)
            account.enabled = enabled
            unit.put(TABLE_ACCOUNT, id_key(account.id), _encoder.encode(account))
            return unit

        await commit_guarded(self._store, compose)

    async def delete(self, address: str) -> None:
        """Removes an account with its mailboxes and mail; the bytes go through the trash.

        Where it has more than GONE mailboxes, subscriptions or annotations, it is closed first, and they go GONE in a
        unit; who is interrupted calls this again.
        """
        await self._thin_out(address)

        def compose() -> Unit:
            account, unit = self._changing(address)
            raw = self._store.raw
            usage = usage_fields(raw.get(TABLE_USAGE, id_key(account.id)))
            unit.mailbox_list_version(account.id, usage[3])
            for mailbox_id, _ in mailbox_list(raw, account.id):
                unit.mailbox_gone(mailbox_id)
            _release_retained(raw, unit, account.id)
            for table in _KEPT_WITH_IT:
                for key, _ in raw.scan(table, id_key(account.id), b"", 1_000_000):
                    self._forget(unit, table, key)
            unit.delete(TABLE_USAGE, id_key(account.id))
            unit.delete(TABLE_ACCOUNT, id_key(account.id))
            unit.delete(TABLE_ACCOUNT_NAME, account.address.encode())
            return unit

        await commit_guarded(self._store, compose)

    async def _thin_out(self, address: str) -> None:
        account = self.lookup(address)
        if account is None:
            return
        raw, lead = self._store.raw, id_key(account.id)
        while len(rows := raw.scan(TABLE_MAILBOX_NAME, lead, b"", GONE + 1)) > GONE:
            if account.enabled:
                account.enabled = False
                await self.set_enabled(address, False)
            unit = raw.new_unit()
            for _, value in rows:
                mailbox_id = int.from_bytes(value, "little")
                if mailbox_id != account.inbox_id:  # the account's own record leads to it
                    unit.mailbox_gone(mailbox_id)
            await self._store.commit(unit)
        while len(raw.scan(TABLE_RETAINED, lead, b"", GONE + 1)) > GONE:
            unit = raw.new_unit()
            _release_retained(raw, unit, account.id)
            await self._store.commit(unit)
        for table in _KEPT_WITH_IT:
            while len(rows := raw.scan(table, lead, b"", GONE + 1)) > GONE:
                unit = raw.new_unit()
                for key, _ in rows:
                    self._forget(unit, table, key)
                await self._store.commit(unit)

    def _forget(self, unit: Unit, table: int, key: bytes) -> None:
        if table == TABLE_ACL:
            forget_list(self._store.raw, unit, key)
        else:
            unit.delete(table, key)

    def _changing(self, address: str) -> tuple[Account, Unit]:
        """An account as it is now, and a unit that is refused if that has changed when it is committed."""
        raw = self._store.raw
        key = canonical_address(address).encode()
        name = raw.get(TABLE_ACCOUNT_NAME, key) if 0 < len(key) <= 500 else None
        value = raw.get(TABLE_ACCOUNT, name) if name is not None else None
        if name is None or value is None:
            raise Refused("missing", canonical_address(address))
        unit = raw.new_unit()
        unit.guard(TABLE_ACCOUNT, name, value)
        unit.count(DIRECTORY_COUNTER, 1, -1)
        return self._decoded(name, value), unit


def _release_retained(raw: Store, unit: Unit, account_id: int) -> None:
    """Adds to a unit that an account's expunged messages, or GONE of them, cannot be had back any more."""
    lead = id_key(account_id)
    rows = raw.scan(TABLE_RETAINED, lead, lead + b"\0", GONE)  # not the totals, whose key is the lead alone
    unit.release(account_id, b"".join(key[len(lead) :] for key, _ in rows))
