"""Look-up tables of the configuration (config/map_types): read, kept, and read again when they change.

`hash:` uses what postmap compiled while that still belongs to the source, else the source itself, so an edit counts
with or without postmap. `texthash:` always reads the source. `regexp:`, `pcre:` and `cidr:` are directory/patterns.
`inline:` and `static:` have no file.

Invariants: a table that was readable once keeps its last good contents while its file is gone or broken; one that
never was answers every look-up with a temporary failure, since guessing would bounce mail. No long source holds the
loop: it is read once for all tables of its name, in a thread that lets others go on, and the old contents serve until
it is done (docs/adr/0052). What is read on the loop is bounded as it is read: a size seen before may be that of a file
still being written.
"""

import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from weakref import WeakValueDictionary

from fastmta.config.map_types import FILE_TYPES, PATTERN_TYPES, fixed_value, inline_entries
from fastmta.directory.compiled import SUFFIX, CompiledMap, write_compiled
from fastmta.directory.packed import Packed
from fastmta.directory.patterns import Patterns, read_patterns
from fastmta.directory.source import Bad, Entry, Text, parse_aliases, parse_map
from fastmta.model.errors import ConfigError, TemporaryFailure
from fastmta.model.limits import (
    MAP_AT_ONCE_BYTES,
    MAP_BLOCK_BYTES,
    MAP_FILE_BYTES,
    MAP_PAUSE_S,
    PATTERN_RULE_OCTETS,
    PATTERN_WORK_OCTETS,
)

Parser = Callable[[Text, str, Bad | None], Iterator[Entry]]
Pause = Callable[[], None]
_Stamp = tuple[int, int, int] | None
_Stamps = tuple[_Stamp, _Stamp]


class _Longer(ConfigError):
    """A source has more bytes than may be read of it here."""


class _Fixed:
    """What `static:` says of every key."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def get(self, key: str) -> str | None:
        return self._value

    def __len__(self) -> int:
        return 1


_Data = dict[str, str] | Packed | CompiledMap | Patterns | _Fixed


class _Reading:
    """What one look at the files has given: data, or why there is none."""

    __slots__ = ("data", "problem", "stamps")

    def __init__(self, stamps: _Stamps) -> None:
        self.stamps = stamps
        self.data: _Data | None = None
        self.problem = ""


class Contents:
    """What a table's files held when they were last read; one for all tables of a name. `serial` counts the readings.

    `data` and `serial` change in the thread that looks things up, and only in `look`; other threads leave what they
    have read in `_fresh`.
    """

    __slots__ = (
        "__weakref__",
        "_bad",
        "_fresh",
        "_kind",
        "_parser",
        "_path",
        "_reader",
        "_stamps",
        "_text",
        "_use_compiled",
        "data",
        "problem",
        "serial",
    )

    def __init__(self, name: str, parser: Parser = parse_map, bad: Bad | None = None) -> None:
        kind, _, path = name.partition(":")
        self._kind = kind
        self._text = path
        self._path = Path(path)
        self._parser = parser
        self._bad = bad
        self._use_compiled = kind == "hash"
        self._stamps: _Stamps | None = None
        self._fresh: _Reading | None = None
        self._reader: threading.Thread | None = None
        self.data: _Data | None = None
        self.problem = ""  # why the files cannot be used now
        self.serial = 0

    def look(self) -> None:
        """Takes over what was read meanwhile, and has the files read again if they have changed: at once where they are
        short or were never read, else in a thread, and a later look takes that over. Of a file that was short when its
        size was seen, and has grown since, MAP_AT_ONCE_BYTES and one are read at once.
        """
        if self._fresh is not None:
            self._take(self._fresh)
        if self._reader is not None and self._reader.is_alive():
            return
        stamps = self._seen()
        if stamps == self._stamps:
            return
        if self._stamps is None:
            self._take(self._read(stamps, MAP_FILE_BYTES, None))
            return
        if not self._is_long(stamps):
            try:
                self._take(self._read(stamps, MAP_AT_ONCE_BYTES, None))
                return
            except _Longer:
                pass
        self._reader = threading.Thread(target=self._read_beside, name="map", daemon=True)
        self._reader.start()

    def read_ahead(self) -> None:
        """Reads the files if they were never read, or have changed and are long, for the next `look`. Called in a
        thread of its own.
        """
        stamps = self._seen()
        if self._is_long(stamps):
            self._read_beside()
        elif self._stamps is None:
            self._fresh = self._read(stamps, MAP_FILE_BYTES, None)

    def _read_beside(self) -> None:
        stamps = self._seen()
        if stamps != self._stamps:
            self._fresh = self._read(stamps, MAP_FILE_BYTES, lambda: time.sleep(MAP_PAUSE_S))

    def _take(self, reading: _Reading) -> None:
        self._fresh = None
        self._stamps = reading.stamps
        self.problem = reading.problem
        self.serial += 1
        if reading.data is not None:
            self.data = reading.data

    def _seen(self) -> _Stamps:
        if self._kind not in FILE_TYPES:
            return None, None
        return _stamp(self._path), _stamp(compiled_path(self._path)) if self._use_compiled else None

    def _is_long(self, stamps: _Stamps) -> bool:
        return stamps[0] is not None and stamps[0][1] > MAP_AT_ONCE_BYTES

    def _read(self, stamps: _Stamps, most: int, pause: Pause | None) -> _Reading:
        """What the files say; `most`: bytes of a source. Raises _Longer where it has more and a thread may read it."""
        reading = _Reading(stamps)
        try:
            reading.data = self._compiled(stamps) or self._from_source(stamps, most, pause)
        except _Longer as error:
            if most < MAP_FILE_BYTES:
                raise
            reading.problem = str(error)
        except (OSError, ValueError, ConfigError) as error:
            reading.problem = f"{self._path}: {error.strerror}" if isinstance(error, OSError) else str(error)
        return reading

    def _from_source(self, stamps: _Stamps, most: int, pause: Pause | None) -> _Data:
        match self._kind:
            case "inline":
                return inline_entries(self._text)
            case "static":
                return _Fixed(fixed_value(self._text))
            case "regexp" | "pcre" | "cidr":
                literal = self._parser is parse_aliases
                lines = _lines(self._path, most)
                return read_patterns(self._kind, lines, str(self._path), literal=literal, bad=self._bad)
        if pause is not None or self._is_long(stamps):
            entries = self._parser(_lines(self._path, most), str(self._path), self._bad)
            return Packed(((entry.key, entry.value) for entry in entries), pause)
        return read_source(self._path, self._parser, self._bad, most)

    def _compiled(self, stamps: _Stamps) -> CompiledMap | None:
        """The compiled form, where it belongs to the source or stands for it."""
        source, compiled_stamp = stamps
        if compiled_stamp is None:
            return None
        try:
            compiled = CompiledMap(compiled_path(self._path))
        except (OSError, ValueError):
            if source is None:
                raise
            return None
        if source is None or (compiled.source_mtime_ns, compiled.source_size) == source[:2]:
            return compiled
        compiled.close()
        return None


_shelf: "WeakValueDictionary[tuple[str, Parser], Contents]" = WeakValueDictionary()


def contents_of(name: str, parser: Parser = parse_map) -> Contents:
    """The contents that all tables of this name share, not read yet where nobody has them."""
    found = _shelf.get((name, parser))
    if found is None:
        found = _shelf[name, parser] = Contents(name, parser)
    return found


class Table:
    """One table. May block for one small read when its file has changed."""

    __slots__ = ("_contents", "_serial", "name")

    def __init__(self, name: str, parser: Parser = parse_map, bad: Bad | None = None) -> None:
        """`bad` as in parse_map; the server gives none: half an edit is no reason to forget the other half's users."""
        self.name = name
        self._contents = contents_of(name, parser) if bad is None else Contents(name, parser, bad)
        self._serial = 0
        self.refresh()

    @property
    def problem(self) -> str:
        """Why the file cannot be used now; "" where it can."""
        return self._contents.problem

    @property
    def is_of_patterns(self) -> bool:
        """Whether it is asked about whole keys only, in their own case."""
        return self.name.partition(":")[0] in PATTERN_TYPES

    def values(self) -> Iterable[str]:
        """All values that the table has, as they are written; for a look at them before they are needed."""
        data = self._contents.data
        return data.values() if isinstance(data, dict | Packed | Patterns) else ()

    def get(self, key: str) -> str | None:
        """The value of a key, which is given in lower case but to tables of patterns. Raises TemporaryFailure where the
        table was never read.
        """
        data = self._contents.data
        if data is None:
            from fastmta.model.reply import Reply  # late: postmap has no use for it

            raise TemporaryFailure(Reply(451, "4.3.0", "Temporary lookup failure"))
        return data.get(key)

    def __len__(self) -> int:
        return 0 if self._contents.data is None else len(self._contents.data)

    def refresh(self) -> bool:
        """Looks whether the file has changed; gives whether what it says may have, since the last call."""
        self._contents.look()
        before, self._serial = self._serial, self._contents.serial
        return before != self._serial


class TableSet:
    """The tables of one key of the configuration, asked in order."""

    __slots__ = ("_asked", "tables")

    def __init__(self, names: Iterable[str], parser: Parser = parse_map) -> None:
        self.tables = tuple(Table(name, parser) for name in names)
        self._asked = tuple((table, table.is_of_patterns) for table in self.tables)

    def get(self, key: str, *, whole: bool = True) -> str | None:
        """The first value that a table has for the key, which is folded to lower case. A key that is not `whole` but a
        part of what is looked up, such as the domain of an address, is no question to a table of patterns.
        """
        folded = key.lower()
        for table, of_patterns in self._asked:
            if of_patterns and not whole:
                continue
            value = table.get(key if of_patterns else folded)
            if value is not None:
                return value
        return None

    async def find(self, key: str, offload: Callable[..., Awaitable[str | None]]) -> str | None:
        """As `get`, in a thread where it would hold the loop: RE2 lets go of the interpreter while it looks."""
        return await offload(self.get, key) if self.is_long_for(key) else self.get(key)

    def is_long_for(self, key: str) -> bool:
        """Whether looking takes milliseconds. False too where a table may be closed meanwhile, as files of postmap are:
        expressions are never.
        """
        work = 0
        for table, of_patterns in self._asked:
            if not of_patterns:
                return False
            work += len(table) * (PATTERN_RULE_OCTETS + len(key))
        return work > PATTERN_WORK_OCTETS

    def refresh(self) -> bool:
        changed = False
        for table in self.tables:  # every one is looked at
            changed |= table.refresh()
        return changed

    def problems(self) -> list[str]:
        return [table.problem for table in self.tables if table.problem]

    def __bool__(self) -> bool:
        return bool(self.tables)


def compiled_path(source: Path) -> Path:
    return source.with_name(source.name + SUFFIX)


def read_source(
    path: Path, parser: Parser = parse_map, bad: Bad | None = None, most: int = MAP_FILE_BYTES
) -> dict[str, str]:
    """A source as a dict; bad lines as in parse_map. Raises OSError or ConfigError with file and line, also where the
    source has more than `most` bytes.
    """
    out: dict[str, str] = {}
    for entry in parser(_lines(path, most), str(path), bad):
        out.setdefault(entry.key, entry.value)
    return out


def _lines(path: Path, most: int) -> Iterator[str]:
    """The lines of a file, without what ends them, decoded block by block. _Longer where it has more than `most` bytes,
    of which one more is read.
    """
    total, rest = 0, b""
    with open(path, "rb") as file:
        while block := file.read(min(MAP_BLOCK_BYTES, most + 1 - total)):
            total += len(block)
            if total > most:
                raise _Longer(f"{path}: larger than {most} bytes")
            *whole, rest = (rest + block).split(b"\n")
            for line in whole:
                yield line.decode("utf-8", "surrogateescape")
    yield rest.decode("utf-8", "surrogateescape")


def compile_map(path: Path, parser: Parser = parse_map, bad: Bad | None = None) -> int:
    """What postmap and newaliases do; gives the number of entries. Raises OSError or ConfigError."""
    before = os.stat(path)
    entries = read_source(path, parser, bad)
    try:
        write_compiled(compiled_path(path), entries, before)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return len(entries)


def alias_tables(names: Iterable[str]) -> TableSet:
    """Tables in the format of aliases(5)."""
    return TableSet(names, parse_aliases)


def _stamp(path: Path) -> _Stamp:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
