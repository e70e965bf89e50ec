"""`fastmta store check`: whether every record agrees with every other, as of one moment.

It reads only. With the server running it is one long reader, so the file may grow meanwhile. Each finding is one line;
the first thousand are kept.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from fastmta._store import (
    ID_BLOCK,
    TABLE_ACCOUNT,
    TABLE_ACCOUNT_NAME,
    TABLE_BLOB,
    TABLE_CHANGE,
    TABLE_ENVELOPE,
    TABLE_HOP,
    TABLE_HOP_STATE,
    TABLE_MAILBOX,
    TABLE_MAILBOX_NAME,
    TABLE_MESSAGE,
    TABLE_PENDING,
    TABLE_QUEUE,
    TABLE_RETAINED,
    TABLE_SCHEDULE,
    TABLE_TRASH,
    TABLE_UIDL,
    TABLE_USAGE,
    BlobFields,
    Snapshot,
    Store,
    blob_meta,
    digest_of,
    hop_fields,
    mailbox_fields,
    message_fields,
    partition_of,
    queue_fields,
    recipient_fields,
    retained_fields,
    retained_totals,
    usage_counter,
    usage_fields,
)
from fastmta.model.envelope import RecipientState
from fastmta.model.errors import StorageFailure, StoreUnreadable
from fastmta.model.flags import DELETED, SEEN
from fastmta.store.check_queue import QueueIndexes
from fastmta.store.pace import Pace
from fastmta.store.pages import Pages, PageSnapshot
from fastmta.store.queue_records import FRESH, HELD_LANE, RECORD_INDEXED

if TYPE_CHECKING:
    from fastmta.store.mailstore import MailStore

FINDINGS: Final = 1000
PAGE: Final = 2000
TRASH_MAILBOX: Final = 2
RETAINED_OVERHEAD: Final = 1024  # ops_retained.pxi
TRASH_LET_GO: Final = 3
QUICK_BLOBS: Final = 1000  # the newest of each block of identifiers: a worker fills one at a time
QUICK_BLOCKS: Final = 16
QUICK_CHUNKS: Final = 16  # read at a time, a megabyte


class Report(msgspec.Struct):
    """What was looked at and what was found wrong; `problems` is empty for a sound store."""

    problems: list[str] = []
    blobs: int = 0
    bytes: int = 0
    messages: int = 0
    mailboxes: int = 0
    accounts: int = 0
    queued: int = 0
    recipients: int = 0
    trashed: int = 0
    pending: int = 0
    complete: bool = True  # False where time ran out first

    @property
    def is_sound(self) -> bool:
        return not self.problems


def check(store: "MailStore", report: Callable[[str], None]) -> int:
    """Checks an open store and tells each problem in one line; how many there are."""
    rest = Pace(store.raw.path).rest
    with Snapshot(store.raw) as snapshot:  # while it is held, the pages that the file's meta page leads to stay
        lost = check_pages(Path(store.raw.path), report, rest)
        problems = [] if lost else _Check(snapshot, True, rest).run().problems
    for problem in problems:
        report(problem)
    return lost + len(problems)


def check_pages(path: Path, report: Callable[[str], None], rest: Callable[[], None] | None = None) -> int:
    """Looks at every page of a store, which need not be one that can be opened; where some cannot be read, at all
    records that are left too. How many lines that gave: 0 for a file that is sound as far as its pages go.
    `rest` is called between pieces of the work.
    """
    try:
        pages = Pages(path)
    except StoreUnreadable as error:
        report(str(error))
        return 1
    try:
        lost = pages.walk(rest)
        if not lost:
            return 0
        pages.holes.clear()
        lost += _Check(PageSnapshot(pages), True, rest).run().problems
    finally:
        pages.close()
    for line in lost:
        report(line)
    return len(lost)


def check_path(path: str | Path, *, read_bytes: bool = True) -> Report:
    """Checks the store in directory `path`, which this process must not have open."""
    store = Store(str(path), create=False)
    try:
        return check_store(store, read_bytes=read_bytes)
    finally:
        store.close()


def check_store(store: Store, *, read_bytes: bool = True) -> Report:
    """Checks an open store; with `read_bytes` every chunk against its digest too."""
    with Snapshot(store) as snapshot:
        return _Check(snapshot, read_bytes).run()


def quick(store: "MailStore", seconds: float = 10.0, clock: Callable[[], float] = time.monotonic) -> Report:
    """What a worker looks at after one before it ended badly: the small tables, and the digests of the newest messages.

    It takes `seconds` at most, and is no proof: `check_store` reads everything. What can't be read is a finding.
    """
    with Snapshot(store.raw) as snapshot:
        check = _Quick(snapshot, clock, clock() + seconds)
        try:
            return check.run()
        except _TimeIsUp:
            check.report.complete = False
        except (StorageFailure, ValueError, IndexError) as error:
            check.found(f"the check met what it could not read: {error}")
        return check.report


def trashed_blobs(row: bytes) -> list[int]:
    """The blobs that a row of trash names, which is not a mailbox's."""
    return [_number(row[at : at + 8][::-1]) for at in range(0, len(row), 8)]


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


class _Check:
    def __init__(
        self, snapshot: Snapshot | PageSnapshot, read_bytes: bool, rest: Callable[[], None] | None = None
    ) -> None:
        self.snapshot = snapshot
        self.rest = rest
        self.read_bytes = read_bytes
        self.report = Report()
        self.hops: dict[bytes, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        self.scheduled: set[tuple[bytes, int, int, int, int]] = set()
        self.references: Counter[int] = Counter()
        self.dead_blobs: set[int] = set()
        self.dead_mailboxes: set[int] = set()

    def run(self) -> Report:
        for step in (
            self._trash,
            self._accounts,
            self._mailboxes,
            self._retained,
            self._queue,
            self._schedule,
            self._blobs,
        ):
            try:
                step()
            except (StorageFailure, ValueError, IndexError) as error:  # the other tables are looked at all the same
                self.found(f"{step.__name__[1:]}: the check met what it could not read: {error}")
        return self.report

    def rows(self, table: int, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        start = b""
        while page := self.snapshot.scan(table, prefix, start, PAGE):
            yield from page
            start = page[-1][0] + b"\0"
            if self.rest is not None:
                self.rest()

    def found(self, text: str) -> None:
        if len(self.report.problems) < FINDINGS:
            self.report.problems.append(text)

    def expect(self, what: str, kept: object, counted: object) -> None:
        if kept != counted:
            self.found(f"{what}: the record says {kept}, counted {counted}")

    # --- what is on its way out ---

    def _trash(self) -> None:
        for key, value in self.rows(TABLE_TRASH):
            self.report.trashed += 1
            if key[8] == TRASH_MAILBOX:
                self.dead_mailboxes.add(_number(key[9:]))
            else:
                blobs = trashed_blobs(value)
                if key[8] == TRASH_LET_GO:
                    self.references.update(blobs)
                else:
                    self.dead_blobs.update(blobs)

    # --- accounts and mailboxes ---

    def _accounts(self) -> None:
        names = {_number(value): key for key, value in self.rows(TABLE_ACCOUNT_NAME)}
        for key, _ in self.rows(TABLE_ACCOUNT):
            self.report.accounts += 1
            if names.pop(_number(key), None) is None:
                self.found(f"account {_number(key)} has no name")
        for number, name in names.items():
            self.found(f"the name {name!r} leads to account {number}, which is not there")

    def _mailboxes(self) -> None:
        used: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        highest: dict[int, int] = defaultdict(int)
        known = set()
        for mailbox_id, record in self._named_mailboxes():
            known.add(mailbox_id)
            account_id = mailbox_fields(record)[0]
            size, messages = self._one_mailbox(mailbox_id, record)
            used[account_id][0] += size
            used[account_id][1] += messages
            highest[account_id] = max(highest[account_id], mailbox_fields(record)[3])
        for key, value in self.rows(TABLE_USAGE):
            modseq, floor, is_settled = usage_counter(value)
            if floor > modseq or (is_settled and highest[_number(key)] > modseq):
                self.found(f"account {_number(key)}: its modseq {modseq} is below that of a mailbox, or its floor")
        usage = {_number(key): usage_fields(value) for key, value in self.rows(TABLE_USAGE)}
        for account_id in used.keys() | usage.keys():
            kept = usage.get(account_id, (0, 0, 0, 0, 0))
            self.expect(f"usage of account {account_id}", list(kept[:2]), used[account_id])
        for table, what in ((TABLE_MESSAGE, "message"), (TABLE_ENVELOPE, "structure"), (TABLE_CHANGE, "change")):
            for owner in self._owners(table):
                if owner not in known and owner not in self.dead_mailboxes:
                    self.found(f"a {what} belongs to mailbox {owner}, which is not there")
        for mailbox_id in self.dead_mailboxes:
            for _, record in self.rows(TABLE_MESSAGE, mailbox_id.to_bytes(8, "big")):
                self.references[message_fields(record)[0]] += 1

    def _retained(self) -> None:
        """Expunged messages that can be had back: each has its bytes, and their account knows how many they are."""
        kept: dict[int, tuple[int, int]] = {}
        counted: dict[int, list[int]] = defaultdict(lambda: [0, 0])
        for key, value in self.rows(TABLE_RETAINED):
            account_id = _number(key[:8])
            if len(key) == 8:
                kept[account_id] = retained_totals(value)
                continue
            _, blob_id, _, _, _, _, size, prefix = retained_fields(value)
            self.references[blob_id] += 1
            counted[account_id][0] += 1
            counted[account_id][1] += size + RETAINED_OVERHEAD
            blob = self.snapshot.get(TABLE_BLOB, blob_id.to_bytes(8, "big"))
            if blob is None:
                self.found(f"the bytes of an expunged message of account {account_id} are not there")
            elif blob_meta(blob).size + len(prefix) != size:
                self.found(f"an expunged message of account {account_id} says {size} bytes, its bytes are another size")
        for account_id in kept.keys() | counted.keys():
            self.expect(f"what account {account_id} retains", list(kept.get(account_id, (0, 0))), counted[account_id])

    def _named_mailboxes(self) -> Iterator[tuple[int, bytes]]:
        """Every mailbox's record, each looked for under its name."""
        names = {int.from_bytes(value, "little"): key for key, value in self.rows(TABLE_MAILBOX_NAME)}
        for key, record in self.rows(TABLE_MAILBOX):
            mailbox_id = _number(key)
            fields = mailbox_fields(record)
            if names.pop(mailbox_id, None) != fields[0].to_bytes(8, "big") + fields[10]:
                self.found(f"mailbox {mailbox_id} is not found under its name {fields[10]!r}")
            self.report.mailboxes += 1
            yield mailbox_id, record
        for number, name in names.items():
            self.found(f"the name {name!r} leads to mailbox {number}, which is not there")

    def _owners(self, table: int) -> Iterator[int]:
        """The mailboxes that have a row in a table, each by one seek."""
        start = b""
        while page := self.snapshot.scan(table, b"", start, 1):
            owner = page[0][0][:8]
            yield _number(owner)
            start = (_number(owner) + 1).to_bytes(8, "big")

    def _one_mailbox(self, mailbox_id: int, record: bytes) -> tuple[int, int]:
        _, _, uid_next, modseq, floor, exists, unseen, recent_uid, size, deleted, name, _ = mailbox_fields(record)
        what = f"mailbox {mailbox_id} ({name.decode(errors='replace')})"
        prefix = mailbox_id.to_bytes(8, "big")
        counted = [0, 0, 0, 0]
        modseqs = {}
        uid = 0
        for key, value in self.rows(TABLE_MESSAGE, prefix):
            uid = _number(key[8:])
            blob_id, flags, message_modseq, message_size, prefix_length = message_fields(value)
            modseqs[uid] = message_modseq
            counted[0] += 1
            counted[1] += not flags & SEEN
            counted[2] += bool(flags & DELETED)
            counted[3] += message_size
            self.references[blob_id] += 1
            blob = self.snapshot.get(TABLE_BLOB, blob_id.to_bytes(8, "big"))
            if blob is None:
                self.found(f"{what}: the bytes of uid {uid} are not there")
            elif blob_meta(blob).size + prefix_length != message_size:
                self.found(f"{what}: uid {uid} says {message_size} bytes, its blob and prefix are another size")
        self.expect(f"{what}: exists, unseen, deleted, size", [exists, unseen, deleted, size], counted)
        if uid >= uid_next or recent_uid > uid_next:
            self.found(f"{what}: uid_next {uid_next} is not above uid {uid} and recent {recent_uid}")
        if modseqs and max(modseqs.values()) > modseq:
            self.found(f"{what}: a message's modseq is above the mailbox's {modseq}")
        self._changes(what, prefix, modseqs, floor)
        for key, _ in self.rows(TABLE_UIDL, prefix):
            if _number(key[8:]) not in modseqs:
                self.found(f"{what}: a name of POP3's without its message, uid {_number(key[8:])}")
        for key, _ in self.rows(TABLE_ENVELOPE, prefix):
            if _number(key[8:]) not in modseqs:
                self.found(f"{what}: a structure without its message, uid {_number(key[8:])}")
        self.report.messages += counted[0]
        return counted[3], counted[0]

    def _changes(self, what: str, prefix: bytes, modseqs: dict[int, int], floor: int) -> None:
        changed = {}
        for key, value in self.rows(TABLE_CHANGE, prefix):
            if len(value) not in ((0, 16) if key[8] else (0,)):
                self.found(f"{what}: a change row has {len(value)} bytes")
            modseq, uid = _number(key[9:17]), _number(key[17:])
            if key[8] == 0:
                if uid in changed:
                    self.found(f"{what}: two change rows for uid {uid}")
                changed[uid] = modseq
            elif uid in modseqs:
                self.found(f"{what}: uid {uid} is there and expunged")
            elif modseq < floor:
                self.found(f"{what}: an expunged row below floor_modseq {floor}")
        if changed != modseqs:
            self.found(f"{what}: the change rows are not the messages' modseqs")

    # --- the queue ---

    def _queue(self) -> None:
        indexes = QueueIndexes(self.snapshot, self.found)
        expected: tuple[int, int] | None = None  # queue id, live
        live = 0
        for key, value in self.rows(TABLE_QUEUE):
            queue_id = _number(key[:8])
            if len(key) == 8:
                if expected is not None:
                    self.expect(f"live recipients of message {expected[0]}", expected[1], live)
                try:
                    blob_id, stated, envelope = queue_fields(value)
                except ValueError:
                    self.found(f"the record of message {queue_id} in the queue makes no sense")
                    expected, live = None, 0
                    continue
                self.references[blob_id] += 1
                self.report.queued += 1
                expected, live = (queue_id, stated), 0
                indexes.message(queue_id, value, envelope)
                continue
            live += 1
            self.report.recipients += 1
            if expected is None or expected[0] != queue_id:
                self.found(f"a recipient of message {queue_id}, which is not there")
            n = _number(key[8:])
            try:
                _, n, hop, lane, state, _, due_ms, reply, tail = recipient_fields(queue_id, n, value)
            except ValueError:
                self.found(f"the record of recipient {queue_id}/{n} makes no sense")
                continue
            if not RecipientState.ACTIVE <= state <= RecipientState.HELD:
                self.found(f"recipient {queue_id}/{n} has state {state}")
                continue
            indexes.recipient(key, value, state, tail, reply)
            self.hops[hop][state - 1] += 1
            if value[RECORD_INDEXED] == FRESH:
                self.hops[hop][3] += 1
            if state != RecipientState.HELD:
                self.scheduled.add((hop, lane, due_ms, queue_id, n))
            elif value[RECORD_INDEXED] >= FRESH:
                self.scheduled.add((hop, lane + HELD_LANE, due_ms, queue_id, n))
        if expected is not None:
            self.expect(f"live recipients of message {expected[0]}", expected[1], live)
        indexes.compare(self.rows)

    def _schedule(self) -> None:
        earliest: dict[bytes, int] = {}
        for key, _ in self.rows(TABLE_SCHEDULE):
            hop = key[1 : 1 + key[0]]
            rest = key[1 + key[0] :]
            row = (hop, rest[0], _number(rest[1:9]), _number(rest[9:17]), _number(rest[17:21]))
            if row in self.scheduled:
                self.scheduled.remove(row)
            else:
                self.found(f"the schedule names {row}, which is no recipient")
            if row[1] < HELD_LANE:
                earliest[hop] = min(earliest.get(hop, row[2]), row[2])
        for row in self.scheduled:
            self.found(f"recipient {row} is not in the schedule")
        index = {(key[0], _number(key[1:9]), key[9:]) for key, _ in self.rows(TABLE_HOP)}
        expected = {(partition_of(hop), due_ms, hop) for hop, due_ms in earliest.items()}
        for entry in index ^ expected:
            self.found(f"the index of hops and the schedule differ at {entry}")
        kept = {key: hop_fields(value) for key, value in self.rows(TABLE_HOP_STATE)}
        for hop in kept.keys() | self.hops.keys():
            active, deferred, held, fresh = self.hops[hop]
            counted = (active, deferred, held, earliest.get(hop), fresh)
            self.expect(f"hop {hop!r}", kept.get(hop), counted)

    # --- bytes ---

    def _blobs(self) -> None:
        pending = {_number(key) for key, _ in self.rows(TABLE_PENDING)}
        self.report.pending = len(pending)
        blob_id = 0
        meta: BlobFields | None = None
        chunks = size = digest = 0
        for key, value in self.rows(TABLE_BLOB):
            if len(key) == 8:
                if meta is not None:
                    self._one_blob(blob_id, meta, chunks, size, digest)
                blob_id, meta = _number(key), blob_meta(value)
                chunks = size = digest = 0
                continue
            if meta is None or _number(key[:8]) != blob_id:
                if meta is not None:
                    self._one_blob(blob_id, meta, chunks, size, digest)
                blob_id, meta = _number(key[:8]), None
                if blob_id not in pending and blob_id not in self.dead_blobs:
                    self.found(f"chunks of blob {blob_id}, which is neither a message nor on its way")
                continue
            if _number(key[8:]) != chunks:
                self.found(f"blob {blob_id} lacks chunk {chunks}")
            chunks += 1
            size += len(value)
            if self.read_bytes:
                digest = digest_of(value, digest)
        if meta is not None:
            self._one_blob(blob_id, meta, chunks, size, digest)
        for lost in self.references:
            self.found(f"blob {lost} is referred to, and is not there")

    def _one_blob(self, blob_id: int, meta: BlobFields, chunks: int, size: int, digest: int) -> None:
        self.report.blobs += 1
        self.report.bytes += meta.size
        counted = self.references.pop(blob_id, 0)
        self.expect(f"references of blob {blob_id}", meta.refs, counted)
        if meta.refs == 0:
            if blob_id not in self.dead_blobs:
                self.found(f"blob {blob_id} has no references and is not in the trash")
            return  # being reaped: some of its chunks may have gone
        self.expect(f"chunks of blob {blob_id}", meta.chunks, chunks)
        self.expect(f"size of blob {blob_id}", meta.stored_size, size + len(meta.tail))
        if self.read_bytes and (digest_of(meta.rest, digest) if meta.rest else digest) != meta.digest:
            self.found(f"the bytes of blob {blob_id} are damaged")


class _TimeIsUp(Exception):
    pass


class _Quick(_Check):
    def __init__(self, snapshot: Snapshot, clock: Callable[[], float], deadline: float) -> None:
        super().__init__(snapshot, read_bytes=True)
        self.moment = snapshot
        self.clock = clock
        self.deadline = deadline

    def run(self) -> Report:
        self._accounts()
        for _ in self._named_mailboxes():
            pass
        self._hops()
        for blob_id, record in self._newest():
            self._newest_blob(blob_id, record)
        return self.report

    def rows(self, table: int, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        for number, row in enumerate(super().rows(table, prefix)):
            if number % PAGE == 0:
                self._in_time()
            yield row

    def _in_time(self) -> None:
        if self.clock() >= self.deadline:
            raise _TimeIsUp

    def _hops(self) -> None:
        """How an owner finds its work: without its place in the index a hop would be forgotten."""
        index = {(key[0], _number(key[1:9]), key[9:]) for key, _ in self.rows(TABLE_HOP)}
        for hop, record in self.rows(TABLE_HOP_STATE):
            due_ms = hop_fields(record)[3]
            if due_ms is not None and (partition_of(hop), due_ms, hop) not in index:
                self.found(f"hop {hop!r} is due at {due_ms} and not in the index")

    def _newest(self) -> Iterator[tuple[int, bytes]]:
        """The newest blobs of the blocks of identifiers that were given out last."""
        end = 2**63 - 1
        for _ in range(QUICK_BLOCKS):
            found = self.moment.blobs_before(end, QUICK_BLOBS)
            if not found:
                return
            start = found[0][0] // ID_BLOCK * ID_BLOCK
            yield from (each for each in found if each[0] >= start)
            end = start

    def _newest_blob(self, blob_id: int, record: bytes) -> None:
        self._in_time()
        meta = blob_meta(record)
        self.references[blob_id] = meta.refs  # who refers to it is the full check's matter
        prefix = start = blob_id.to_bytes(8, "big")
        chunks = size = digest = 0
        while page := self.snapshot.scan(TABLE_BLOB, prefix, start, QUICK_CHUNKS):
            for key, value in page:
                if len(key) > 8:
                    chunks += 1
                    size += len(value)
                    digest = digest_of(value, digest)
            start = page[-1][0] + b"\0"
        if meta.refs:
            self._one_blob(blob_id, meta, chunks, size, digest)
