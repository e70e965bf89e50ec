"""The few settings that `sendmail` and `mailq` need, read without the schema: those programs run for every mail that a
script sends, and most of their time would go into loading it.

The notation is config/load.py's, whose answer a test compares with this one. Only what is asked for is checked here;
`fastmta check` names the rest.
"""

import os
import tomllib
from typing import Any, Final, NamedTuple

from fastmta.config.expand import expand
from fastmta.config.location import FILE_BYTES, default_path
from fastmta.model.errors import ConfigError

_DATA_DIRECTORY: Final = "/var/lib/fastmta"  # the schema's defaults
_MESSAGE_SIZE_LIMIT: Final = 10_240_000
_UNITS: Final = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Brief(NamedTuple):
    """`config_file` is absolute."""

    config_file: str
    data_directory: str
    message_size_limit: int


def read_brief(path: str | None = None) -> Brief:
    """The settings of a file; ConfigError where it cannot be read or they are wrong in it."""
    where = path if path is not None else default_path()
    try:
        with open(where, "rb") as file:
            raw = file.read(FILE_BYTES + 1)
        if len(raw) > FILE_BYTES:
            raise ConfigError(f"{where}: larger than {FILE_BYTES} bytes")
        document = tomllib.loads(raw.decode("utf-8").replace("\r\n", "\n"))
    except OSError as error:
        raise ConfigError(f"{where}: cannot read the configuration: {error.strerror}") from error
    except ValueError as error:  # not UTF-8, or not TOML
        raise ConfigError(f"{where}: {error}") from error
    where = os.path.abspath(where)
    base = os.path.dirname(where)
    try:
        text = _expanded(document, base, document.get("data_directory", _DATA_DIRECTORY))
        limit = _size(document, base, document.get("message_size_limit", _MESSAGE_SIZE_LIMIT))
    except ValueError as error:
        raise ConfigError(f"{where}: {error}; fastmta check says more") from error
    return Brief(where, os.path.join(base, text) if text else "", limit)


def _expanded(document: dict[str, Any], base: str, value: object) -> str:
    def raw_of(name: str) -> str | None:
        if name == "config_directory":
            return base.replace("$", "$$")
        found = document.get(name)
        return found if isinstance(found, str) else None

    if not isinstance(value, str) or any(ord(character) < 32 for character in value):
        raise ValueError("data_directory: expected a string of one line")
    return expand(value, raw_of)


def _size(document: dict[str, Any], base: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    text = _expanded(document, base, value).strip().upper().removesuffix("B").removesuffix("I")
    digits = text.rstrip("KMGT ")
    unit = text[len(digits) :].strip()
    if not digits.isascii() or not digits.isdigit() or unit not in _UNITS:
        raise ValueError("message_size_limit: expected a size such as 50M")
    return int(digits) * _UNITS[unit]
