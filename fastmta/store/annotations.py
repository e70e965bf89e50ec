"""Annotations of accounts and of their mailboxes (RFC 5464): entries with a value each, unread by the store."""

from collections.abc import Sequence

from fastmta._store import TABLE_ANNOTATION
from fastmta.model.errors import Refused
from fastmta.store.committing import Committer
from fastmta.store.record_keys import id_key

Change = tuple[bytes, bytes | None]


class Annotations:
    """The annotations of all accounts. A mailbox id of 0 stands for the account itself."""

    def __init__(self, store: Committer) -> None:
        self._store = store

    def get(self, account_id: int, mailbox_id: int, entry: bytes) -> bytes | None:
        """An entry's value, or None."""
        return self._store.raw.get(TABLE_ANNOTATION, place_of(account_id, mailbox_id) + entry)

    def list(self, account_id: int, mailbox_id: int, limit: int = 1000) -> Sequence[Change]:
        """(entry, value) in order of entries."""
        place = place_of(account_id, mailbox_id)
        return [(key[len(place) :], value) for key, value in self._store.raw.scan(TABLE_ANNOTATION, place, b"", limit)]

    async def set(self, account_id: int, mailbox_id: int, changes: Sequence[Change], limit: int) -> None:
        """Changes entries, all or none; None removes one. Refused("limit") where more than `limit` would be there."""
        place = place_of(account_id, mailbox_id)
        entries = dict(self.list(account_id, mailbox_id, limit + 1))
        unit = self._store.raw.new_unit()
        for entry, value in changes:
            if value is not None:
                entries[entry] = value
                unit.put(TABLE_ANNOTATION, place + entry, value)
            elif entries.pop(entry, None) is not None:
                unit.delete(TABLE_ANNOTATION, place + entry)
        if len(entries) > limit:
            raise Refused("limit")
        await self._store.commit(unit)


def place_of(account_id: int, mailbox_id: int) -> bytes:
    """What the keys of a mailbox's entries begin with."""
    return id_key(account_id) + id_key(mailbox_id)
