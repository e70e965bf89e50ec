"""What next hops have said yes to and the store does not hold yet: a note of each 250, which outlives a kill.

A result is in the store some milliseconds after the answer, since a commit waits for the disk. Who is killed between
the two would deliver again. So the answer is first written, without waiting for any disk, into a small file that the
kernel keeps when the process dies (not through a power cut, which may cost duplicates as it always did). Whoever starts
next takes the files of the dead, known by the lock that nobody holds, and records what they say before it sends.

A note is true for ever: it says only that a server took the message for this recipient. So none is ever taken back; the
file is a ring, and what is old names recipients that have left the queue. It bears a checksum, and the message's
arrival besides its queue id, so that neither half-written notes nor a store brought back from a backup can mislead.

Where the file cannot be made or written, delivery goes on without it: it prevents duplicates, not losses.
"""

import asyncio
import contextlib
import fcntl
import os
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from struct import Struct
from typing import Final

from fastmta.model.limits import ANSWERS_A_UNIT, ANSWERS_KEPT, ANSWERS_LOCK_S, ANSWERS_LOOK_S

FOLDER: Final = "answers"
_NOTE: Final = Struct("<QQI")  # queue id, arrival of the message in ms, number of the recipient
_SUM: Final = Struct("<I")
_BYTES: Final = _NOTE.size + _SUM.size

Note = tuple[int, int, int]


class Answers:
    """One process's notes. `note` is on the path of every delivery: one write(2) into the page cache."""

    __slots__ = ("_fd", "_folder", "_lock", "_next", "_path")

    def __init__(self, data_directory: Path) -> None:
        self._folder = data_directory / FOLDER
        self._path: Path | None = None
        self._fd = self._lock = -1
        self._next = 0

    def begin(self, name: str) -> None:
        """Makes this process's file, and holds its lock until `close` or death. OSError: no file, no notes."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        begun = self._folder / f".{name}"  # named once it is locked: else it might be taken for a dead one's
        fd = os.open(begun, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.pwrite(fd, bytes(ANSWERS_KEPT * _BYTES), 0)
            self._path = self._folder / name
            begun.rename(self._path)
        except OSError:
            os.close(fd)
            raise
        self._fd = fd

    def note(self, queue_id: int, received_at_ms: int, numbers: Sequence[int]) -> None:
        """These recipients of a message were taken by their next hop. OSError: they are not noted, nor is anything from
        now on.
        """
        fd = self._fd
        if fd < 0 or not numbers:
            return
        raw = b""
        for n in numbers:
            raw += encoded((queue_id, received_at_ms, n))
        count = len(numbers)
        if self._next + count > ANSWERS_KEPT:
            self._next = 0
        try:
            os.pwrite(fd, raw, self._next * _BYTES)
        except OSError:
            self.close()
            raise
        self._next += count

    def close(self) -> None:
        """Everything is in the store, or this process wants no notes any more."""
        if self._fd >= 0:
            if self._path is not None:
                self._path.unlink(missing_ok=True)
            os.close(self._fd)
            self._fd = -1

    # --- what the dead left ---

    async def take_left(self, record: Callable[[Sequence[Note]], Awaitable[None]]) -> None:
        """Has the notes of processes that are dead recorded, a bounded number at a time, and removes their files.

        One process at a time: who starts at the same moment waits here until the other has recorded what it found,
        for at most ANSWERS_LOCK_S. The loop goes on meanwhile.
        """
        if not self._folder.is_dir():
            return
        lock = os.open(self._folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            await _wait_for(lock)
            for path in sorted(self._folder.glob("[!.]*")):
                await _take(path, record)
        finally:
            os.close(lock)


def encoded(note: Note) -> bytes:
    raw = _NOTE.pack(*note)
    return raw + _SUM.pack(zlib.crc32(raw))


def decoded(raw: bytes) -> Iterator[Note]:
    """The notes in a file's bytes; what was written by halves, or never, is passed over."""
    for at in range(0, len(raw) - _BYTES + 1, _BYTES):
        body = raw[at : at + _NOTE.size]
        if raw[at + _NOTE.size : at + _BYTES] == _SUM.pack(zlib.crc32(body)):
            yield _NOTE.unpack(body)


async def _take(path: Path, record: Callable[[Sequence[Note]], Awaitable[None]]) -> None:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for at in range(0, ANSWERS_KEPT, ANSWERS_A_UNIT):
            notes = list(decoded(os.pread(fd, min(ANSWERS_A_UNIT, ANSWERS_KEPT - at) * _BYTES, at * _BYTES)))
            if notes:
                await record(notes)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    except BlockingIOError:  # it lives
        return
    finally:
        os.close(fd)


async def _wait_for(lock: int) -> None:
    until = time.monotonic() + ANSWERS_LOCK_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= until:
                return
            await asyncio.sleep(ANSWERS_LOOK_S)
        else:
            return
