"""An account's text index: one file of segments (`_grams.pyx`), one behind the other, each of some messages of a
mailbox.

Whoever holds the account's lock appends to it or replaces it; anybody reads at any time. A segment is read where all of
it is there, and every part of it is checked by its sum. A damaged file is thrown away, and what a kill has cut off is
written over: the index is made of what the store has, and never a source of truth. So nothing is brought to the disk
at once either: what a power cut leaves is found out by its sums.

Invariants: the segments of a mailbox speak of all of its messages from the first uid to `until`, without a gap; a later
segment stands for those that lie within its range. Nothing here knows a loop: all of it may be called on a thread.
"""

import os
import struct
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from fastmta import _grams
from fastmta._grams import Segment
from fastmta.model.errors import FastMTAError
from fastmta.model.found import Found, Word
from fastmta.model.limits import INDEX_DEAD_BYTES, INDEX_MERGED_DOCS, INDEX_MERGED_PAIRS, INDEX_NAMED

FOLDER: Final = "index"  # in the data directory
SUFFIX: Final = ".fts"
PART: Final = ".part"  # behind the name, of a file that is being written anew
LOCKS: Final = "lock"
_HEAD: Final = struct.Struct("<8sQQII")  # magic, the store's number, the account, a sum of these, nothing
_MAGIC: Final = b"FMTAFTS2"
MERGED: Final = 32  # segments that one is made of, beside the new one
_WORD: Final = 3  # characters of a word that is found exactly


class IndexDamaged(FastMTAError):
    """What the file holds is not what was written."""


def path_of(folder: Path, account_id: int) -> Path:
    """Where an account's index is."""
    return folder / f"{account_id:x}{SUFFIX}"


def account_of(name: str) -> int | None:
    """The account that a file of the folder belongs to; None for another file."""
    stem, dot, rest = name.partition(".")
    if not dot or f".{rest}" not in (SUFFIX, SUFFIX + PART):
        return None
    try:
        number = int(stem, 16)
    except ValueError:
        return None
    return number if f"{number:x}" == stem and 0 <= number < 2**64 else None


def discard(folder: Path, account_id: int) -> bool:
    """Removes an account's index; whether there was one."""
    path = path_of(folder, account_id)
    found = False
    for each in (path, path.with_name(path.name + PART)):
        try:
            each.unlink()
            found = True
        except FileNotFoundError:
            pass
    return found


class IndexFile:
    """One account's index, as far as it has been read; `refresh` reads on."""

    def __init__(self, folder: Path, account_id: int, store_number: int) -> None:
        """`store_number`: of the store that it is made of; a file of another one counts as none."""
        self.path = path_of(folder, account_id)
        self.account_id = account_id
        self._head = _head(account_id, store_number)
        self._fd = -1
        self._inode = 0
        self._end = 0  # of the segments that were read
        self._size = 0  # of the file at that time
        self._is_ours = False  # made of this store, and whole at its beginning
        self._segments: dict[int, list[Segment]] = {}
        self._skipped: dict[int, array[int]] = {}

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._inode, self._end, self._size = -1, 0, 0, 0
        self._is_ours = False
        self._segments.clear()
        self._skipped.clear()

    # --- reading ---

    def exists(self) -> bool:
        return self._inode != 0 or self.path.exists()

    def refresh(self) -> None:
        """Reads what has been written since. IndexDamaged, OSError."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            self.close()
            return
        if found.st_ino != self._inode or found.st_size < self._end:
            self.close()
            self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            found = os.fstat(self._fd)
            self._inode = found.st_ino
            self._end = _HEAD.size
            self._is_ours = os.pread(self._fd, _HEAD.size, 0) == self._head
        if self._is_ours and found.st_size != self._size:
            self._read_on(found.st_size)

    def _read_on(self, size: int) -> None:
        self._size = size
        while self._end + _grams.HEAD_BYTES <= size:
            segment = _grams.segment_of(os.pread(self._fd, _grams.HEAD_BYTES, self._end), self._end)
            if segment is None or self._end + segment.length > size:
                return  # cut off, or not all there yet
            self._take(segment)
            self._end += segment.length

    def _take(self, segment: Segment) -> None:
        mine = self._segments.setdefault(segment.mailbox, [])
        while mine and mine[-1].first >= segment.first:
            mine.pop()
        if segment.first != self.until(segment.mailbox) + 1:
            raise IndexDamaged(f"{self.path}: a segment is missing")
        mine.append(segment)
        skipped = self._skipped.setdefault(segment.mailbox, array("I"))
        while skipped and skipped[-1] >= segment.first:
            skipped.pop()
        if segment.skipped:
            table = os.pread(self._fd, segment.table_bytes, segment.offset + _grams.HEAD_BYTES)
            left_out = _grams.left_out(segment, table)
            if left_out is None:
                raise IndexDamaged(f"{self.path}: a segment's table is damaged")
            skipped.extend(left_out)

    def until(self, mailbox_id: int) -> int:
        """The last uid up to which the mailbox is in the index, 0 where nothing of it is. As of the last `refresh`."""
        mine = self._segments.get(mailbox_id)
        return mine[-1].last if mine else 0

    def find(self, mailbox_id: int, words: Sequence[Word]) -> Found | None:
        """Which messages may have these words. IndexDamaged, OSError."""
        self.refresh()
        mine = self._segments.get(mailbox_id)
        if not mine:
            return None
        found: list[array[int] | None] = []
        left = INDEX_NAMED
        for needle, with_header in words:
            uids, damaged = _grams.find(self._fd, mine, needle, with_header)
            if damaged >= 0:
                raise IndexDamaged(f"{self.path}: the segment at {mine[damaged].offset} is damaged")
            left -= len(uids)
            found.append(uids if left >= 0 else None)
        exact = [len(needle) == _WORD and needle.isascii() for needle, _ in words]
        return Found(mine[-1].last, self._skipped[mailbox_id][:], found, exact)

    @property
    def mailboxes(self) -> list[int]:
        """Mailboxes that are in it."""
        return list(self._segments)

    @property
    def size_bytes(self) -> int:
        return self._size

    def tail(self, mailbox_id: int, pairs: int, docs: int) -> list[Segment]:
        """The last segments of a mailbox that one with so many pairs is to be merged with, so that there are few."""
        out: list[Segment] = []
        for each in reversed(self._segments.get(mailbox_id, ())):
            if (
                each.pairs > 2 * pairs
                or pairs + each.pairs > INDEX_MERGED_PAIRS
                or docs + each.docs > INDEX_MERGED_DOCS
            ):
                break
            out.insert(0, each)
            pairs += each.pairs
            docs += each.docs
            if len(out) == MERGED:
                break
        return out

    def read(self, segment: Segment) -> bytes:
        """A whole segment."""
        data = os.pread(self._fd, segment.length, segment.offset)
        if len(data) != segment.length:
            raise IndexDamaged(f"{self.path}: the segment at {segment.offset} is cut off")
        return data

    # --- writing, by who has the account's lock ---

    def append(self, record: bytes) -> None:
        """Adds a segment, and reads it; not where the file was thrown away since its first uid was chosen. OSError
        where there is no room."""
        self.refresh()
        segment = _grams.segment_of(record[: _grams.HEAD_BYTES])
        if segment is None or segment.first > self.until(segment.mailbox) + 1:
            return
        if not self._is_ours:
            self._replace(lambda fd: None)
        if os.fstat(self._fd).st_size != self._end:
            os.ftruncate(self._fd, self._end)  # what a kill has cut off
        _write(self._fd, record, self._end)
        self.refresh()

    def tidy(self, living: set[int]) -> None:
        """Writes the file anew, with these mailboxes, where much of it is good for nothing."""
        kept = [each for mailbox, mine in self._segments.items() if mailbox in living for each in mine]
        dead = self._end - _HEAD.size - sum(each.length for each in kept)
        if dead < INDEX_DEAD_BYTES or 2 * dead < self._end:
            return

        def copy(fd: int) -> None:
            at = _HEAD.size
            for segment in kept:
                _write(fd, self.read(segment), at)
                at += segment.length

        self._replace(copy)

    def _replace(self, fill: Callable[[int], None]) -> None:
        part = self.path.with_name(self.path.name + PART)
        part.unlink(missing_ok=True)
        fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _write(fd, self._head, 0)
            fill(fd)
            os.rename(part, self.path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        self.refresh()


def _head(account_id: int, store_number: int) -> bytes:
    told = _HEAD.pack(_MAGIC, store_number, account_id, 0, 0)
    return _HEAD.pack(_MAGIC, store_number, account_id, _grams.checksum(told), 0)


def _write(fd: int, data: bytes, at: int) -> None:
    view = memoryview(data)
    while view:
        done = os.pwrite(fd, view, at)
        view, at = view[done:], at + done
