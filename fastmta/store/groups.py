"""Groups of accounts, which mailboxes are shared with: `$name` in access lists (RFC 4314 §2; Dovecot's `group=`).

A group is a name and a number in `meta`; who is in it, each account's own rows say, so they go with the account. A
group that was deleted and made again has another number: what the former one was given is not the new one's.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from fastmta._store import TABLE_CREDENTIAL, TABLE_META
from fastmta._unit import Unit
from fastmta.model.errors import Refused
from fastmta.model.limits import GROUPS_OF_ACCOUNT
from fastmta.store.committing import Committer, commit_guarded
from fastmta.store.record_keys import id_key

PREFIX: Final = b"group."
_KIND: Final = b"g"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class Groups:
    """The groups of all accounts."""

    def __init__(self, store: Committer) -> None:
        self._store = store

    def id_of(self, name: str) -> int:
        """The number of a group; 0: there is none."""
        name = name.lower()
        value = self._store.raw.get(TABLE_META, PREFIX + name.encode()) if _NAME.fullmatch(name) else None
        return int.from_bytes(value, "big") if value is not None else 0

    def names(self) -> Iterator[str]:
        start = b""
        while rows := self._store.raw.scan(TABLE_META, PREFIX, start, 100):
            yield from (key[len(PREFIX) :].decode() for key, _ in rows)
            start = rows[-1][0] + b"\0"

    def of(self, account_id: int) -> Sequence[int]:
        """The numbers of the groups that an account is in; of deleted ones perhaps too."""
        lead = id_key(account_id) + _KIND
        return [
            int.from_bytes(key[len(lead) :], "big")
            for key, _ in self._store.raw.scan(TABLE_CREDENTIAL, lead, b"", GROUPS_OF_ACCOUNT)
        ]

    async def add(self, name: str, account_id: int) -> None:
        """Puts an account into a group, which is made where there is none. Refused("invalid") or ("limit")."""
        if not _NAME.fullmatch(name):
            raise Refused("invalid", name)
        raw, key = self._store.raw, PREFIX + name.encode()

        def compose() -> Unit:
            unit, value = raw.new_unit(), raw.get(TABLE_META, key)
            unit.guard(TABLE_META, key, value)
            if value is None:
                value = id_key(raw.new_id())
                unit.put(TABLE_META, key, value)
            of = self.of(account_id)
            if len(of) >= GROUPS_OF_ACCOUNT and int.from_bytes(value, "big") not in of:
                gone = set(of) - {self.id_of(each) for each in self.names()}
                if not gone:
                    raise Refused("limit", name)
                for number in gone:
                    unit.delete(TABLE_CREDENTIAL, id_key(account_id) + _KIND + id_key(number))
            unit.put(TABLE_CREDENTIAL, id_key(account_id) + _KIND + value, b"")
            unit.mailbox_list_changed(account_id)
            return unit

        await commit_guarded(self._store, compose)

    async def remove(self, name: str, account_id: int) -> bool:
        """Takes an account out of a group; False where it was not in it."""
        number = self.id_of(name)
        if not number or number not in self.of(account_id):
            return False
        unit = self._store.raw.new_unit()
        unit.delete(TABLE_CREDENTIAL, id_key(account_id) + _KIND + id_key(number))
        unit.mailbox_list_changed(account_id)
        await self._store.commit(unit)
        return True

    async def delete(self, name: str) -> bool:
        """Deletes a group: what it was given is nobody's from now on. False where there is none."""
        if not self.id_of(name):
            return False
        unit = self._store.raw.new_unit()
        unit.delete(TABLE_META, PREFIX + name.lower().encode())
        await self._store.commit(unit)
        return True
