"""Addresses as commands take them: checked before they reach the store, a bare name in our own domain."""

from fastmta.cli.failures import EX_DATAERR, CommandFailed
from fastmta.config.schema import Config
from fastmta.config.values import parse_domain
from fastmta.directory import addresses


def account_address(text: str, config: Config) -> str:
    """`user@domain` in lower case; a bare name gets myorigin. CommandFailed says what is wrong."""
    local_part, domain = _parts(text, config)
    if not local_part or len(local_part.encode()) > 64 or addresses.quote(local_part) != local_part:
        raise CommandFailed(
            f"{text!r} is not an address: the part before the @ may hold letters, digits and . _ - +", EX_DATAERR
        )
    return f"{local_part.lower()}@{domain}"


def alias_address(text: str, config: Config) -> str:
    """As account_address, and `@domain` for a catch-all."""
    if text.startswith("@"):
        return f"@{_parts('x' + text, config)[1]}"
    return account_address(text, config)


def target_address(text: str, config: Config) -> str:
    """What an alias in the store may stand for: an address, never a command, a file or an include."""
    if text.startswith(("|", "/", ":", '"', "\\")):
        raise CommandFailed(f"{text!r}: an alias in the store stands for addresses only", EX_DATAERR)
    return account_address(text, config)


def is_local_domain(address: str, config: Config) -> bool:
    domain = address.rpartition("@")[2]
    return domain in config.mydestination or domain in config.virtual_mailbox_domains


def _parts(text: str, config: Config) -> tuple[str, str]:
    local_part, at, domain = text.rpartition("@")
    if not at:
        local_part, domain = text, config.myorigin
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise CommandFailed(f"{text!a} is not an address: it is not UTF-8", EX_DATAERR)
    if any(ord(character) <= 32 or ord(character) == 127 for character in text):
        raise CommandFailed(f"{text!r} is not an address: it holds blanks or control characters", EX_DATAERR)
    try:
        return local_part, parse_domain(addresses.canonical_domain(domain))
    except ValueError as error:
        raise CommandFailed(f"{text!r} is not an address: after the @ comes {error}", EX_DATAERR) from error
