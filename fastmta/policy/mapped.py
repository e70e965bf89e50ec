"""A table of limits (`_limits.Table`) in a file of the data directory, which all workers map and which restarts keep.

It has one size for ever (2 MB): a flood pushes out what was not touched for longest. It is never flushed, so a power
cut may cost what was counted last. Keys are keyed hashes: nobody can aim at a set. Instants are seconds
of the wall clock.
"""

import hashlib
import mmap
import os
from contextlib import suppress
from pathlib import Path

from fastmta._limits import HOLDINGS_BYTES, TABLE_BYTES, Table


class MappedTable:
    """The table of a file, opened by one process."""

    __slots__ = ("_seed", "table")

    def __init__(self, directory: Path, name: str) -> None:
        """Opens the file, and makes it where there is none. OSError."""
        path = directory / name
        if not path.exists():
            draft = path.with_name(f"{name}.{os.getpid()}")
            with os.fdopen(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "r+b") as file:
                file.write((int.from_bytes(os.urandom(8), "little") | 1).to_bytes(8, "little"))
                file.truncate(TABLE_BYTES)
            with suppress(FileExistsError):
                os.link(draft, path)
            draft.unlink()
        with path.open("r+b") as file:
            if os.fstat(file.fileno()).st_size != TABLE_BYTES:  # another program's: begun anew
                file.truncate(0)
                file.truncate(TABLE_BYTES)
            memory = mmap.mmap(file.fileno(), TABLE_BYTES)
        self._seed = bytes(memory[:8])
        self.table = Table(memory, bytearray(HOLDINGS_BYTES), os.getpid())

    def key(self, *parts: str) -> tuple[int, int]:
        """The two numbers that stand for these words."""
        digest = hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogateescape"), key=self._seed, digest_size=16)
        raw = digest.digest()
        return int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:], "little")
