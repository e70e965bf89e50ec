"""Mailboxes and the messages in them, as IMAP and POP3 see them (RFC 3501, RFC 7162)."""

from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import starmap
from typing import Final, TypeVar

import msgspec

from fastmta._intake import REFUSE, Body, Posting, Recipient, Target
from fastmta._store import (
    TABLE_ENVELOPE,
    TABLE_MESSAGE,
    TABLE_UIDL,
    TABLE_USAGE,
    blob_read,
    changed_uids,
    cold_bytes,
    cold_rows,
    digest_of,
    give_rows,
    hot,
    mailbox_changes,
    mailbox_modseq,
    mailbox_summary,
    mailbox_uids,
    message_columns,
    message_dates,
    message_modseqs,
    message_read,
    message_rows,
    quota_fields,
    usage_fields,
)
from fastmta._unit import Blob, RowSink, Unit
from fastmta.model.appended import Appended
from fastmta.model.errors import Cold, Refused, StorageFailure
from fastmta.model.flags import DELETED
from fastmta.model.limits import MAILBOX_PAGE
from fastmta.store.committing import commit_guarded
from fastmta.store.email_ids import email_id
from fastmta.store.mailbox_names import MailboxNames, canonical_name
from fastmta.store.pace import others_turn
from fastmta.store.record_keys import id_key

T = TypeVar("T")

COPIED: Final = 500  # messages of one copying unit: each is a new record beside a change of its blob's
SLICE: Final = 1000  # messages of one unit where the whole need not be atomic: a few milliseconds of the committer


class MessageRow(msgspec.Struct, gc=False):
    """What is kept of a message beside its bytes; `size` counts all that is shown, the prefix among it."""

    uid: int
    blob_id: int
    flags: int
    keywords: bytes
    modseq: int
    internal_date_s: int
    tz_minutes: int
    size: int
    prefix: bytes
    saved_s: int = 0  # when it came into this mailbox (RFC 8514); 0: not known


class Columns(msgspec.Struct, gc=False):
    """Rows as columns. `here`: an octet each, 0 for a message that is gone. `days`: of the internal date as its zone
    has it, since 1970. `words` index `keywords`."""

    here: bytes
    flags: "array[int]"
    sizes: "array[int]"
    days: "array[int]"
    prefixes: "array[int]"
    words: "array[int]"
    keywords: Sequence[bytes]


class Changes(msgspec.Struct, gc=False):
    """Messages changed after a modseq, in order of their modseqs, and the uids of those expunged, ascending."""

    uids: "array[int]"
    modseqs: "array[int]"
    keywords: set[bytes]  # lists of them, as rows have them
    gone: "array[int]"
    until: int  # the modseq up to which these are all; 0: there are no more


class Mailboxes(MailboxNames):
    """The mailboxes of all accounts."""

    # --- by name ---

    async def rename(self, account_id: int, old: str, new: str) -> None:
        """Renames a mailbox and its inferiors, and makes missing superiors (RFC 3501 §6.3.5); see rename_tree.

        INBOX gives its messages to a new mailbox instead.
        """
        if canonical_name(old) == "INBOX":
            await self._rename_inbox(account_id, canonical_name(new))
        else:
            await self.rename_tree(account_id, old, new)

    async def _rename_inbox(self, account_id: int, new: str) -> None:
        inbox = self.get(account_id, "INBOX")
        if inbox is None:
            raise Refused("missing", "INBOX")
        source_id, target_id = inbox.id, self._raw.new_id()

        def compose() -> Unit:
            unit = self._raw.new_unit()
            self._new(unit, account_id, new, target_id)
            return unit

        await commit_guarded(self._store, compose)
        async for page in self._pages(source_id, only_deleted=False):
            await self.copy(source_id, page, target_id, move=True)

    # --- reading ---

    def modseq(self, mailbox_id: int) -> int:
        """The highest modseq, 0 where the mailbox is gone: cheap, for who asks once a second."""
        return mailbox_modseq(self._raw, mailbox_id)

    def mark(self, number: int) -> int:
        """What rises whenever a mailbox changes, or an account's list of them with subscriptions and rights; 0 where
        there is none of that number.
        """
        return mailbox_modseq(self._raw, number) or usage_fields(self._raw.get(TABLE_USAGE, id_key(number)))[3]

    def room(self, account_id: int, mailbox_id: int) -> int | None:
        """Octets that the account's quota leaves for this mailbox, not below 0; None without a quota."""
        used, _messages, quota, _limit = quota_fields(self._raw, account_id, mailbox_id)
        return max(0, quota - used) if quota else None

    def usage(self, account_id: int, mailbox_id: int = 0) -> tuple[int, int, int, int]:
        """(octets, messages, quota in octets, quota in messages) of an account; quota 0: none.

        As they count for this mailbox, or for one that has no rule.
        """
        return quota_fields(self._raw, account_id, mailbox_id)

    def uids(self, mailbox_id: int, after: int = 0, limit: int = -1) -> "array[int]":
        """The uids above `after`, ascending, at most `limit` (-1: all)."""
        return mailbox_uids(self._raw, mailbox_id, after, limit)

    def rows(self, mailbox_id: int, uids: "array[int] | None" = None) -> Sequence[MessageRow]:
        """The rows of these messages, or of all; a uid that is gone has none."""
        return list(starmap(MessageRow, message_rows(self._raw, mailbox_id, uids)))

    def summary(
        self, mailbox_id: int, after: int = 0, limit: int = -1, hot: bool = False, /
    ) -> "tuple[array[int], array[int], array[int], array[int], set[bytes]]":
        """(uids, flags, modseqs, sizes, keywords in use) of the messages above uid `after`, at most `limit` (-1: all).

        On the loop a mailbox is read in pages of MAILBOX_PAGE; what changes between two is told by `changes`. With
        `hot` nothing is read from the disk: it ends before that, perhaps with fewer; Cold where it is first (`bring`).
        """
        uids, flags, modseqs, sizes, lists = mailbox_summary(self._raw, mailbox_id, after, limit, hot)
        return uids, flags, modseqs, sizes, {word for words in lists for word in words.split()}

    def columns(self, mailbox_id: int, uids: "array[int]") -> "Columns":
        """What the rows of these messages tell, without an object for each."""
        return Columns(*message_columns(self._raw, mailbox_id, uids))

    def flags_of(self, mailbox_id: int, uids: "array[int]") -> Sequence[tuple[int, int, bytes]]:
        """(uid, flags, keywords) of these messages."""
        return [(row[0], row[2], row[3]) for row in message_rows(self._raw, mailbox_id, uids)]

    def give_rows(
        self,
        mailbox_id: int,
        numbers: "array[int]",
        uids: "array[int]",
        start: int,
        sink: RowSink,
        hot: bool = False,
        /,
    ) -> int:
        """Gives the rows of uids[start:], each with its number, to `sink`, in blocks of structs that it may look at
        during the call; and where to go on. A message that is gone is passed over; StoreDamaged where the first is
        damaged. With `hot` nothing is read from the disk: it ends before that; Cold where it is the first (`bring`).
        """
        return give_rows(self._raw, mailbox_id, numbers, uids, start, sink, hot)

    async def bring(self, cold: Cold) -> None:
        """Returns when what was cold is in memory."""
        await self._store.warming.bring(cold.places)

    def hot(self, read: Callable[[], T]) -> T:
        """What a short read of names, mailboxes or messages gives; Cold where it would wait for the disk (`bring`)."""
        return read() if self._store.warming.is_idle else hot(read)

    def need_rows(self, mailbox_id: int, uids: "array[int]") -> Awaitable[None] | None:
        """None where all that a change of these messages reads is in memory; else to be awaited first."""
        return self._store.warming.need(lambda: cold_rows(self._raw, mailbox_id, uids))

    def need(self, mailbox_id: int, uid: int, offset: int, length: int) -> Awaitable[None] | None:
        """None where `read` of these bytes will not wait for the disk; else to be awaited before it."""
        return self._store.warming.need(lambda: cold_bytes(self._raw, mailbox_id, uid, 0, offset, length))

    def need_on(self, row: MessageRow, offset: int, length: int) -> Awaitable[None] | None:
        """The same for `read_on`."""
        skipped = max(0, offset - len(row.prefix))
        return self._store.warming.need(lambda: cold_bytes(self._raw, 0, 0, row.blob_id, skipped, length))

    def changes(self, mailbox_id: int, since_modseq: int, limit: int = -1) -> "Changes":
        """What was changed or expunged after a modseq: about `limit` messages of each kind (-1: all). What was expunged
        at or before floor_modseq is forgotten."""
        return Changes(*mailbox_changes(self._raw, mailbox_id, since_modseq, limit))

    def changed_uids(
        self, mailbox_id: int, since_modseq: int, limit: int, *, expunged: bool = False
    ) -> "tuple[array[int], int]":
        """The uids of messages changed, or `expunged`, after a modseq, in that order, about `limit` of them; and the
        modseq up to which they are all, 0: there are no more."""
        return changed_uids(self._raw, mailbox_id, int(expunged), since_modseq, limit)

    def modseqs(self, mailbox_id: int, uids: "array[int]") -> "array[int]":
        """The modseq of each of these messages; 0 for one that is gone."""
        return message_modseqs(self._raw, mailbox_id, uids)

    def dates(self, mailbox_id: int, uids: "array[int]", *, saved: bool = False) -> "array[int]":
        """The internal date of each of these messages, or when it was `saved` here, in seconds since 1970; 0 for one
        that is gone, or for a save date that is not known."""
        return message_dates(self._raw, mailbox_id, uids, saved)

    def email_ids(self, mailbox_id: int, uids: "array[int]") -> Sequence[bytes]:
        """What FETCH EMAILID gives (RFC 8474) for each of these messages; b"" for one that is gone."""
        found = {
            row[0]: email_id(row[1], digest_of(row[8]) if row[8] else 0)
            for row in message_rows(self._raw, mailbox_id, uids)
        }
        return [found.get(uid, b"") for uid in uids]

    def uidl(self, mailbox_id: int, uid: int) -> bytes | None:
        """What POP3 calls a message that came with such a name; None where it has none but our own form."""
        return self._raw.get(TABLE_UIDL, id_key(mailbox_id) + uid.to_bytes(4, "big"))

    def uidls(self, mailbox_id: int, after: int = 0, limit: int = MAILBOX_PAGE) -> Sequence[tuple[int, bytes]]:
        """(uid, name) of those above uid `after` that came with one."""
        lead = id_key(mailbox_id)
        rows = self._raw.scan(TABLE_UIDL, lead, lead + (after + 1).to_bytes(5, "big")[1:], limit)
        return [(int.from_bytes(key[8:], "big"), value) for key, value in rows]

    def structure(self, mailbox_id: int, uid: int) -> bytes | None:
        """The structure record that `_mime` made at arrival."""
        key = id_key(mailbox_id) + uid.to_bytes(4, "big")
        structure = self._raw.get(TABLE_ENVELOPE, key)
        if structure is None and self._raw.get(TABLE_MESSAGE, key) is not None:
            raise self._raw.damaged("envelope", key, "the structure of a message is not there")
        return structure

    def read(self, mailbox_id: int, uid: int, offset: int, length: int) -> bytes | None:
        """Bytes of a message, its prefix first, a copy; b"" at the end, None where it is gone; at most 256 KB."""
        return message_read(self._raw, mailbox_id, uid, offset, length)

    def read_on(self, row: MessageRow, offset: int, length: int, hot: bool = False) -> bytes | None:
        """As `read`, even where the message was expunged after its row was read; None where its bytes are gone too.
        With `hot` nothing is read from the disk: Cold where it would be (`need_on`).

        The trash keeps them for a minute, and as long as the row is held (but not on a disk that is nearly full).
        """
        beginning = row.prefix[offset : offset + length]
        if len(beginning) == length:
            return beginning
        rest = blob_read(self._raw, row.blob_id, max(0, offset - len(row.prefix)), length - len(beginning), hot)
        return None if rest is None else beginning + rest

    def hold(self, row: MessageRow) -> None:
        """Keeps a message's bytes for `read_on`, however long the reader takes; `release` must follow."""
        self._raw.holds.take(row.blob_id)

    def release(self, row: MessageRow) -> None:
        """The reader has ended."""
        self._raw.holds.release(row.blob_id)

    # --- writing ---

    def new_blob(self) -> Blob:
        """A message to be received."""
        return self._raw.new_blob()

    async def append(
        self,
        mailbox_id: int,
        blob: Blob,
        *,
        prefix: bytes = b"",
        flags: int = 0,
        keywords: bytes = b"",
        internal_date_s: int,
        tz_minutes: int = 0,
        structure: bytes,
        uidl: bytes = b"",
    ) -> tuple[int, int]:
        """Files a message; (uid_validity, uid). Refused("missing") or ("quota"): the blob is gone then too."""
        message = Appended(blob, structure, internal_date_s, tz_minutes, flags, keywords, prefix, uidl)
        validity, uids = await self.append_many(mailbox_id, [message])
        return validity, uids[0]

    async def append_many(
        self, mailbox_id: int, messages: Sequence[Appended], *, replaced: tuple[int, int] | None = None
    ) -> "tuple[int, array[int]]":
        """Files several messages, all or none (RFC 3502); (uid_validity, uids).

        `replaced`, a mailbox and a uid, goes in the same step (RFC 8508); Refused("changed") where it has gone before.
        """
        unit = self._raw.new_unit()
        if replaced is not None:  # first, so that what it took of the quota is free
            old = array("I", replaced[1:]).tobytes()
            unit.expunge(replaced[0], old, False, True, self._store.retained_bytes)
        postings = []
        for each in messages:
            to = Recipient.of(b"", [Target.filed(mailbox_id, each.flags, each.keywords, each.prefix)])
            posting = Posting(None, 0, None, Body(each.blob, each.structure), REFUSE).to((to,))
            posting.date_s, posting.tz_minutes = each.internal_date_s, each.tz_minutes
            posting.write(unit)
            if each.uidl:
                unit.uidl(mailbox_id, each.uidl)
            postings.append(posting)
        await self._store.commit(unit)
        validity, uids = 0, array("I")
        for posting in postings:
            for _, _, result in posting.committed(unit):
                if not isinstance(result, str):
                    validity, uid, _ = result
                    uids.append(uid)
        return validity, uids

    async def change_flags(
        self,
        mailbox_id: int,
        uids: "array[int]",
        mode: int,
        flags: int,
        keywords: bytes = b"",
        unchanged_since: int = -1,
        kept: int = 0,
    ) -> "tuple[int, array[int]]":
        """What `set_flags` does, in one unit: the modseq of the change too. The caller bounds the number of uids.

        `kept`: flags that stay as they are, ALL_KEYWORDS among them where keywords do.
        """
        unit = self._raw.new_unit()
        unit.flags(mailbox_id, uids.tobytes(), mode, flags, keywords, unchanged_since, kept)
        modseq, left = (await self._store.commit(unit)).results[0]
        failed = array("I")
        failed.frombytes(left)
        return modseq, failed

    async def set_flags(
        self,
        mailbox_id: int,
        uids: "array[int]",
        mode: int,
        flags: int,
        keywords: bytes = b"",
        unchanged_since: int = -1,
    ) -> "array[int]":
        """Sets (0), adds (1) or removes (2) flags and keywords; the uids that had changed after `unchanged_since`."""
        failed = array("I")
        for start in range(0, len(uids), SLICE):
            part = uids[start : start + SLICE]
            failed.extend((await self.change_flags(mailbox_id, part, mode, flags, keywords, unchanged_since))[1])
        return failed

    async def delete(self, mailbox_id: int) -> None:
        """Removes a mailbox and all in it; where expunged messages are retained, these are."""
        if self._store.retained_bytes:
            await self.expunge(mailbox_id, only_deleted=False)
        await super().delete(mailbox_id)

    async def expunge(
        self, mailbox_id: int, uids: "array[int] | None" = None, only_deleted: bool = True, *, for_good: bool = False
    ) -> "array[int]":
        """Removes messages, of the given uids or of all, and of those the ones marked \\Deleted; the uids that went.

        Unless it is `for_good` they are retained for a while, where the store is told to (store/retained.py).
        """
        gone = array("I")
        retained = 0 if for_good else self._store.retained_bytes
        if uids is not None:
            await self._expunge_these(mailbox_id, uids, only_deleted, retained, gone)
            return gone
        async for page in self._pages(mailbox_id, only_deleted=only_deleted):
            await self._expunge_these(mailbox_id, page, only_deleted, retained, gone)
        return gone

    async def _expunge_these(
        self, mailbox_id: int, uids: "array[int]", only_deleted: bool, retained: int, gone: "array[int]"
    ) -> None:
        slice_ = COPIED if retained else SLICE
        for start in range(0, len(uids), slice_):
            unit = self._raw.new_unit()
            unit.expunge(mailbox_id, uids[start : start + slice_].tobytes(), only_deleted, False, retained)
            gone.frombytes((await self._store.commit(unit)).results[0])

    async def _pages(self, mailbox_id: int, *, only_deleted: bool) -> "AsyncIterator[array[int]]":
        """The uids of a mailbox, or of what is marked \\Deleted in it, a page at a time; others work in between."""
        mailbox = self.by_id(mailbox_id)
        if mailbox is None:
            raise Refused("missing")
        if only_deleted and mailbox.deleted_count == 0:
            return
        last = 0
        while last < mailbox.uid_next - 1:
            uids, flags, *_ = mailbox_summary(self._raw, mailbox_id, last, MAILBOX_PAGE)
            if not uids:
                return
            last = uids[-1]
            if only_deleted:
                uids = array("I", [uid for uid, each in zip(uids, flags, strict=True) if each & DELETED])
            if uids:
                yield uids
            await others_turn()

    async def copy(
        self, source_id: int, uids: "array[int]", target_id: int, *, move: bool = False, lost: int = 0
    ) -> "tuple[int, array[int], array[int]]":
        """Copies or moves messages in their order; (uid_validity of the target, uids, their new uids). `lost`: flags
        that they do not have there, as `kept` of `change_flags`.

        Many are done in several units. A copy that is refused in the middle leaves nothing behind (RFC 3501 §6.4.7); a
        move leaves what was moved where it is (RFC 6851 §3.3).
        """
        validity, sources, targets = 0, array("I"), array("I")
        try:
            for start in range(0, len(uids), COPIED):
                unit = self._raw.new_unit()
                unit.copy(source_id, uids[start : start + COPIED].tobytes(), target_id, move, lost)
                validity, source, target = (await self._store.commit(unit)).results[0]
                sources.extend(array("I", source))
                targets.extend(array("I", target))
        except (Refused, StorageFailure):
            if not move and targets:
                await self.expunge(target_id, targets, only_deleted=False, for_good=True)
            if not move or not targets:
                raise
        return validity, sources, targets

    async def take_recent(self, mailbox_id: int) -> tuple[int, int]:
        """(first, end) of the uids that are \\Recent for this session and for no other, `end` not included."""
        mailbox = self.by_id(mailbox_id)
        if mailbox is None:
            raise Refused("missing")
        if mailbox.recent_uid == mailbox.uid_next:
            return mailbox.uid_next, mailbox.uid_next
        unit = self._raw.new_unit()
        unit.take_recent(mailbox_id)
        taken: tuple[int, int] = (await self._store.commit(unit)).results[0]
        return taken

    async def purge(self, account_id: int) -> None:
        """Removes every message of an account; its mailboxes stay."""
        for mailbox in self.list(account_id):
            if mailbox.exists:
                await self.expunge(mailbox.id, only_deleted=False, for_good=True)
