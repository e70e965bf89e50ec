"""`fastmta store upgrade`: a store as an earlier program wrote it becomes one of this program's, in place.

There is one step for each level (docs/store.md). One from a level that this program does not serve needs the store
alone; one between levels that are served is done by `finish`, beside the server, when all programs that know only the
level before have gone. A step goes through the records in slices of a transaction each; every
record has a format byte, so what is done already is known by itself, and an upgrade that was killed goes on where it
was. While it is under way `meta` holds both levels, and no program opens the store for anything else.
"""

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from fastmta._store import (
    CHUNK_BYTES,
    OLDEST_SERVED_LEVEL,
    STORE_LEVEL,
    TABLE_BLOB,
    TABLE_MESSAGE,
    TABLE_META,
    TABLE_PENDING,
    TABLE_QUEUE,
    TABLE_USAGE,
    Store,
    digest_of,
    environment_number,
    mailbox_fields,
    mailbox_list,
    queue_counts,
)
from fastmta._unit import Unit
from fastmta.model.errors import StorageFailure, StoreUnreadable
from fastmta.store.guard import hold_alone
from fastmta.store.queue_records import FRESH, INDEXED_BY_TENANT, RECORD_COUNTED, RECORD_INDEXED
from fastmta.store.queue_walk import FINISHED_KEY

LEVEL_KEY: Final = b"schema"
ENVIRONMENT_KEY: Final = b"environment"
SLICE_BYTES: Final = 1 << 20  # rewritten by one transaction, as far as single messages allow
PAGE: Final = 500  # records read at a time
INDEXED_AT_ONCE: Final = 100  # recipients of one unit, each some ten rows
_BOX_MODSEQ: Final = 3  # of mailbox_fields
PIECE_CHUNKS: Final = 4  # of the first format, 61,424 bytes each

Progress = Callable[[str, int, int], None]  # what, done, in all


class Plan(msgspec.Struct):
    """What an upgrade has to do."""

    level: int
    target: int
    records: dict[str, int]

    @property
    def is_needed(self) -> bool:
        return self.level != self.target


def level_of(store: Store, known: int = STORE_LEVEL) -> int:
    """The level from which an upgrade starts, or has started. StoreUnreadable where no step leads from there."""
    found = store.get(TABLE_META, LEVEL_KEY) or b""
    first = found.split(b">")[0]
    if not first.isdigit():
        raise StoreUnreadable(f"the store has a format that this program does not know: {found!r}")
    if int(first) > known:
        raise StoreUnreadable(
            f"the store was written by a later FastMTA: its format is {int(first)}, this program knows {known}"
        )
    return int(first)


def newest_level() -> int:
    """The level that this program's stores are made at."""
    return STORE_LEVEL


def plan(path: Path) -> Plan:
    """What `upgrade` would do to the store in `path`; changes nothing."""
    with _opened(path) as store:
        return _plan(store)


def upgrade(path: Path, progress: Progress | None = None) -> Plan:
    """Brings the store in `path`, which nobody may have open, to this program's level; what it did."""
    with _opened(path) as store:
        found = _plan(store)
        for level in range(found.level, found.target):
            marked = b"%d>%d" % (level, level + 1)
            _write_level(store, marked)
            STEPS[level](store).run(progress if progress is not None else _silent)
            _write_level(store, b"%d" % (level + 1))
        return found


def finish(path: Path, progress: Progress | None = None, *, level: int = STORE_LEVEL) -> Plan:
    """Has every program write the records of the store in `path` at `level` from now on, and rewrites the older ones.

    Beside servers that have the store open, as long as all of them know the level; StorageFailure where one does not.
    What was killed is taken up by the next call.
    """
    store = Store(str(path), create=False, gives_way=True, level=level)
    try:
        before = level_of(store, level)
        store.raise_level()
        records: dict[str, int] = {}
        for step in _steps(_finished(store), level):
            for what, count in step(store).run(progress if progress is not None else _silent).items():
                records[what] = records.get(what, 0) + count
        if _finished(store) != level:
            unit = store.new_unit()
            unit.put(TABLE_META, FINISHED_KEY, b"%d" % level)
            _commit(store, unit)
        return Plan(before, level, records)
    finally:
        store.close()


def plan_finish(path: Path, *, level: int = STORE_LEVEL) -> Plan:
    """What `finish` would do to the store in `path`, which servers may have open; changes nothing."""
    store = Store(str(path), create=False, gives_way=True, level=level)
    try:
        records: dict[str, int] = {}
        for step in _steps(_finished(store), level):
            for what, count in step(store).count().items():
                records[what] = records.get(what, 0) + count
        return Plan(level_of(store, level), level, records)
    finally:
        store.close()


def _finished(store: Store) -> int:
    """The level whose records have all been rewritten."""
    return max(OLDEST_SERVED_LEVEL, int(store.get(TABLE_META, FINISHED_KEY) or b"0"))


def _steps(finished: int, level: int) -> list[type["SharedStep"]]:
    """What leads from one level to another; a step that does so from several of them, once."""
    return list(dict.fromkeys(step for each in range(finished, level) for step in SHARED_STEPS[each]))


def _silent(what: str, done: int, total: int) -> None:
    pass


class _opened:
    """The store of a directory, alone, with records of any format."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Store:
        self._guard = hold_alone(self._path)
        try:
            self._store = Store(str(self._path), create=False, any_format=True)
        except BaseException:
            os.close(self._guard)
            raise
        return self._store

    def __exit__(self, *exc: object) -> None:
        self._store.close()
        os.close(self._guard)


def _plan(store: Store) -> Plan:
    level = level_of(store)
    records: dict[str, int] = {}
    for step in range(level, OLDEST_SERVED_LEVEL):
        for what, count in STEPS[step](store).count().items():
            records[what] = records.get(what, 0) + count
    return Plan(level, max(level, OLDEST_SERVED_LEVEL), records)


def _write_level(store: Store, level: bytes) -> None:
    if store.get(TABLE_META, LEVEL_KEY) != level:
        unit = store.new_unit()
        unit.put(TABLE_META, LEVEL_KEY, level)
        _commit(store, unit)


def _commit(store: Store, unit: Unit) -> None:
    _require(store.commit_sync(unit))


def _require(unit: Unit) -> None:
    failure = unit.failure
    if failure == "full":
        raise StorageFailure("the disk is full: make room and run fastmta store upgrade again")
    if failure:
        raise StorageFailure(f"the store does not take what was rewritten: {failure}")


# --- 1 -> 2 ---

_OLD_BLOB: Final = struct.Struct("<BBHIIIQQ")  # format, kept, length of last bytes, bits, refs, chunks, size, digest
_NEW_BLOB: Final = struct.Struct("<BBBBIIIQQQHHI")
_OLD_MESSAGE: Final = struct.Struct("<BBhIIIQQqQ")
_NEW_MESSAGE: Final = struct.Struct("<BBhIIIQQqQq")
_CHUNKS: Final = 5  # of the blob's fields
_DATE: Final = 8  # of the message's
_OLD_CHUNK: Final = 61_424
_TAIL: Final = 1024


OLD_MESSAGE_BYTES: Final = _OLD_MESSAGE.size


def is_blob_of_one(value: bytes) -> bool:
    """Whether this is a body's record in the first format."""
    if len(value) < _OLD_BLOB.size or value[0] != 1:
        return False
    fields: tuple[int, ...] = _OLD_BLOB.unpack_from(value)
    return len(value) == _OLD_BLOB.size + fields[2] <= _OLD_BLOB.size + fields[6]


def message_from_one(value: bytes) -> bytes:
    """A message's record in the second format."""
    fields = _OLD_MESSAGE.unpack_from(value)
    return _NEW_MESSAGE.pack(2, *fields[1:], fields[_DATE]) + value[_OLD_MESSAGE.size :]


def body_from_one(value: bytes, chunks: Sequence[bytes | None]) -> tuple[bytes, dict[int, bytes]]:
    """(record, chunks by number) of a body in the second format.

    What was not there, or not what had been received, is so afterwards: chunks over a lost one are left out, and a
    digest that was wrong stays wrong.
    """
    _, kept, tail_length, bits, refs, count, size, digest = _OLD_BLOB.unpack_from(value)
    tail = value[_OLD_BLOB.size :]
    in_chunks = size - tail_length
    data = bytearray(size)
    computed = 0
    lost = []
    for n in range(count):
        chunk = chunks[n] if n < len(chunks) else None
        start, end = n * _OLD_CHUNK, min((n + 1) * _OLD_CHUNK, in_chunks)
        if chunk is None or len(chunk) != end - start:
            lost.append((start, end))
            continue
        data[start:end] = chunk
        computed = digest_of(chunk, computed)
    data[in_chunks:] = tail
    computed = digest_of(tail, computed) if tail else computed
    last = size % CHUNK_BYTES if size % CHUNK_BYTES <= _TAIL else 0
    fresh = 0
    pieces = {}
    for number, at in enumerate(range(0, size - last, CHUNK_BYTES)):
        piece = bytes(data[at : min(at + CHUNK_BYTES, size - last)])
        fresh = digest_of(piece, fresh)
        if not any(at < end and start < at + len(piece) for start, end in lost):
            pieces[number] = piece
    rest = bytes(data[size - last :])
    fresh = digest_of(rest, fresh) if rest else fresh
    if computed != digest:
        fresh ^= 1
    new_count = -(-(size - last) // CHUNK_BYTES)
    return _NEW_BLOB.pack(2, kept, 0, 0, bits, refs, new_count, size, size, fresh, 0, last, 0) + rest, pieces


class FromOne:
    """1 -> 2: bodies in chunks of a page instead of fifteen, with room for a head and cuts; messages with the moment at
    which they were saved, which the first format did not keep, so the internal date stands in; a number for the store.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.unit: Unit | None = None
        self.weight = 0

    def count(self) -> dict[str, int]:
        """What is left to do, by kind."""
        messages = sum(1 for _, value in self.rows(TABLE_MESSAGE) if value[:1] == b"\1")
        return {"messages": messages, "bodies": sum(1 for _ in self._old_bodies())}

    def run(self, progress: Progress) -> None:
        """Does the step, or the rest of it."""
        self._forget_pending()
        total = sum(self.count().values())
        done = 0
        for key, value in self.rows(TABLE_MESSAGE):
            if value[:1] == b"\1":
                self.put(TABLE_MESSAGE, key, message_from_one(value))
                done += 1
                if done % PAGE == 0:
                    progress("messages", done, total)
        self.flush()
        for key, value in self._old_bodies():
            self._body(key, value)
            done += 1
            if done % PAGE == 0:
                progress("bodies", done, total)
        if self.store.get(TABLE_META, ENVIRONMENT_KEY) is None:
            self.put(TABLE_META, ENVIRONMENT_KEY, environment_number())
        self.flush()
        progress("upgrade", total, total)

    # --- reading and writing in slices ---

    def rows(self, table: int, start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """A table's records, each page of them as it is then."""
        while page := self.store.scan(table, b"", start, PAGE if table != TABLE_BLOB else 2 * PIECE_CHUNKS):
            yield from page
            start = page[-1][0] + b"\0"

    def put(self, table: int, key: bytes, value: bytes) -> None:
        """One record, in the transaction of this slice."""
        if self.unit is None:
            self.unit = self.store.new_unit()
        self.unit.put(table, key, value)
        self.weight += len(value)
        if self.weight >= SLICE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Commits the slice."""
        unit, self.unit = self.unit, None
        self.weight = 0
        if unit is not None:
            _commit(self.store, unit)

    # --- the step ---

    def _forget_pending(self) -> None:
        """Chunks that were never a message: their writers are dead, since the store is open here alone."""
        for key, _ in self.store.scan(TABLE_PENDING, b"", b"", 1_000_000):
            unit = self.store.new_unit()
            for chunk, _ in self.store.scan(TABLE_BLOB, key, b"", 1_000_000):
                unit.delete(TABLE_BLOB, chunk)
            unit.delete(TABLE_PENDING, key)
            _commit(self.store, unit)

    def _old_bodies(self) -> Iterator[tuple[bytes, bytes]]:
        """The records of bodies in the first format, by one seek each."""
        start = b""
        while page := self.store.scan(TABLE_BLOB, b"", start, 1):
            key, value = page[0]
            number = int.from_bytes(key[:8], "big")
            if len(key) == 8 and value[:1] == b"\1":
                yield key, value
            start = (number + 1).to_bytes(8, "big")

    def _body(self, key: bytes, value: bytes) -> None:
        """One body, read whole and written anew in the transactions that its size takes.

        Chunks under numbers that the old ones do not have come first. Those in the place of old ones come with the
        record, all at once: until then the old record and the old chunks are what counts, and the work is done again.
        """
        count = _OLD_BLOB.unpack_from(value)[_CHUNKS]
        chunks = [self.store.get(TABLE_BLOB, key + n.to_bytes(4, "big")) for n in range(count)]
        record, pieces = body_from_one(value, chunks)
        for n, piece in pieces.items():
            if n >= count:
                self.put(TABLE_BLOB, key + n.to_bytes(4, "big"), piece)
        unit = self.unit = self.unit if self.unit is not None else self.store.new_unit()
        for n in range(count):
            if n in pieces:
                unit.put(TABLE_BLOB, key + n.to_bytes(4, "big"), pieces[n])
                self.weight += len(pieces[n])
            else:
                unit.delete(TABLE_BLOB, key + n.to_bytes(4, "big"))
        self.put(TABLE_BLOB, key, record)


STEPS: Final = {1: FromOne}


# --- between levels that are served ---


class SharedStep:
    """Records of one table from a level to the next, while servers write others, and these too, at the next already."""

    table: int
    name: str

    def __init__(self, store: Store) -> None:
        self.store = store

    def rewritten(self, key: bytes, value: bytes) -> bytes | None:
        """The record at the next level; None where it is there already."""
        raise NotImplementedError

    def count(self) -> dict[str, int]:
        """What is left to do, by kind."""
        return {self.name: sum(self.rewritten(key, value) is not None for key, value in self.rows())}

    def rows(self) -> Iterator[tuple[bytes, bytes]]:
        """The table's records, each page of them as it is then."""
        start = b""
        while page := self.store.scan(self.table, b"", start, PAGE):
            yield from page
            start = page[-1][0] + b"\0"

    def run(self, progress: Progress) -> dict[str, int]:
        """Rewrites what is left; how many, by kind."""
        done, start = 0, b""
        while page := self.store.scan(self.table, b"", start, PAGE):
            for key, value in page:
                done += self._rewrite(key, value)
            start = page[-1][0] + b"\0"
            progress(self.name, done, done)
        return {self.name: done}

    def _rewrite(self, key: bytes, value: bytes | None) -> bool:
        """One record, unless somebody changes it first: then it is looked at again."""
        while value is not None and (after := self.rewritten(key, value)) is not None:
            unit = self.store.new_unit()
            unit.guard(self.table, key, value)
            unit.put(self.table, key, after)
            if self.store.commit_sync(unit).failure != "changed":
                _require(unit)
                return True
            value = self.store.get(self.table, key)
        return False


class QueueStep(SharedStep):
    """2 -> 3: everyone in the queue is in all of its indexes and counts; 3 -> 4: in those by tenant too. Each record of
    a recipient says whether he is.
    """

    table = TABLE_QUEUE
    name = "recipients"

    def count(self) -> dict[str, int]:
        return {self.name: sum(1 for _ in self._left())}

    def run(self, progress: Progress) -> dict[str, int]:
        total = sum(queue_counts(self.store)[:3])
        done = 0
        unit = self.store.new_unit()
        for queue_id, n in self._left():
            unit.index_recipient(queue_id, n)
            done += 1
            if done % INDEXED_AT_ONCE == 0:
                _commit(self.store, unit)
                unit = self.store.new_unit()
                progress(self.name, done, max(done, total))
        _commit(self.store, unit)
        progress(self.name, done, done)
        return {self.name: done}

    def _left(self) -> Iterator[tuple[int, int]]:
        """Those who are not, or whose message is not counted."""
        is_counted = False
        for key, value in self.rows():
            if len(key) == 8:
                is_counted = bool(value[RECORD_COUNTED])
            elif not is_counted or value[RECORD_INDEXED] not in (FRESH, INDEXED_BY_TENANT):
                yield int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big")


_USAGE: Final = struct.Struct("<BB2xIIIQQQQQ")  # UsageRecord
_USAGE_BEFORE: Final = 40
_MODSEQ: Final = 8  # which of its fields


class AccountStep(SharedStep):
    """3 -> 4: an account's record has a modseq that none of its mailboxes is above. A change in one of them writes that
    record too, so what the mailboxes say is right while it is as it was.
    """

    table = TABLE_USAGE
    name = "accounts"

    def rewritten(self, key: bytes, value: bytes) -> bytes | None:
        if len(value) > _USAGE_BEFORE and value[1]:
            return None
        fields = list(_USAGE.unpack(value.ljust(_USAGE.size, b"\0")))
        account_id = int.from_bytes(key, "big")
        boxes = (mailbox_fields(record)[_BOX_MODSEQ] for _, record in mailbox_list(self.store, account_id))
        fields[:2] = [2, 1]
        fields[_MODSEQ] = fields[_MODSEQ + 1] = max(fields[_MODSEQ], *boxes, 0)
        return _USAGE.pack(*fields)


#: By the level that they lead from: those from OLDEST_SERVED_LEVEL on.
SHARED_STEPS: Final[dict[int, tuple[type[SharedStep], ...]]] = {2: (QueueStep,), 3: (QueueStep, AccountStep)}
