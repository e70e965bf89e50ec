"""The compiled form of a map that postmap and newaliases write: a file beside the source that is searched, not parsed.

Layout, little-endian: 8 bytes magic; u64 count; u64 source's mtime in ns; u64 source's size; then count + 1 u64
offsets of records counted from the file's start, in the order of their keys; then the records: u32 key length, key,
value, in UTF-8. It counts only while the source still has the stated mtime and size, so an edited source is never
shadowed; where the source is gone, it stands for it.
"""

import contextlib
import mmap
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from fastmta.model.limits import MAP_FILE_BYTES

SUFFIX: Final = ".fmap"
_MAGIC: Final = b"FMTAMAP1"
_HEADER: Final = struct.Struct("<8sQQQ")
_OFFSET: Final = struct.Struct("<Q")
_KEY_LENGTH: Final = struct.Struct("<I")


class CompiledMap:
    """An open compiled map. Look-ups read the page cache; they are not for many a millisecond of cold disk."""

    __slots__ = ("_count", "_map", "source_mtime_ns", "source_size")

    _count: int

    def __init__(self, path: Path) -> None:
        """Raises OSError, or ValueError for a file that is not whole."""
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._map = mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)
        try:
            magic, self._count, self.source_mtime_ns, self.source_size = _HEADER.unpack_from(self._map)
            end = _HEADER.size + 8 * (self._count + 1)
            if magic != _MAGIC or end > len(self._map) or self._offset(self._count) != len(self._map):
                raise ValueError
        except (struct.error, ValueError):
            self._map.close()
            raise ValueError(f"{path}: not a whole compiled map; run postmap again") from None

    def __len__(self) -> int:
        return self._count

    def get(self, key: str) -> str | None:
        wanted = key.encode("utf-8", "surrogateescape")
        low, high = 0, self._count
        while low < high:
            middle = (low + high) // 2
            found, value = self._record(middle)
            if found == wanted:
                return value.decode("utf-8", "surrogateescape")
            if found < wanted:
                low = middle + 1
            else:
                high = middle
        return None

    def close(self) -> None:
        self._map.close()

    def _offset(self, n: int) -> int:
        (offset,) = _OFFSET.unpack_from(self._map, _HEADER.size + 8 * n)
        return int(offset)

    def _record(self, n: int) -> tuple[bytes, bytes]:
        start, end = self._offset(n), self._offset(n + 1)
        (length,) = _KEY_LENGTH.unpack_from(self._map, start)
        key_end = start + 4 + length
        return self._map[start + 4 : key_end], self._map[key_end:end]


def write_compiled(path: Path, entries: Mapping[str, str], source: os.stat_result) -> None:
    """Writes atomically: a reader has the old file or the new one. Raises OSError; ValueError above the size bound."""
    records = sorted(
        (k.encode("utf-8", "surrogateescape"), v.encode("utf-8", "surrogateescape")) for k, v in entries.items()
    )
    offset = _HEADER.size + 8 * (len(records) + 1)
    offsets, bodies = bytearray(), bytearray()
    for key, value in records:
        offsets += _OFFSET.pack(offset + len(bodies))
        bodies += _KEY_LENGTH.pack(len(key)) + key + value
    offsets += _OFFSET.pack(offset + len(bodies))
    if offset + len(bodies) > MAP_FILE_BYTES:
        raise ValueError(f"{path}: larger than {MAP_FILE_BYTES} bytes")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644), "wb") as file:
            file.write(_HEADER.pack(_MAGIC, len(records), source.st_mtime_ns, source.st_size))
            file.write(offsets)
            file.write(bodies)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
