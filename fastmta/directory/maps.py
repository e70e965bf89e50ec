"""Look-up tables of the configuration, `hash:/path` and `texthash:/path`: read, kept, and read again when they change.

`hash:` uses what postmap compiled while that still belongs to the source, else the source itself, so an edit counts
with or without postmap. `texthash:` always reads the source.

Invariants: a table that was readable once keeps its last good contents while its file is gone or broken; one that
never was answers every look-up with a temporary failure, since guessing would bounce mail.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from fastmta.directory.compiled import SUFFIX, CompiledMap, write_compiled
from fastmta.directory.source import Bad, Entry, parse_aliases, parse_map
from fastmta.model.errors import ConfigError, TemporaryFailure
from fastmta.model.limits import MAP_FILE_BYTES

Parser = Callable[[str, str, Bad | None], Iterator[Entry]]
_Stamp = tuple[int, int, int] | None


class Table:
    """One table. May block for one small read when its file has changed."""

    __slots__ = ("_bad", "_contents", "_parser", "_path", "_stamps", "_use_compiled", "name", "problem")

    def __init__(self, name: str, parser: Parser = parse_map, bad: Bad | None = None) -> None:
        """`bad` as in parse_map; the server gives none: half an edit is no reason to forget the other half's users."""
        kind, _, path = name.partition(":")
        self.name = name
        self.problem = ""  # why the file cannot be used now
        self._path = Path(path)
        self._parser = parser
        self._bad = bad
        self._use_compiled = kind == "hash"
        self._contents: dict[str, str] | CompiledMap | None = None
        self._stamps: tuple[_Stamp, _Stamp] | None = None
        self.refresh()

    def get(self, key: str) -> str | None:
        """The value of a key, which is given in lower case. Raises TemporaryFailure where the table was never read."""
        if self._contents is None:
            from fastmta.model.reply import Reply  # late: postmap has no use for it

            raise TemporaryFailure(Reply(451, "4.3.0", "Temporary lookup failure"))
        return self._contents.get(key)

    def __len__(self) -> int:
        return 0 if self._contents is None else len(self._contents)

    def refresh(self) -> bool:
        """Reads the file again if it has changed; gives whether anything may have."""
        stamps = (_stamp(self._path), _stamp(self._compiled_path) if self._use_compiled else None)
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        try:
            self._contents = self._read(stamps[0])
            self.problem = ""
        except (OSError, ValueError, ConfigError) as error:
            self.problem = f"{self._path}: {error.strerror}" if isinstance(error, OSError) else str(error)
        return True

    @property
    def _compiled_path(self) -> Path:
        return compiled_path(self._path)

    def _read(self, source: _Stamp) -> dict[str, str] | CompiledMap:
        if self._use_compiled and self._stamps is not None and self._stamps[1] is not None:
            try:
                compiled = CompiledMap(self._compiled_path)
            except (OSError, ValueError):
                if source is None:
                    raise
            else:
                if source is None or (compiled.source_mtime_ns, compiled.source_size) == source[:2]:
                    return compiled
                compiled.close()
        return read_source(self._path, self._parser, self._bad)


class TableSet:
    """The tables of one key of the configuration, asked in order."""

    __slots__ = ("tables",)

    def __init__(self, names: Iterable[str], parser: Parser = parse_map) -> None:
        self.tables = tuple(Table(name, parser) for name in names)

    def get(self, key: str) -> str | None:
        """The first value that a table has for the key, which is folded to lower case."""
        folded = key.lower()
        for table in self.tables:
            value = table.get(folded)
            if value is not None:
                return value
        return None

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


def read_source(path: Path, parser: Parser = parse_map, bad: Bad | None = None) -> dict[str, str]:
    """A source as a dict; bad lines as in parse_map. Raises OSError or ConfigError with file and line."""
    with open(path, "rb") as file:
        raw = file.read(MAP_FILE_BYTES + 1)
    if len(raw) > MAP_FILE_BYTES:
        raise ConfigError(f"{path}: larger than {MAP_FILE_BYTES} bytes")
    out: dict[str, str] = {}
    for entry in parser(raw.decode("utf-8", "surrogateescape"), str(path), bad):
        out.setdefault(entry.key, entry.value)
    return out


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
