"""A command line as the quick commands understand it: words, flags, options with a value. Whatever else stands in it is
for the whole program to understand, or to refuse.
"""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Final

VALUE_CHARACTERS: Final = 500
SELECTORS: Final = ("--sender", "--recipient", "--domain", "--hop", "--error", "--tenant", "--state")
STATES: Final = ("active", "deferred", "held")


class Line:
    """What stands in it."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.config_path: str | None = None
        self.flags: set[str] = set()
        self.values: dict[str, list[str]] = {}

    def last(self, option: str) -> str | None:
        found = self.values.get(option)
        return found[-1] if found else None


def read_line(
    arguments: Sequence[str],
    options: Collection[str],
    flags: Collection[str],
    short: Mapping[str, str] = MappingProxyType({}),
) -> Line | None:
    """None for what is not understood. `short`: other names of options and flags."""
    line = Line()
    left = list(reversed(arguments))
    while left:
        argument = left.pop()
        argument = short.get(argument, argument)
        name, equals, value = argument.partition("=")
        if not argument.startswith("-"):
            line.words.append(argument)
        elif argument in flags:
            line.flags.add(argument)
        elif name in ("-c", "--config") or name in options:
            if not equals:
                if not left:
                    return None
                value = left.pop()
            if name in ("-c", "--config"):
                line.config_path = value
            elif value.isascii() and value.isprintable() and len(value) <= VALUE_CHARACTERS:
                line.values.setdefault(name, []).append(value)
            else:
                return None
        else:
            return None
    state = line.last("--state")
    return None if state is not None and state.lower() not in STATES else line
