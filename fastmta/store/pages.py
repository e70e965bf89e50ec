"""The pages of data.mdb as they lie on the disk, read without LMDB: for who looks for damage, or saves what is left.

LMDB trusts its pages; here each is looked at before anything in it is believed, and what cannot be read is a `Hole`:
the range of keys that is lost with it. The file is LMDB's version 1 for 64-bit little-endian machines. While a
Snapshot of the same store is held, the pages that the newest meta page leads to stay as they are.
"""

import itertools
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastmta._store import DATABASE_NAMES, DATABASE_OF, TABLE_NAMES
from fastmta.model.errors import StoreUnreadable

_MAGIC: Final = 0xBEEFC0DE
_BRANCH, _LEAF, _OVERFLOW, _META = 1, 2, 4, 8
_HEADER: Final = struct.Struct("<QHHHH")  # number, unused, kind, lower, upper
_NODE: Final = struct.Struct("<HHHH")  # low and high half of a size or number, flags, length of the key
_META_STRUCT: Final = struct.Struct("<IIQQ48s48sQQ")
_DB: Final = struct.Struct("<IHHQQQQQ")  # page size, flags, depth, branch, leaf and overflow pages, entries, root
_NO_PAGE: Final = 2**64 - 1
_DEPTH: Final = 32
ROWS_A_PIECE: Final = 500
_BIG, _TREE = 1, 2  # flags of a node
FREE: Final = b"free"  # LMDB's own list, by a name that is no database's


@dataclass(frozen=True, slots=True)
class Hole:
    """Records of `database` from key `low` up to `high` (None: the end) that are lost with a page."""

    database: bytes
    low: bytes
    high: bytes | None
    page: int
    reason: str


class _Bad(Exception):
    pass


class Pages:
    """One file, at the moment of its newest sound meta page. `holes` grows while rows are read."""

    def __init__(self, path: Path) -> None:
        """StoreUnreadable where neither meta page is one."""
        self._fd = os.open(path / "data.mdb" if path.is_dir() else path, os.O_RDONLY | os.O_CLOEXEC)
        self.holes: list[Hole] = []
        self.notes: list[str] = []
        self.visited: set[int] = set()
        self.size = os.fstat(self._fd).st_size
        metas = []
        self.page_bytes = 4096
        for number in range(2):
            try:
                metas.append(self._meta(number))
            except _Bad as error:
                self.notes.append(f"meta page {number} is damaged: {error}")
        if not metas:
            os.close(self._fd)
            raise StoreUnreadable(f"{path}: neither meta page can be read, so nothing leads to the records")
        self.txn_id, last, free_root, main_root = max(metas)
        if self.size < (last + 1) * self.page_bytes:
            told = (last + 1) * self.page_bytes
            self.notes.append(f"the file has {self.size} bytes of {told} (the last may never have been used)")
        self._roots = {FREE: free_root}
        for name, value in self._tree(b"main", main_root):
            self._roots[name] = _DB.unpack(value)[7] if len(value) == _DB.size else 0

    def close(self) -> None:
        os.close(self._fd)

    def _meta(self, number: int) -> tuple[int, int, int, int]:
        data = self._read(16 + _META_STRUCT.size, number * self.page_bytes)
        if len(data) < 16 + _META_STRUCT.size:
            raise _Bad("the file ends before it")
        kind = _HEADER.unpack_from(data)[2]
        magic, version, _, _, free, main, last, txn_id = _META_STRUCT.unpack_from(data, 16)
        if not kind & _META or magic != _MAGIC or version & 0xFFFF != 1:
            raise _Bad("it is not a meta page of this version")
        page_bytes = _DB.unpack(free)[0]
        if page_bytes not in (4096, 8192, 16384, 32768, 65536):
            raise _Bad(f"it tells of pages of {page_bytes} bytes")
        self.page_bytes = page_bytes
        return txn_id, last, _DB.unpack(free)[7], _DB.unpack(main)[7]

    def _read(self, size: int, at: int) -> bytes:
        """As pread(2), fewer octets at the file's end only; a sector that the disk cannot give is a bad page."""
        try:
            return os.pread(self._fd, size, at)
        except OSError as error:
            raise _Bad(f"the disk does not give it: {error.strerror}") from error

    # --- rows ---

    def rows(self, database: bytes, low: bytes = b"", high: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) of all that can be read of a database, in order, from `low` up to `high`."""
        root = self._roots.get(database)
        if root is None:
            self.holes.append(Hole(database, low, high, 0, "its root is lost"))
            return
        yield from self._tree(database, root, low, high)

    def orphans(self) -> Iterator[tuple[bytes, bytes]]:
        """Rows of leaf pages that nothing leads to and that are not free: what stood below a damaged branch page.

        To be called after every database has been walked once, and the list of free pages.
        """
        free: set[int] = set()
        for _, value in self.rows(FREE):
            count = min(int.from_bytes(value[:8], "little"), len(value) // 8 - 1)
            free.update(struct.unpack_from(f"<{count}Q", value, 8))
        for number in range(2, self.size // self.page_bytes):
            if number in self.visited or number in free:
                continue
            try:
                page, kind = self._page(number)
                if kind != _LEAF:
                    continue
                for key, place in self._nodes(page, number, kind):
                    try:
                        yield key, self._value(page, place)
                    except _Bad:
                        continue
            except _Bad:
                continue

    def _tree(
        self, database: bytes, root: int, low: bytes = b"", high: bytes | None = None
    ) -> Iterator[tuple[bytes, bytes]]:
        if root != _NO_PAGE:
            yield from self._below(database, root, b"", None, low, high, 0)

    def _below(
        self, database: bytes, number: int, first: bytes, end: bytes | None, low: bytes, high: bytes | None, depth: int
    ) -> Iterator[tuple[bytes, bytes]]:
        """What stands below one page, whose keys are from `first` on and below `end`; only that of low..high."""
        if (end is not None and end <= low) or (high is not None and first >= high):
            return
        ordered = database != FREE
        try:
            if depth > _DEPTH:
                raise _Bad("the tree is too deep")
            page, kind = self._page(number)
            if kind == _OVERFLOW:
                raise _Bad("it is a page of a long value")
            nodes = list(self._nodes(page, number, kind))
            keys = [key for key, _ in nodes][kind == _BRANCH :]
            if ordered and any(a >= b for a, b in itertools.pairwise(keys)):
                raise _Bad("its keys are not in order")
            if ordered and keys and (keys[0] < first or (end is not None and keys[-1] >= end)):
                raise _Bad("it holds keys of another place")
        except _Bad as error:
            self.holes.append(Hole(database, first, end, number, str(error)))
            return
        self.visited.add(number)
        if kind == _LEAF:
            for key, place in nodes:
                if ordered and (key < low or (high is not None and key >= high)):
                    continue
                try:
                    yield key, self._value(page, place)
                except _Bad as error:
                    self.holes.append(Hole(database, key, key + b"\0", number, str(error)))
            return
        for n, (key, place) in enumerate(nodes):
            half, upper, flags, _ = _NODE.unpack_from(page, place)
            child = half | upper << 16 | flags << 32
            begin = first if n == 0 or not ordered else key
            until = nodes[n + 1][0] if n + 1 < len(nodes) and ordered else end
            yield from self._below(database, child, begin, until, low, high, depth + 1)

    def _page(self, number: int) -> tuple[bytes, int]:
        size = self.page_bytes
        if number < 2 or (number + 1) * size > self.size:
            raise _Bad("it lies behind the end of the file")
        page = self._read(size, number * size)
        if len(page) < size:
            raise _Bad("it cannot be read")
        said, _, kind, lower, upper = _HEADER.unpack_from(page)
        if said != number or kind not in (_BRANCH, _LEAF, _OVERFLOW):
            raise _Bad("it is not a page of a tree, or another one")
        if kind != _OVERFLOW and not (16 < lower <= upper <= size and lower % 2 == 0):
            raise _Bad("its bounds make no sense")
        return page, kind

    def _nodes(self, page: bytes, number: int, kind: int) -> Iterator[tuple[bytes, int]]:
        _, _, _, lower, upper = _HEADER.unpack_from(page)
        used = 0
        for (place,) in struct.iter_unpack("<H", page[16:lower]):
            if not upper <= place <= len(page) - _NODE.size:
                raise _Bad("a record lies outside of it")
            low, high, flags, length = _NODE.unpack_from(page, place)
            size = _NODE.size + length
            if kind == _LEAF:
                size += 8 if flags & _BIG else low | high << 16
            size += size & 1
            if place + size > len(page) or length > 511:
                raise _Bad("a record does not fit into it")
            used += size
            yield page[place + _NODE.size : place + _NODE.size + length], place
        if used != len(page) - upper:
            raise _Bad("its records do not fill it as they should")

    def _value(self, page: bytes, place: int) -> bytes:
        low, high, flags, length = _NODE.unpack_from(page, place)
        begin = place + _NODE.size + length
        size = low | high << 16
        if not flags & _BIG:
            return page[begin : begin + size]
        number = int.from_bytes(page[begin : begin + 8], "little")
        if (number * self.page_bytes + 16 + size) > self.size or number < 2:
            raise _Bad("a long value lies behind the end of the file")
        data = self._read(16 + size, number * self.page_bytes)
        said, _, kind, _, _ = _HEADER.unpack_from(data)
        pages = int.from_bytes(data[12:16], "little")
        if said != number or kind != _OVERFLOW or pages * self.page_bytes < size + 16 or len(data) < 16 + size:
            raise _Bad("a long value is not where its record says")
        return data[16:]

    # --- as a whole ---

    def walk(self, rest: Callable[[], None] | None = None) -> list[str]:
        """Looks at every page of every database; one line for each that cannot be read, none for a sound file.

        `rest` is called after each ROWS_A_PIECE rows.
        """
        for database in (*DATABASE_NAMES, FREE):
            for number, _ in enumerate(self.rows(database), 1):
                if rest is not None and number % ROWS_A_PIECE == 0:
                    rest()
        return [line for line in self.notes if "may never have been" not in line or self.holes] + [
            describe(hole) for hole in self.holes
        ]


def describe(hole: Hole) -> str:
    """One line that names the table and the keys that are lost with a page."""
    if hole.database == FREE:
        what = "the list of free pages"
    else:
        what = f"{_place(hole.low)} up to {'the end' if hole.high is None else _place(hole.high)}"
    return f"page {hole.page} of {hole.database.decode()} cannot be read: {hole.reason}; with it is lost {what}"


def _place(key: bytes) -> str:
    if not key:
        return "the beginning"
    table = TABLE_NAMES[key[0]] if key[0] < len(TABLE_NAMES) else str(key[0])
    return f"table={table} key={key[1:41].hex()}"


class PageSnapshot:
    """A Snapshot's reads over what can be read of a damaged file."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    def get(self, table: int, key: bytes) -> bytes | None:
        """The value of a record; None where there is none, or none that can be read."""
        whole = bytes((table,)) + key
        return next((value for _, value in self._pages.rows(DATABASE_OF[table], whole, whole + b"\0")), None)

    def scan(self, table: int, prefix: bytes = b"", start: bytes = b"", limit: int = 1000) -> list[tuple[bytes, bytes]]:
        """As Snapshot.scan, without what is lost."""
        low = bytes((table,)) + max(prefix, start)
        out: list[tuple[bytes, bytes]] = []
        for key, value in self._pages.rows(DATABASE_OF[table], low):
            if not key.startswith(bytes((table,)) + prefix) or len(out) >= limit:
                break
            out.append((key[1:], value))
        return out
