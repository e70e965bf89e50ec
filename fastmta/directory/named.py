"""All look-up tables that a configuration names: what has to be read before it can be obeyed."""

from collections.abc import Iterator
from typing import Any

import msgspec

from fastmta.config.map_types import FILE_TYPES
from fastmta.directory.maps import Contents, contents_of
from fastmta.directory.source import parse_aliases, parse_map


def contents_named(config: msgspec.Struct) -> list[Contents]:
    """The contents of every table that a configuration names, by whatever key."""
    out: dict[str, Contents] = {}
    for key, value in msgspec.structs.asdict(config).items():
        for text in _texts(value):
            if text.partition(":")[0] in FILE_TYPES:
                out.setdefault(text, contents_of(text, parse_aliases if key == "alias_maps" else parse_map))
    return list(out.values())


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, msgspec.Struct):
        yield from _texts(tuple(msgspec.structs.asdict(value).values()))
    elif isinstance(value, dict):
        yield from _texts(tuple(value.values()))
    elif isinstance(value, tuple | list | frozenset | set):
        for each in value:
            yield from _texts(each)
