"""Values that several acts take or give. The rules behind them are loaded when one is called: a command needs the types
alone where a server runs.
"""

import time
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated

import msgspec

from fastmta.model.errors import ActFailed

if TYPE_CHECKING:
    from fastmta.config.schema import Config

Secret = Annotated[str, msgspec.Meta(extra={"secret": True})]  # never in a log


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """An act that asks for nothing."""


class Subject(msgspec.Struct, forbid_unknown_fields=True):
    """The account or alias that an act is about; a bare name is one of $myorigin."""

    address: str


def parsed_size(text: str) -> int:
    """Bytes of "2G"; ActFailed for what is no size."""
    from fastmta.config.values import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise ActFailed(f"{text}: expected {error}", "usage") from error


def stamp(seconds: float) -> str:
    """An instant as RFC 3339 in UTC."""
    return _stamp(int(seconds))


@lru_cache(1024)  # listings tell of the same seconds again and again
def _stamp(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(second))


def account_address(text: str, config: "Config") -> str:
    """`user@domain` in lower case; a bare name gets myorigin. ActFailed says what is wrong."""
    from fastmta.directory import addresses

    local_part, domain = _parts(text, config)
    if not local_part or len(local_part.encode()) > 64 or addresses.quote(local_part) != local_part:
        raise ActFailed(
            f"{text!r} is not an address: the part before the @ may hold letters, digits and . _ - +", "invalid"
        )
    return f"{local_part.lower()}@{domain}"


def alias_address(text: str, config: "Config") -> str:
    """As account_address, and `@domain` for a catch-all."""
    if text.startswith("@"):
        return f"@{_parts('x' + text, config)[1]}"
    return account_address(text, config)


def target_address(text: str, config: "Config") -> str:
    """What an alias in the store may stand for: an address, never a command, a file or an include."""
    if text.startswith(("|", "/", ":", '"', "\\")):
        raise ActFailed(f"{text!r}: an alias in the store stands for addresses only", "invalid")
    return account_address(text, config)


def note_of(address: str, config: "Config") -> str:
    """What to tell of an account whose mail does not come to this server; "" where it does."""
    domain = address.rpartition("@")[2]
    return "" if domain in config.mailbox_domains else f"{domain} is not in mydestination or virtual_mailbox_domains"


def _parts(text: str, config: "Config") -> tuple[str, str]:
    from fastmta.config.values import parse_domain
    from fastmta.directory import addresses

    local_part, at, domain = text.rpartition("@")
    if not at:
        local_part, domain = text, config.myorigin
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ActFailed(f"{text!a} is not an address: it is not UTF-8", "invalid")
    if any(ord(character) <= 32 or ord(character) == 127 for character in text):
        raise ActFailed(f"{text!r} is not an address: it holds blanks or control characters", "invalid")
    try:
        return local_part, parse_domain(addresses.canonical_domain(domain))
    except ValueError as error:
        raise ActFailed(f"{text!r} is not an address: after the @ comes {error}", "invalid") from error
