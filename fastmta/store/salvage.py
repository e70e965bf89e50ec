"""`fastmta store salvage`: all that can be read of a damaged store, in a new one that is sound.

The pages are read without LMDB (pages.py), those that stood below a damaged branch page too. Messages keep their UIDs,
flags and modseqs, mailboxes their UIDVALIDITY, the queue its envelopes and states. What can be told from the rest is
made anew: references, counts, quotas, names, structures, indexes, the schedule. Each loss is one line.
"""

import fcntl
import os
import struct
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from fastmta._mime import Structure
from fastmta._store import (
    DATABASE_NAMES,
    DATABASE_OF,
    ID_BLOCK,
    ID_COUNTER_BITS,
    TABLE_ACCOUNT,
    TABLE_ACCOUNT_NAME,
    TABLE_ACL,
    TABLE_ACL_INDEX,
    TABLE_ALIAS,
    TABLE_ANNOTATION,
    TABLE_BLOB,
    TABLE_CHANGE,
    TABLE_COUNTER,
    TABLE_CREDENTIAL,
    TABLE_DKIM_KEY,
    TABLE_ENVELOPE,
    TABLE_MAILBOX,
    TABLE_MAILBOX_NAME,
    TABLE_MESSAGE,
    TABLE_META,
    TABLE_PENDING,
    TABLE_QUEUE,
    TABLE_RETAINED,
    TABLE_SUBSCRIPTION,
    TABLE_TRASH,
    TABLE_UIDL,
    TABLE_USAGE,
    Store,
    blob_meta,
    digest_of,
    mailbox_fields,
    message_fields,
    message_read,
    queue_fields,
    recipient_fields,
    retained_fields,
    usage_counter,
    usage_fields,
)
from fastmta._unit import Unit
from fastmta.model.envelope import RecipientState, RecipientTail
from fastmta.model.errors import StorageFailure
from fastmta.model.flags import DELETED, SEEN
from fastmta.store.accounts import Account
from fastmta.store.bans import PREFIX as BANS
from fastmta.store.check import RETAINED_OVERHEAD, TRASH_MAILBOX, check_store, trashed_blobs
from fastmta.store.credentials import LOGIN_SECRET
from fastmta.store.days import PREFIX as DAYS
from fastmta.store.dmarc_rows import PREFIX as DMARC_ROWS
from fastmta.store.groups import PREFIX as GROUPS
from fastmta.store.guard import hold_alone
from fastmta.store.pages import FREE, Pages, describe
from fastmta.store.record_keys import id_key
from fastmta.store.suspensions import PREFIX as SUSPENSIONS
from fastmta.store.tls_rows import PREFIX as TLS_ROWS
from fastmta.store.upgrade import OLD_MESSAGE_BYTES, body_from_one, is_blob_of_one, message_from_one

BATCH_BYTES: Final = 2 << 20  # of one unit
LINES: Final = 10_000  # losses that are named; the rest is counted
_KEPT_TABLES: Final = (
    TABLE_SUBSCRIPTION,
    TABLE_ALIAS,
    TABLE_ANNOTATION,
    TABLE_CREDENTIAL,
    TABLE_DKIM_KEY,
    TABLE_ACL,
    TABLE_ACL_INDEX,
)
_BLOB: Final = struct.Struct("<BBBBIIIQQQHHI")  # BlobMeta of _store.pxd
_REFS: Final = 5  # which of its fields
_DIGEST: Final = struct.Struct("<Q")
_DIGEST_AT: Final = 32
_MAILBOX: Final = struct.Struct("<BBHHHIIIIIIIIQQQQ")  # MailboxRecord
_USAGE: Final = struct.Struct("<BB2xIIIQQQQQ")  # UsageRecord
_USAGE_FORMAT: Final = 2
_RETAINED_TOTALS: Final = struct.Struct("<B7xQQ")  # RetainedTotals
_FORMAT: Final = 1
_tails: Final = msgspec.msgpack.Decoder(RecipientTail)
_accounts: Final = msgspec.msgpack.Decoder(Account)
_account_encoder: Final = msgspec.msgpack.Encoder()

Progress = Callable[[int, int], None]


class Outcome(msgspec.Struct):
    """What was saved, by kind, and what was not."""

    kept: dict[str, int]
    lost: list[str]


def salvage(source: Path, target: Path, progress: Progress | None = None) -> Outcome:
    """Saves what can be read of the store in `source`, which nobody may have open, into a new one in `target`."""
    with _alone(source):
        pages = Pages(source)
        try:
            store = Store(str(target))
            try:
                return _Salvage(pages, store, progress).run()
            finally:
                store.close()
        finally:
            pages.close()


@contextmanager
def _alone(source: Path) -> Iterator[None]:
    try:
        guard = hold_alone(source)
    except OSError:  # a copy on a medium that takes no writes
        yield
        return
    try:
        yield
    finally:
        fcntl.flock(guard, fcntl.LOCK_UN)
        os.close(guard)


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


class _Salvage:
    def __init__(self, pages: Pages, store: Store, progress: Progress | None) -> None:
        self.pages = pages
        self.store = store
        self.progress = progress
        self.outcome = Outcome(Counter(), [])
        self.unnamed = 0
        self.unit: Unit | None = None
        self.weight = 0
        self.done = 0
        self.highest_id = 0
        self.recovered: dict[int, list[tuple[bytes, bytes]]] = defaultdict(list)
        self.sound: set[int] = set()  # blobs that are whole
        self.references: Counter[int] = Counter()
        self.deleted: set[int] = set()  # blobs that are in the trash

    def run(self) -> Outcome:
        self._orphans()
        self._blobs()
        self._directory()
        self._mailboxes()
        self._retained()
        self._queue()
        self._references()
        self._counters()
        self._flush()
        self._structures()
        self._flush()
        report = check_store(self.store)
        for problem in report.problems:
            self.lost(f"the new store is not sound: {problem}")
        if self.unnamed:
            self.outcome.lost.append(f"and {self.unnamed} more losses")
        return self.outcome

    def lost(self, text: str) -> None:
        if len(self.outcome.lost) < LINES:
            self.outcome.lost.append(text)
        else:
            self.unnamed += 1

    def kept(self, what: str) -> None:
        self.outcome.kept[what] = self.outcome.kept.get(what, 0) + 1

    # --- reading ---

    def _orphans(self) -> None:
        """Walks everything once, and takes what stood below damaged branch pages."""
        for database in (*DATABASE_NAMES, FREE):
            for _ in self.pages.rows(database):
                pass
        for line in self.pages.notes:
            self.lost(line)
        for hole in self.pages.holes:
            self.lost(describe(hole))
        if self.pages.holes:
            for key, value in self.pages.orphans():
                if key and key[0] < len(DATABASE_OF):
                    self.recovered[key[0]].append((key[1:], value))
        for rows in self.recovered.values():
            rows.sort()
        self.pages.holes.clear()

    def rows(self, table: int) -> Iterator[tuple[bytes, bytes]]:
        """A table's rows in order, recovered ones among them; a key comes once."""
        low, high = bytes((table,)), bytes((table + 1,))
        found = ((key[1:], value) for key, value in self.pages.rows(DATABASE_OF[table], low, high))
        recovered = self.recovered.get(table)
        if not recovered:
            yield from found
            return
        merged = dict(recovered)
        merged.update(found)
        yield from sorted(merged.items())

    # --- writing ---

    def put(self, table: int, key: bytes, value: bytes) -> None:
        if self.unit is None:
            self.unit = self.store.new_unit()
        self.unit.put(table, key, value)
        self.weight += len(key) + len(value) + 64
        if self.weight >= BATCH_BYTES:
            self._flush()

    def _flush(self) -> None:
        unit, self.unit = self.unit, None
        self.done += self.weight
        self.weight = 0
        if unit is not None:
            self._commit(unit)
        if self.progress is not None:
            self.progress(self.done, self.pages.size)

    def _commit(self, unit: Unit) -> None:
        if self.store.commit_sync(unit).failure:
            raise StorageFailure(f"the new store does not take it: {unit.failure}")

    # --- bytes ---

    def _blobs(self) -> None:
        pending = {key for key, _ in self.rows(TABLE_PENDING)}
        for key, value, chunks in self._whole_blobs(pending):
            blob_id = _number(key)
            if value[:1] == b"\1":
                value, pieces = body_from_one(value, chunks)
                chunks = list(pieces.values())
            meta = blob_meta(value)
            if not meta.refs:
                continue  # it was on its way out
            computed = 0
            for chunk in chunks:
                computed = digest_of(chunk, computed)
            if meta.rest:
                computed = digest_of(meta.rest, computed)
            if len(chunks) != meta.chunks or sum(map(len, chunks)) + len(meta.tail) != meta.stored_size:
                whole = f"{meta.chunks} chunks of {meta.stored_size} bytes in all"
                self.lost(f"blob {blob_id}: {whole}, of which {len(chunks)} can be read")
                continue
            if computed != meta.digest:
                self.lost(f"blob {blob_id} is kept, but some of its bytes are not those that were received")
                value = value[:_DIGEST_AT] + _DIGEST.pack(computed) + value[_DIGEST_AT + _DIGEST.size :]
            for n, chunk in enumerate(chunks):
                self.put(TABLE_BLOB, key + n.to_bytes(4, "big"), chunk)
            self.sound.add(blob_id)
            self.highest_id = max(self.highest_id, blob_id)
            self.metas[blob_id] = value

    def _whole_blobs(self, pending: set[bytes]) -> Iterator[tuple[bytes, bytes, list[bytes]]]:
        self.metas: dict[int, bytes] = {}
        key, value = b"", b""
        chunks: list[bytes] = []
        for row_key, row in self.rows(TABLE_BLOB):
            if len(row_key) == 8:
                if key:
                    yield key, value, chunks
                key, value, chunks = (row_key, row, []) if _is_meta(row) else (b"", b"", [])
            elif row_key[:8] == key:
                chunks.append(row)
            elif row_key[:8] not in pending and _number(row_key[8:]) == 0:
                self.lost(f"blob {_number(row_key[:8])}: its record cannot be read")
        if key:
            yield key, value, chunks

    def _references(self) -> None:
        """Each blob's record, with the references that were found; a blob that nothing refers to is left out."""
        for key, value in self.rows(TABLE_TRASH):
            if len(key) == 17 and key[8] != TRASH_MAILBOX:
                self.deleted.update(trashed_blobs(value))
        for blob_id, value in self.metas.items():
            count = self.references[blob_id]
            if not count and blob_id not in self.deleted:
                self.lost(f"blob {blob_id} is whole, and nothing that can be read refers to it")
            if count:
                self.put(TABLE_BLOB, id_key(blob_id), _with_references(value, count))
            else:
                self._drop(blob_id, blob_meta(value).chunks)
        self._flush()

    def _drop(self, blob_id: int, chunks: int) -> None:
        self._flush()
        unit = self.store.new_unit()
        for n in range(chunks):
            unit.delete(TABLE_BLOB, id_key(blob_id) + n.to_bytes(4, "big"))
        self._commit(unit)

    # --- accounts ---

    def _directory(self) -> None:
        self.accounts: dict[int, Account] = {}
        for key, value in self.rows(TABLE_ACCOUNT):
            try:
                self.accounts[_number(key)] = _accounts.decode(value)
            except (ValueError, RecursionError):
                self.lost(f"account {_number(key)}: its record cannot be decoded")
        for name, value in self.rows(TABLE_ACCOUNT_NAME):
            number = _number(value)
            if number not in self.accounts:
                address = name.decode(errors="replace")
                self.lost(f"account {address}: its password and quota; give it a new one with fastmta user passwd")
                self.accounts[number] = Account(number, address, "", 0, int(time.time()))
        for table in _KEPT_TABLES:
            for key, value in self.rows(table):
                self.put(table, key, value)
        for key, value in self.rows(TABLE_META):  # the rest of this table is the new store's own
            if key.startswith((SUSPENSIONS, BANS, DAYS, DMARC_ROWS, TLS_ROWS, GROUPS)) or key == LOGIN_SECRET:
                self.put(TABLE_META, key, value)
        self.names: dict[int, tuple[int, bytes]] = {}
        for key, value in self.rows(TABLE_MAILBOX_NAME):
            if len(value) == 8 and len(key) > 8:
                self.names[int.from_bytes(value, "little")] = (_number(key[:8]), key[8:])

    # --- mailboxes ---

    def _mailboxes(self) -> None:
        gone = {_number(key[9:]) for key, _ in self.rows(TABLE_TRASH) if len(key) == 17 and key[8] == TRASH_MAILBOX}
        records = {_number(key): value for key, value in self.rows(TABLE_MAILBOX) if len(value) >= _MAILBOX.size}
        messages: dict[int, list[tuple[int, bytes]]] = defaultdict(list)
        for key, value in self.rows(TABLE_MESSAGE):
            if len(key) == 12 and _number(key[:8]) in gone:
                with suppress(ValueError):
                    self.deleted.add(message_fields(value)[0])
            elif len(key) == 12:
                if value[:1] == b"\1" and len(value) >= OLD_MESSAGE_BYTES:
                    value = message_from_one(value)
                messages[_number(key[:8])].append((_number(key[8:]), value))
        used: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        self.with_uidls = {_number(key[:8]) for key, _ in self.rows(TABLE_UIDL)}
        for mailbox_id in sorted(records.keys() | messages.keys() | self.names.keys()):
            self._one_mailbox(mailbox_id, records.get(mailbox_id), messages.get(mailbox_id, []), used)
        self._usage(used)

    def _one_mailbox(
        self, mailbox_id: int, record: bytes | None, rows: list[tuple[int, bytes]], used: dict[int, list[int]]
    ) -> None:
        if record is not None:
            fields = mailbox_fields(record)
            account_id, name, special = fields[0], fields[10], fields[11]
            validity, uid_next, modseq, recent = fields[1], fields[2], fields[3], fields[7]
        elif mailbox_id in self.names:
            account_id, name = self.names[mailbox_id]
            special = b""
            validity, uid_next, modseq, recent = int(time.time()), 1, 1, 1
            self.lost(f"mailbox {mailbox_id} ({name.decode(errors='replace')}): its record; clients read it anew")
        else:
            self.lost(f"mailbox {mailbox_id}: its name and account, and so its {len(rows)} messages")
            return
        if account_id not in self.accounts:
            self.lost(f"mailbox {mailbox_id} ({name.decode(errors='replace')}): its account cannot be read")
            return
        counts = [0, 0, 0, 0]
        for uid, value in rows:
            if not self._one_message(mailbox_id, uid, value, counts):
                continue
            uid_next = max(uid_next, uid + 1)
            modseq = max(modseq, message_fields(value)[2])
        exists, unseen, deleted, size = counts
        head = (
            _FORMAT,
            int(mailbox_id in self.with_uidls),
            len(name),
            len(special),
            0,
            validity,
            uid_next,
            min(recent, uid_next),
        )
        record = _MAILBOX.pack(*head, exists, unseen, deleted, 0, 0, modseq, modseq, size, account_id)
        self.put(TABLE_MAILBOX, id_key(mailbox_id), record + name + special)
        self.put(TABLE_MAILBOX_NAME, id_key(account_id) + name, mailbox_id.to_bytes(8, "little"))
        self.kept("mailboxes")
        self.highest_id = max(self.highest_id, mailbox_id, account_id)
        used[account_id][0] += size
        used[account_id][1] += exists
        used[account_id][2] = max(used[account_id][2], validity)
        used[account_id][3] = max(used[account_id][3], modseq)
        if name == b"INBOX":
            self.accounts[account_id].inbox_id = mailbox_id

    def _one_message(self, mailbox_id: int, uid: int, value: bytes, counts: list[int]) -> bool:
        try:
            blob_id, flags, modseq, size, prefix = message_fields(value)
        except ValueError:
            self.lost(f"message uid {uid} of mailbox {mailbox_id}: its record makes no sense")
            return False
        if blob_id not in self.sound or blob_meta(self.metas[blob_id]).size + prefix != size:
            self.lost(f"message uid {uid} of mailbox {mailbox_id}: its bytes cannot be read")
            return False
        self.references[blob_id] += 1
        key = id_key(mailbox_id) + uid.to_bytes(4, "big")
        self.put(TABLE_MESSAGE, key, value)
        self.put(TABLE_CHANGE, id_key(mailbox_id) + b"\0" + modseq.to_bytes(8, "big") + key[8:], b"")
        counts[0] += 1
        counts[1] += not flags & SEEN
        counts[2] += bool(flags & DELETED)
        counts[3] += size
        self.kept("messages")
        return True

    def _retained(self) -> None:
        """Expunged messages that could be had back, and the totals of their accounts."""
        totals: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        for key, value in self.rows(TABLE_RETAINED):
            account_id = _number(key[:8])
            if len(key) == 8 or account_id not in self.accounts:
                continue
            try:
                _, blob_id, _, _, _, _, size, prefix = retained_fields(value)
            except ValueError:
                self.lost(f"an expunged message of account {account_id}: its record makes no sense")
                continue
            if blob_id not in self.sound or blob_meta(self.metas[blob_id]).size + len(prefix) != size:
                self.lost(f"an expunged message of account {account_id}: its bytes cannot be read")
                continue
            self.references[blob_id] += 1
            self.put(TABLE_RETAINED, key, value)
            totals[account_id][0] += 1
            totals[account_id][1] += size + RETAINED_OVERHEAD
            self.kept("expunged messages")
        for account_id, (messages, size) in totals.items():
            self.put(TABLE_RETAINED, id_key(account_id), _RETAINED_TOTALS.pack(_FORMAT, messages, size))

    def _structures(self) -> None:
        """The structures that can be read; the others are computed from the bytes, as at arrival."""
        found = {key for key, value in self.rows(TABLE_ENVELOPE) if len(value) >= 16}
        for key, value in self.rows(TABLE_ENVELOPE):
            if key in found and self.store.get(TABLE_MESSAGE, key) is not None:
                self.put(TABLE_ENVELOPE, key, value)
        for key, value in self.rows(TABLE_UIDL):
            if self.store.get(TABLE_MESSAGE, key) is not None:
                self.put(TABLE_UIDL, key, value)
        start = b""
        while page := self.store.scan(TABLE_MESSAGE, b"", start, 1000):
            for key, value in page:
                if key not in found:
                    self.put(TABLE_ENVELOPE, key, self._structure(key, message_fields(value)))
            start = page[-1][0] + b"\0"

    def _structure(self, key: bytes, fields: tuple[int, int, int, int, int]) -> bytes:
        parser = Structure()
        offset, size = fields[4], fields[3]
        while offset < size:
            piece = message_read(self.store, _number(key[:8]), _number(key[8:]), offset, 1 << 18)
            if not piece:
                break
            parser.feed(piece)
            offset += len(piece)
        return parser.finish()

    def _usage(self, used: dict[int, list[int]]) -> None:
        kept = {}
        modseqs: dict[int, int] = {}
        for key, value in self.rows(TABLE_USAGE):
            try:
                kept[_number(key)] = usage_fields(value)
                modseqs[_number(key)] = usage_counter(value)[0]
            except ValueError:
                self.lost(f"the quota of account {_number(key)}")
        for account_id, account in self.accounts.items():
            size, messages, validity, modseq = used[account_id]
            modseq = max(modseq, modseqs.get(account_id, 0))
            lost = (0, 0, account.quota_bytes, 0, account.quota_messages)
            _, _, quota, version, quota_messages = kept.get(account_id, lost)
            head = (_USAGE_FORMAT, 1, validity, version + 1)
            usage = _USAGE.pack(*head, quota_messages, size, messages, quota, modseq, modseq)
            self.put(TABLE_USAGE, id_key(account_id), usage)
            self.put(TABLE_ACCOUNT, id_key(account_id), _account_encoder.encode(account))
            self.put(TABLE_ACCOUNT_NAME, account.address.encode(), id_key(account_id))
            self.kept("accounts")
            self.highest_id = max(self.highest_id, account_id)

    # --- the queue ---

    def _queue(self) -> None:
        """Queue entries are composed anew by the store's own operations, which make the schedule and the indexes."""
        self._flush()
        envelope: tuple[int, int, bytes] | None = None
        queue_id = 0
        recipients: list[tuple[int, int, bytes, int, int, int, int, bytes, bytes]] = []
        for key, value in self.rows(TABLE_QUEUE):
            number = _number(key[:8])
            if number != queue_id:
                self._one_queued(queue_id, envelope, recipients)
                queue_id, envelope, recipients = number, None, []
            try:
                if len(key) == 8:
                    envelope = queue_fields(value)
                else:
                    recipients.append(recipient_fields(number, _number(key[8:]), value))
            except (ValueError, StorageFailure):
                self.lost(f"queue entry {number}: a record makes no sense")
        self._one_queued(queue_id, envelope, recipients)

    def _one_queued(
        self,
        queue_id: int,
        envelope: tuple[int, int, bytes] | None,
        recipients: list[tuple[int, int, bytes, int, int, int, int, bytes, bytes]],
    ) -> None:
        if envelope is None:
            for row in recipients:
                self.lost(f"queue entry {queue_id}: its envelope, and so recipient {_address(row[8])}")
            return
        blob_id, live, raw_envelope = envelope
        if len(recipients) != live:
            self.lost(f"queue entry {queue_id}: {live - len(recipients)} of {live} recipients cannot be read")
        if blob_id not in self.sound:
            for row in recipients:
                self.lost(f"queue entry {queue_id}: its bytes, and so recipient {_address(row[8])}")
            return
        if not recipients:
            return
        # A reference of its own, until the others are known: the operation asks for a blob that has one.
        if not self.references[blob_id]:
            self.put(TABLE_BLOB, id_key(blob_id), _with_references(self.metas[blob_id], 1))
            self._flush()
        elif self.store.get(TABLE_BLOB, id_key(blob_id)) is None:
            self.put(TABLE_BLOB, id_key(blob_id), self.metas[blob_id])
            self._flush()
        unit = self.store.new_unit()
        unit.enqueue(queue_id, blob_id, raw_envelope)
        for _, n, hop, lane, _, _, due_ms, _, tail in recipients:
            unit.recipient(queue_id, n, hop, lane, int(RecipientState.ACTIVE), due_ms, tail)
        self._commit(unit)
        unit = self.store.new_unit()
        moved = 0
        for _, n, _, _, state, attempts, due_ms, reply, _ in recipients:
            if state in (RecipientState.DEFERRED, RecipientState.HELD):
                unit.move_recipient(queue_id, n, int(RecipientState.ACTIVE), state, attempts, due_ms, reply)
                moved += 1
            self.kept("recipients")
        if moved:
            self._commit(unit)
        self.references[blob_id] += 1
        self.highest_id = max(self.highest_id, queue_id)
        self.kept("queue entries")

    def _counters(self) -> None:
        """Counters that people or processes gave; those of the queue were made by its operations."""
        counted = 0
        for key, value in self.rows(TABLE_COUNTER):
            if key not in (b"active", b"deferred", b"held", b"id") and len(value) == 8:
                self.put(TABLE_COUNTER, key, value)
            elif key == b"id" and len(value) == 8:
                counted = int.from_bytes(value, "little")
        highest = max(counted, self.highest_id & (1 << ID_COUNTER_BITS) - 1)
        following = (highest // ID_BLOCK + 2) * ID_BLOCK
        self.put(TABLE_COUNTER, b"id", following.to_bytes(8, "little"))


def _is_meta(value: bytes) -> bool:
    if value[:1] == b"\1":
        return is_blob_of_one(value)
    try:
        blob_meta(value)
    except ValueError:
        return False
    return True


def _with_references(value: bytes, count: int) -> bytes:
    fields = list(_BLOB.unpack_from(value))
    fields[_REFS] = count
    return _BLOB.pack(*fields) + value[_BLOB.size :]


def _address(tail: bytes) -> str:
    try:
        return _tails.decode(tail).forward_path.decode(errors="replace")
    except (ValueError, RecursionError):
        return "(unknown)"
