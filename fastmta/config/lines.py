"""Which line of the file a key stands on: tomllib gives values only, and an administrator needs the line."""

import re
from typing import Final

_HEADER: Final = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(?:#.*)?$")
_PART: Final = r"""(?:[A-Za-z0-9_-]+|"(?:[^"\\]|\\.)*"|'[^']*')"""
_KEY: Final = re.compile(rf"\s*({_PART}(?:\s*\.\s*{_PART})*)\s*=")
_QUOTES: Final = re.compile(r'"""|\'\'\'')


def key_lines(text: str) -> dict[tuple[str, ...], int]:
    """Maps each key's path, such as ("delivery", "smtp_tcp_port"), and each table's, to its line, counted from 1."""
    out: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    inside = ""  # the delimiter of a multi-line string that is open
    for number, line in enumerate(text.split("\n"), 1):
        if inside:
            if line.count(inside) % 2:
                inside = ""
            continue
        header = _HEADER.match(line)
        key = _KEY.match(line)
        if key:
            out.setdefault(table + _parts(key[1]), number)
        elif header and not line.rstrip().endswith(","):
            table = _parts(header[1])
            out.setdefault(table, number)
        quotes = _QUOTES.search(line.split("#", 1)[0])
        if quotes and line.count(quotes[0]) % 2:
            inside = quotes[0]
    return out


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in re.findall(_PART, path))
