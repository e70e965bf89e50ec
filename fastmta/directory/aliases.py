"""The right-hand side of aliases(5) and of virtual(5): addresses, and in aliases :include: files, pipes and files.

Commands (`|...`) and files (`/...`) are recognised so that they are never taken for addresses, and refused: FastMTA
has no delivery to them. They come from the administrator's files only; the store's aliases hold addresses alone.
"""

from enum import Enum
from typing import Final, NamedTuple

from fastmta.model.errors import ConfigError
from fastmta.model.limits import INCLUDE_FILE_BYTES

_INCLUDE: Final = ":include:"


class TargetKind(Enum):
    ADDRESS = "address"
    INCLUDE = "include"
    COMMAND = "command"
    FILE = "file"


class Target(NamedTuple):
    kind: TargetKind
    text: str
    final: bool = False  # `\\name`: this local user, no alias of that name


def split_targets(value: str) -> list[str]:
    """Items apart by commas; quotes and comments in parentheses are honoured, white space around is not kept."""
    out: list[str] = []
    current: list[str] = []
    quoted = False
    depth = 0
    at = 0
    while at < len(value):
        character = value[at]
        if character == "\\" and at + 1 < len(value) and (quoted or depth):
            if not depth:
                current.append(value[at : at + 2])
            at += 2
            continue
        if character == '"' and not depth:
            quoted = not quoted
        if not quoted and character == "(":
            depth += 1
        elif not quoted and character == ")" and depth:
            depth -= 1
        elif character == "," and not quoted and not depth:
            out.append("".join(current).strip())
            current = []
        elif not depth:
            current.append(character)
        at += 1
    out.append("".join(current).strip())
    return [item for item in out if item]


def parse_targets(value: str) -> list[Target]:
    """The targets of an aliases(5) entry."""
    return [_target(item) for item in split_targets(value)]


def _target(item: str) -> Target:
    bare = item
    if len(item) >= 2 and item[0] == item[-1] == '"' and item[1:2] in ("|", "/", ":"):
        bare = item[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    if bare.startswith("|"):
        return Target(TargetKind.COMMAND, bare[1:].strip())
    if bare.startswith("/"):
        return Target(TargetKind.FILE, bare)
    if bare.lower().startswith(_INCLUDE):
        return Target(TargetKind.INCLUDE, bare[len(_INCLUDE) :].strip())
    if item.startswith("\\"):
        return Target(TargetKind.ADDRESS, item[1:], True)
    return Target(TargetKind.ADDRESS, address_of(item))


def address_of(item: str) -> str:
    """The address in `Name <address>` or in `address`."""
    if item.endswith(">") and "<" in item:
        return item[item.rindex("<") + 1 : -1].strip()
    return item


def read_include(path: str) -> list[Target]:
    """The addresses of an :include: file: as an alias's value, over many lines, `#` comments. No commands, no files.

    Raises OSError; ConfigError where it holds what an include may not.
    """
    if not path.startswith("/"):
        raise ConfigError(f":include:{path}: not an absolute path")
    with open(path, "rb") as file:
        raw = file.read(INCLUDE_FILE_BYTES + 1)
    if len(raw) > INCLUDE_FILE_BYTES:
        raise ConfigError(f":include:{path}: larger than {INCLUDE_FILE_BYTES} bytes")
    lines = raw.decode("utf-8", "surrogateescape").splitlines()
    value = ",".join(line for line in lines if not line.lstrip().startswith("#"))
    targets = parse_targets(value)
    for target in targets:
        if target.kind in (TargetKind.COMMAND, TargetKind.FILE):
            raise ConfigError(f":include:{path}: {target.kind.value}s are not allowed in it")
    return targets
