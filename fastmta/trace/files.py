"""Where the trace lies: a file a day of UTC in data_directory/trace, in parts of bounded size, lines of JSON.

A line is what the log has of the same event. All processes append whole lines to the same file, and none is ever
changed, so a reader needs no lock. What a power cut leaves half-written is no JSON, and is passed over.

A part that is pruned gets another name, by which no reader or writer knows it, and is shortened a piece at a time: of a
long file that is unlinked whole, a file system that is mounted with `discard` tells the disk in one go, and every flush
of mail waits for that.
"""

import os
import re
import time
from pathlib import Path
from typing import Final, NamedTuple

FOLDER: Final = "trace"
NAME: Final = re.compile(r"(\d{4}-\d{2}-\d{2})\.(\d{3})\.jsonl")
PRUNED: Final = ".pruned"  # behind the name of a part that is on its way out
PARTS: Final = 1000  # of a day at the most; its last one has no bound of its own, but that of all


class Part(NamedTuple):
    """A file of the trace. Parts sort by time."""

    day: str  # "2026-11-27"
    number: int

    @property
    def name(self) -> str:
        return f"{self.day}.{self.number:03d}.jsonl"


def day_of(at: float) -> str:
    """The day of UTC that a file is named by."""
    return time.strftime("%Y-%m-%d", time.gmtime(at))


def parts(directory: Path) -> list[Part]:
    """All files of the trace, the oldest first."""
    try:
        names = [path.name for path in (directory / FOLDER).iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(Part(match[1], int(match[2])) for name in names if (match := NAME.fullmatch(name)))


def prune(directory: Path, now: float, retention_s: float, size_bytes: int) -> list[Part]:
    """Takes what is older than `retention_s` out of the trace, and the oldest of what is more than `size_bytes` (0: no
    bound) in all; gives what it was. The disk has its room again when `give_back` has been called often enough.
    """
    gone: list[Part] = []
    total = 0
    first_day = day_of(now - retention_s)
    for part in reversed(parts(directory)):
        path = directory / FOLDER / part.name
        try:
            total += path.stat().st_size
            if part.day < first_day or (size_bytes and total > size_bytes):
                path.rename(path.with_name(part.name + PRUNED))
                gone.append(part)
        except FileNotFoundError:  # another process was faster
            continue
    return gone


def give_back(directory: Path, piece_bytes: int) -> bool:
    """Gives so many bytes at the most of what was pruned back to the disk; whether there are more. After a kill, the
    next process goes on.
    """
    try:
        left = sorted(path for path in (directory / FOLDER).iterdir() if path.name.endswith(PRUNED))
    except (FileNotFoundError, NotADirectoryError):
        return False
    for path in left:
        if not NAME.fullmatch(path.name.removesuffix(PRUNED)):
            continue
        if piece_bytes <= 0:
            return True
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:  # another process was faster
            continue
        try:
            size = os.fstat(fd).st_size
            if size > piece_bytes:
                os.ftruncate(fd, size - piece_bytes)
                os.fsync(fd)  # so that the disk is told of this piece by itself
                return True
        finally:
            os.close(fd)
        path.unlink(missing_ok=True)
        piece_bytes -= size
    return False
