"""Expunged messages that can be had back for a while: they are in no mailbox and in no quota."""

from collections.abc import Sequence
from typing import Final

import msgspec

from fastmta._mime import Structure
from fastmta._store import TABLE_RETAINED, blob_read, cold_bytes, retained_fields, retained_totals
from fastmta._unit import Unit
from fastmta.model.errors import StorageFailure
from fastmta.model.flags import DELETED
from fastmta.store.committing import Committer
from fastmta.store.pace import others_turn
from fastmta.store.record_keys import id_key

PAGE: Final = 200  # rows read, or let go of in one unit
NEVER_S: Final = 1 << 62  # later than all that has been expunged
_READ_BYTES: Final = 1 << 18


class Retained(msgspec.Struct, gc=False):
    """One expunged message."""

    key: bytes  # in its account
    mailbox: str  # its name then
    expunged_s: int
    blob_id: int
    flags: int
    keywords: bytes
    internal_date_s: int
    tz_minutes: int
    size: int
    prefix: bytes

    @property
    def mailbox_id(self) -> int:
        return int.from_bytes(self.key[8:16], "big")


class RetainedMessages:
    """What all accounts retain."""

    def __init__(self, store: Committer) -> None:
        self._store = store

    def totals(self, account_id: int) -> tuple[int, int]:
        """(messages, octets as they are charged) of an account."""
        return retained_totals(self._store.raw.get(TABLE_RETAINED, id_key(account_id)))

    def page(self, account_id: int, after: bytes = b"", since_s: int = 0, limit: int = PAGE) -> Sequence[Retained]:
        """What an account had expunged at that time or later, the oldest first, from behind a key on."""
        lead = id_key(account_id)
        start = lead + (after + b"\0" if after else max(since_s, 0).to_bytes(8, "big") + b"\0")
        rows = self._store.raw.scan(TABLE_RETAINED, lead, start, limit)
        return [_decoded(key[8:], value) for key, value in rows]

    def holds(self, account_id: int, message: Retained) -> bool:
        """Whether a message that was listed is still there."""
        return self._store.raw.get(TABLE_RETAINED, id_key(account_id) + message.key) is not None

    async def read(self, message: Retained, offset: int, length: int) -> bytes:
        """What is shown of a message behind its prefix, 256 KB at most; b"" where it cannot be read.

        Others get their turn.
        """
        raw, blob_id = self._store.raw, message.blob_id

        def cold() -> list[tuple[int, int]]:
            return cold_bytes(raw, 0, 0, blob_id, offset, length)

        need = self._store.warming.need(cold)
        await (others_turn() if need is None else need)
        return blob_read(raw, blob_id, offset, length) or b""

    async def structure(self, message: Retained) -> bytes:
        """What `_mime` makes of the message's bytes, as at arrival; StorageFailure where they cannot be read."""
        structure, offset, size = Structure(), 0, message.size - len(message.prefix)
        while offset < size:
            piece = await self.read(message, offset, _READ_BYTES)
            if not piece:
                raise StorageFailure("the bytes of an expunged message are not there")
            structure.feed(piece)
            offset += len(piece)
        return structure.finish()

    def restoring(self, account_id: int, message: Retained, mailbox_id: int, structure: bytes) -> Unit:
        """A unit that files a message in a mailbox again, with its flags and date, but not \\Deleted.

        Refused("changed") where somebody has had it back before, ("quota"), ("missing").
        """
        unit = self._store.raw.new_unit()
        unit.append(
            mailbox_id,
            message.blob_id,
            message.prefix,
            message.flags & ~DELETED,
            message.keywords,
            message.internal_date_s,
            message.tz_minutes,
            structure,
        )
        unit.release(account_id, message.key, True)
        return unit

    async def release(self, account_id: int, before_s: int) -> int:
        """Lets go of what an account had expunged before that moment, into the trash; how many messages."""
        gone = 0
        while page := self.page(account_id):
            keys = [each.key for each in page if each.expunged_s < before_s]
            if keys:
                unit = self._store.raw.new_unit()
                unit.release(account_id, b"".join(keys))
                await self._store.commit(unit)
                gone += len(keys)
            if len(keys) < len(page):
                break
            await others_turn()
        return gone

    def accounts(self, after: int = 0) -> int:
        """The next account above this number that retains anything; 0: there is none."""
        rows = self._store.raw.scan(TABLE_RETAINED, b"", id_key(after + 1), 1)
        return int.from_bytes(rows[0][0][:8], "big") if rows else 0


def _decoded(key: bytes, value: bytes) -> Retained:
    name, blob_id, flags, keywords, date_s, tz_minutes, size, prefix = retained_fields(value)
    expunged_s = int.from_bytes(key[:8], "big")
    return Retained(
        key, name.decode(errors="replace"), expunged_s, blob_id, flags, keywords, date_s, tz_minutes, size, prefix
    )
