"""The Sender Rewriting Scheme: envelope senders of mail that is passed on off-site, and the way back for its bounces.

A sender `ann@author.example` becomes `SRS0=HASH=DAY=author.example=ann@srs_domain`, so that SPF asks about a domain of
ours; a sender that another forwarder has rewritten already becomes `SRS1=HASH=forwarder=REST@srs_domain`, which leads
back to that one and no further. The hash keeps strangers from having us relay to addresses of their choice, the day
ends its use after `srs_max_age`. Hashes are those of
postsrsd and libsrs2: HMAC-SHA1 over the parts in lower case, in base64, cut to 4 characters.

Secrets lie in a file, one a line; the first makes hashes, all of them check. So a secret is replaced by a new first
line, and the old one goes when `srs_max_age` has passed.
"""

import base64
import hashlib
import hmac
import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fastmta.directory import addresses
from fastmta.directory.addresses import Address
from fastmta.model.errors import ConfigError
from fastmta.model.limits import SRS_PATH_BYTES, SRS_SECRET_BYTES, SRS_SECRETS

if TYPE_CHECKING:
    from fastmta.config.schema import Config

SECRETS_FILE: Final = "srs.secrets"  # in data_directory, where srs_secrets names no other
_HASH_CHARACTERS: Final = 4  # postsrsd's and libsrs2's
_HASH_MOST: Final = 28  # a whole HMAC-SHA1 in base64
_DAY_S: Final = 86_400
_DAYS: Final = 1024  # two characters of base32: after so many days a day comes again
_BASE32: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_SEPARATORS: Final = "=-+"


class SrsRefused(ValueError):
    """An address in SRS's form that is not one of ours, or no longer; the text is for the peer."""


def is_srs(local_part: str) -> bool:
    """Whether a local part has SRS's form."""
    return len(local_part) > 5 and local_part[:4].upper() in ("SRS0", "SRS1") and local_part[4] in _SEPARATORS


def secrets_path(config: "Config") -> Path:
    """Where the secrets lie."""
    return Path(config.srs_secrets) if config.srs_secrets else Path(config.data_directory) / SECRETS_FILE


def read_secrets(path: Path) -> tuple[bytes, ...]:
    """The secrets of a file, the one that makes hashes first. ConfigError: it cannot be used."""
    try:
        with path.open("rb") as file:
            raw = file.read(SRS_SECRETS * (SRS_SECRET_BYTES + 2) + 1)
    except OSError as error:
        raise ConfigError(f"srs_secrets: {path}: {error.strerror}") from error
    lines = [line.strip() for line in raw.splitlines()]
    found = tuple(line for line in lines if line and not line.startswith(b"#"))
    if not found:
        raise ConfigError(
            f"srs_secrets: {path} has no secret: write one of at least 16 characters in a line of its own"
        )
    if len(found) > SRS_SECRETS or any(len(line) > SRS_SECRET_BYTES for line in found):
        raise ConfigError(
            f"srs_secrets: {path} has more than {SRS_SECRETS} secrets, or one over {SRS_SECRET_BYTES} octets"
        )
    return found


def require_secrets(config: "Config") -> None:
    """ConfigError where the configuration names a file of secrets that cannot be used."""
    if config.srs_domain and config.srs_secrets:
        read_secrets(Path(config.srs_secrets))


def make_secrets(config: "Config") -> None:
    """Sees to it that a worker has secrets: where srs_secrets names no file, one in data_directory is made once.

    ConfigError: there are none that can be used.
    """
    if not config.srs_domain:
        return
    path = secrets_path(config)
    if not config.srs_secrets and not path.exists():
        # Written under another name first: workers start side by side, and each must read the same whole line.
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(secrets.token_urlsafe(32).encode() + b"\n")
            with suppress(FileExistsError):
                os.link(draft, path)
        except OSError as error:
            raise ConfigError(f"srs_secrets: {path}: {error.strerror}") from error
        finally:
            draft.unlink(missing_ok=True)
    read_secrets(path)


def own_srs(config: "Config", now: Callable[[], float]) -> "Srs | None":
    """What a configuration asks for; None where it has no srs_domain. ConfigError: its secrets cannot be read."""
    if not config.srs_domain:
        return None
    keys = read_secrets(secrets_path(config))
    return Srs(config.srs_domain, keys, config.srs_exclude_domains, config.srs_max_age, now)


class Srs:
    """The rewriting of one configuration. `now` is the wall clock in seconds."""

    __slots__ = ("_days", "_excluded", "_now", "_secrets", "domain")

    def __init__(
        self, domain: str, keys: Sequence[bytes], excluded: Sequence[str], max_age_s: float, now: Callable[[], float]
    ) -> None:
        self.domain = domain
        self._secrets = tuple(keys)
        self._excluded = tuple(name.lower() for name in excluded)
        self._days = max(1, int(max_age_s / _DAY_S))
        self._now = now

    def is_excluded(self, domain: str) -> bool:
        """Whether senders of a domain keep their address: srs_exclude_domains, and the domain of SRS itself.

        ".example.org" there stands for what is below example.org, "example.org" for itself, as in postsrsd.
        """
        if domain == self.domain:
            return True
        return any(domain == name or (name[:1] == "." and domain.endswith(name)) for name in self._excluded)

    def forward(self, sender: Address) -> bytes | None:
        """The path that stands for a foreign sender; None where none can: it would be too long, or not lead back."""
        local, domain = sender.local_part, sender.domain
        if "=" in domain:  # no domain of the DNS; the way back would end at the first "="
            return None
        if is_srs(local) and local[3] == "1":
            first, _, rest = _split_srs1(local[5:])
            made = f"SRS1={self._hash(first, rest)}={first}={rest}" if rest else self._new(local, domain)
        elif is_srs(local):
            made = f"SRS1={self._hash(domain, local[4:])}={domain}={local[4:]}"
        else:
            made = self._new(local, domain)
        path = Address(made, self.domain).raw
        return path if len(path) <= SRS_PATH_BYTES else None

    def _new(self, local: str, domain: str) -> str:
        day = self._day()
        return f"SRS0={self._hash(day, domain, local)}={day}={domain}={local}"

    def reverse(self, local_part: str) -> Address:
        """Whom an address of ours stands for. SrsRefused: the hash is wrong, or its time is over."""
        if local_part[3] == "1":
            domain, given, rest = _split_srs1(local_part[5:])
            if not rest or not self._holds(given, domain, rest):
                raise SrsRefused("Invalid SRS address")
            return Address("SRS0" + rest, _domain(domain))
        parts = local_part[5:].split("=", 3)
        if len(parts) < 4 or not all(parts):
            raise SrsRefused("Invalid SRS address")
        given, day, domain, local = parts
        if not self._holds(given, day, domain, local):
            raise SrsRefused("Invalid SRS address")
        if not self._is_fresh(day):
            raise SrsRefused("SRS address has expired")
        return Address(local, _domain(domain))

    # --- hash and day ---

    def _hash(self, *parts: str) -> str:
        return _digest(self._secrets[0], parts)[:_HASH_CHARACTERS]

    def _holds(self, given: str, *parts: str) -> bool:
        """Whether any of the secrets makes this hash. Case is no matter: hosts on the way have changed it."""
        if not _HASH_CHARACTERS <= len(given) <= _HASH_MOST:
            return False
        ours = given.lower().encode("utf-8", "surrogateescape")
        found = False
        for secret in self._secrets:
            found |= hmac.compare_digest(_digest(secret, parts)[: len(given)].lower().encode(), ours)
        return found

    def _day(self) -> str:
        day = int(self._now() / _DAY_S) % _DAYS
        return _BASE32[day >> 5] + _BASE32[day & 31]

    def _is_fresh(self, day: str) -> bool:
        if len(day) != 2 or any(character not in _BASE32 for character in day.upper()):
            return False
        made = (_BASE32.index(day[0].upper()) << 5) | _BASE32.index(day[1].upper())
        age = (int(self._now() / _DAY_S) - made) % _DAYS
        return age <= self._days or age == _DAYS - 1  # a clock that is a day ahead of ours made it


def _digest(secret: bytes, parts: Sequence[str]) -> str:
    mac = hmac.new(secret, digestmod=hashlib.sha1)
    for part in parts:
        mac.update(part.lower().encode("utf-8", "surrogateescape"))
    return base64.b64encode(mac.digest()).decode()


def _split_srs1(text: str) -> tuple[str, str, str]:
    """(first forwarder's domain, hash, what followed SRS0 there) of what stands behind "SRS1="; "" for what is not."""
    given, found, rest = text.partition("=")
    domain, found_too, rest = rest.partition("=")
    if not found or not found_too or not domain or rest[:1] not in ("=", "-", "+") or len(rest) < 2:
        return "", given, ""
    return domain, given, rest


def _domain(text: str) -> str:
    try:
        address = addresses.parse("x@" + text)
    except ValueError as error:
        raise SrsRefused("Invalid SRS address") from error
    return address.domain
