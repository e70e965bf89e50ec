"""The keys that URLs are authorized with (RFC 4467 §2.4): one of a mailbox, made when it is first wanted.

They are rows of the account, so they go with it; a key of a mailbox that is gone means nothing, since ids are not given
again, and goes with the next reset of all.
"""

import os
from typing import Final

from fastmta._store import TABLE_CREDENTIAL
from fastmta.model.errors import Refused
from fastmta.store.committing import Committer
from fastmta.store.record_keys import id_key

_KIND: Final = b"u"
_BYTES: Final = 32
_AT_ONCE: Final = 500  # rows of one unit


class UrlKeys:
    """The keys of all accounts."""

    def __init__(self, store: Committer) -> None:
        self._store = store

    def get(self, account_id: int, mailbox_id: int) -> bytes:
        """A mailbox's key; b"" where it has none."""
        return self._store.raw.get(TABLE_CREDENTIAL, id_key(account_id) + _KIND + id_key(mailbox_id)) or b""

    async def made(self, account_id: int, mailbox_id: int) -> bytes:
        """A mailbox's key, made where it has none."""
        key = self.get(account_id, mailbox_id)
        if key:
            return key
        unit = self._store.raw.new_unit()
        unit.put_new(TABLE_CREDENTIAL, id_key(account_id) + _KIND + id_key(mailbox_id), os.urandom(_BYTES))
        try:
            await self._store.commit(unit)
        except Refused as refusal:
            if refusal.code != "exists":  # somebody else has made it meanwhile
                raise
        return self.get(account_id, mailbox_id)

    async def reset(self, account_id: int, mailbox_id: int) -> None:
        """Removes a mailbox's key, or with 0 all of the account."""
        lead = id_key(account_id) + _KIND + (id_key(mailbox_id) if mailbox_id else b"")
        while rows := self._store.raw.scan(TABLE_CREDENTIAL, lead, b"", _AT_ONCE):
            unit = self._store.raw.new_unit()
            for key, _ in rows:
                unit.delete(TABLE_CREDENTIAL, key)
            await self._store.commit(unit)
