"""How far the store was when the indexes were made: `index/store`, a few octets.

Message numbers are given out again by a store that is put back to an earlier state (a backup, a snapshot of the disk).
So the newest transaction is noted down before anything that was read is indexed, and where the store is behind that
when a worker or a command opens it, or is another one, all indexes are thrown away.
"""

import fcntl
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from fastmta.index.files import account_of

FILE: Final = "store"
_STATE: Final = struct.Struct("<QQ")  # the store's number, its last transaction that was read from


class Marker:
    """The mark in a folder, open. OSError where the folder cannot be made."""

    def __init__(self, folder: Path, store_number: int) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._folder = folder
        self._number = store_number
        self._fd = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._noted = 0

    def begin(self, last_txn_id: Callable[[], int]) -> str:
        """Called when a worker starts: why all indexes were thrown away, "" where they are good."""
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        try:
            number, noted = self._read()
            transaction = last_txn_id()  # asked behind the mark, which another process may move on meanwhile
            if (number, noted) == (0, 0):
                reason = "it is not known which store they are of"
            elif number != self._number:
                reason = "they are of another store"
            elif transaction < noted:
                reason = "the store is an earlier one, or was rewritten"
            else:
                return ""
            thrown = discard_all(self._folder)
            os.pwrite(self._fd, _STATE.pack(self._number, transaction), 0)
            return reason if thrown else ""
        finally:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def note(self, transaction: int) -> None:
        """Messages are about to be indexed that the store has as of this transaction."""
        if transaction <= self._noted:
            return
        self._noted = max(self._read()[1], transaction)
        os.pwrite(self._fd, _STATE.pack(self._number, self._noted), 0)

    def close(self) -> None:
        os.close(self._fd)

    def _read(self) -> tuple[int, int]:
        state = os.pread(self._fd, _STATE.size, 0)
        number, noted = _STATE.unpack(state) if len(state) == _STATE.size else (0, 0)
        return int(number), int(noted)


def discard_all(folder: Path) -> int:
    """Removes all indexes; how many there were. OSError but for a folder that is not there."""
    thrown = 0
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return 0
    for name in names:
        if account_of(name) is not None:
            (folder / name).unlink(missing_ok=True)
            thrown += 1
    return thrown


def came_back(folder: Path, store_number: int, last_txn_id: Callable[[], int]) -> None:
    """Who is about to change a store without the server looks too: what he does may bring an earlier store past the
    mark. Nothing where there are no indexes; OSError.
    """
    if (folder / FILE).exists():
        marker = Marker(folder, store_number)
        try:
            marker.begin(last_txn_id)
        finally:
            marker.close()


def turned_off(folder: Path) -> None:
    """The server runs without indexes: what lies there is not kept up with the store, and is not believed later."""
    (folder / FILE).unlink(missing_ok=True)
