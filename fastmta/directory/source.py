"""The source text of a look-up table in Postfix's two formats: postmap(1)'s "key value", aliases(5)'s "name: value".

A line that begins with white space continues the one before; empty lines and those whose first other character is "#"
are no lines at all. Keys are folded to lower case, as postmap does. Of a key given twice the first counts.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from fastmta.model.errors import ConfigError
from fastmta.model.limits import MAP_LINE_BYTES

Bad = Callable[[str], None]  # told of a line that is skipped, with its file and number
Text = str | Iterable[str]  # the whole of a source, or its lines one after the other


class Entry(NamedTuple):
    line: int
    key: str
    value: str


def logical_lines(text: Text) -> Iterator[tuple[int, str]]:
    """(number of its first line, the line with its continuations joined)."""
    number, size = 0, 0
    parts: list[str] = []
    for at, line in enumerate(text.split("\n") if isinstance(text, str) else text, 1):
        line = line.rstrip("\r")
        stripped = line.strip()
        if not stripped or stripped[0] == "#":
            continue
        if line[0] in " \t" and parts:
            size += len(line)
            if size > MAP_LINE_BYTES:
                raise ValueError(f"line {number}: longer than {MAP_LINE_BYTES} bytes")
            parts.append(line.strip())
            continue
        if parts:
            yield number, " ".join(parts)
        number, parts, size = at, [stripped], len(line)
    if parts:
        yield number, " ".join(parts)


def parse_map(text: Text, name: str, bad: Bad | None = None) -> Iterator[Entry]:
    """Entries of a postmap source. A line that is none is told to `bad` and skipped, as postmap does; without `bad` it
    raises ConfigError with file and line.
    """
    return _entries(text, name, _map_entry, bad)


def parse_aliases(text: Text, name: str, bad: Bad | None = None) -> Iterator[Entry]:
    """Entries of an aliases(5) source; bad lines as in parse_map."""
    return _entries(text, name, _alias_entry, bad)


def _entries(text: Text, name: str, entry: Callable[[str], tuple[str, str]], bad: Bad | None) -> Iterator[Entry]:
    for number, line in _lines(text, name):
        try:
            key, value = entry(line)
        except ValueError as error:
            if bad is None:
                raise ConfigError(f"{name}:{number}: {error}") from error
            bad(f"{name}:{number}: {error}")
            continue
        yield Entry(number, key, value)


def _map_entry(line: str) -> tuple[str, str]:
    key, _, value = line.replace("\t", " ").partition(" ")
    if line[0] == '"':
        key, value = _quoted(line, " ")
    if not value.strip():
        raise ValueError(f"{key}: no value; expected: key, white space, value")
    return key.lower(), value.strip()


def _alias_entry(line: str) -> tuple[str, str]:
    if line[0] == '"':
        key, value = _quoted(line, ":")
    else:
        key, colon, value = line.partition(":")
        if not colon:
            raise ValueError("no colon; expected: name: address, address")
    if not key.strip() or not value.strip():
        raise ValueError(f"{key.strip()}: no value; expected: name: address, address")
    return key.strip().lower(), value.strip()


def _lines(text: Text, name: str) -> Iterator[tuple[int, str]]:
    try:
        yield from logical_lines(text)
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error


def _quoted(line: str, separator: str) -> tuple[str, str]:
    """A key in double quotes, which may hold white space and colons; backslash quotes the next character."""
    out, at = [], 1
    while at < len(line) and line[at] != '"':
        if line[at] == "\\":
            at += 1
        out.append(line[at : at + 1])
        at += 1
    rest = line[at + 1 :].lstrip()
    if at >= len(line) or (separator == ":" and not rest.startswith(":")):
        raise ValueError(f"expected a closing quote{' and a colon' if separator == ':' else ''}")
    return "".join(out), rest.removeprefix(":") if separator == ":" else rest
