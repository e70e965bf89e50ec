"""Which next hop a recipient goes to: local domains, `[transport]`, relayhost, else the MX of the domain.

The order is Postfix's: the domain is local; else transport(5)'s keys `user@domain`, `domain`, `.parent` (subdomains
only, nearest first) and `*`; else relayhost; else `smtp:` and the domain itself. A router is immutable, so an answer
may be kept for as long as the router lives. Nothing here does input or output: names become addresses in dns/.

A hop is the key under which the queue schedules a recipient, and at the same time the whole route, so an owner needs
nothing else: b"smtp:example.org", b"smtp:[127.0.0.1]:2526", b"lmtp:unix:/run/x", b"local:", b"discard:", b"error:TEXT".
A hop that would be longer than 200 bytes is replaced by b"transport:#" and a digest; its owner asks the router again.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

import idna
import msgspec

from fastmta.directory.addresses import split_extension, unquote
from fastmta.dns.mx import is_internal
from fastmta.model.errors import ConfigError
from fastmta.model.reply import Reply
from fastmta.model.routes import (
    SMTP_PORT,
    NextHop,
    literal_address,
    of_domain,
    parse_route,
    status_reply,
    written_relayhost,
    written_route,
)

HOP_BYTES: Final = 200  # a hop is part of the schedule's key, and LMDB keys end at 511 bytes


class DeliveryConfig(Protocol):
    @property
    def smtp_tcp_port(self) -> int: ...
    @property
    def allow_loopback_mx(self) -> bool: ...


class RoutingConfig(Protocol):
    """What of the configuration decides routes."""

    @property
    def mydestination(self) -> tuple[str, ...]: ...
    @property
    def virtual_mailbox_domains(self) -> tuple[str, ...]: ...
    @property
    def relayhost(self) -> str: ...
    @property
    def recipient_delimiter(self) -> str: ...
    @property
    def transport(self) -> Mapping[str, str]: ...
    @property
    def delivery(self) -> DeliveryConfig: ...


class Route(msgspec.Struct, frozen=True, gc=False):
    """Where a recipient goes. `held`: queued and held at once. `refusal`: what RCPT is to be told instead."""

    hop: bytes
    held: bool = False
    refusal: Reply | None = None


LOCAL: Final = Route(b"local:")
_BAD_DOMAIN: Final = Reply(553, "5.1.2", "The recipient's domain is not a valid name")
_INTERNAL: Final = Reply(550, "5.1.2", "Mail is not sent to an internal address")


def canonical_domain(domain: bytes) -> str:
    """The domain in lower case, as A-labels, without a final dot; literals keep their brackets.

    ValueError: not a domain.
    """
    if domain.isascii():
        text = domain.decode("ascii").lower()
        return text[:-1] if text.endswith(".") else text
    try:
        return idna.encode(domain.decode("utf-8"), uts46=True).decode("ascii").lower().rstrip(".")
    except (UnicodeError, idna.IDNAError) as error:
        raise ValueError("not a domain") from error


def hop_key(text: str) -> bytes:
    """The hop of a route's text, shortened to a digest where it is too long for a key."""
    raw = text.encode("utf-8", "surrogateescape")
    if len(raw) <= HOP_BYTES:
        return raw
    return raw[: raw.index(b":") + 1] + b"#" + hashlib.blake2b(raw, digest_size=20).hexdigest().encode()


def is_digest(hop: bytes) -> bool:
    """Whether the hop is a digest, so that `Router.full_hop` has to be asked for the route itself."""
    return hop[hop.find(b":") + 1 :].startswith(b"#")


def parse_hop(hop: bytes, default_port: int = SMTP_PORT) -> NextHop:
    """Takes a hop apart; ValueError says in one line what is wrong with it."""
    return parse_route(hop.decode("utf-8", "surrogateescape"), default_port)


class Router:
    """Routes of one configuration. ConfigError at construction names a wrong `[transport]` entry or relayhost."""

    __slots__ = (
        "_allow_internal",
        "_default_port",
        "_delimiters",
        "_has_addresses",
        "_local",
        "_named",
        "_relay_hop",
        "_table",
    )

    def __init__(self, config: RoutingConfig) -> None:
        self._default_port = config.delivery.smtp_tcp_port
        self._allow_internal = config.delivery.allow_loopback_mx
        self._local = frozenset(_lower((*config.mydestination, *config.virtual_mailbox_domains)))
        self._delimiters = config.recipient_delimiter
        self._relay_hop = ""
        if config.relayhost:
            self._relay_hop = _written("relayhost", written_relayhost, config.relayhost, self._default_port)
        self._table: dict[str, str] = {}
        for key, value in config.transport.items():
            self._table[key.lower()] = _written(f"transport {key!r}", written_route, value, self._default_port)
        self._named = frozenset(entry.removeprefix("hold:") for entry in self._table.values())
        self._has_addresses = any("@" in key for key in self._table)

    def hop_for(self, domain: bytes) -> Route:
        """The route of a domain; keys of the form `user@domain` need `route`."""
        try:
            name = canonical_domain(domain)
        except ValueError:
            return Route(b"", refusal=_BAD_DOMAIN)
        return self._route(name, self._entry(name))

    def route(self, forward_path: bytes) -> Route:
        """The route of a whole address."""
        if not self._has_addresses:
            return self.hop_for(forward_path.rpartition(b"@")[2])
        try:
            return self._route(*self._lookup(forward_path))
        except ValueError:
            return Route(b"", refusal=_BAD_DOMAIN)

    def full_hop(self, hop: bytes, forward_path: bytes) -> bytes:
        """The hop itself, also where its key is a digest; routes that have changed since give today's."""
        if not is_digest(hop):
            return hop
        return self._text(*self._lookup(forward_path)).removeprefix("hold:").encode("utf-8", "surrogateescape")

    def named_by(self, hop: bytes, forward_path: bytes) -> str:
        """Which setting named the full hop: "relayhost", "transport", or "" where it is the recipient's own domain.

        A name that an administrator wrote and that leads nowhere is his mistake; a recipient's is the sender's. A hop
        of yesterday's settings, which today's no longer name, still was the administrator's.
        """
        text = hop.decode("utf-8", "surrogateescape")
        if self._relay_hop and text == self._relay_hop:
            return "relayhost"
        try:
            own = canonical_domain(forward_path.rpartition(b"@")[2])
        except ValueError:
            return "transport"
        if text.partition(":")[2] == own and text not in self._named:
            return ""
        return "transport"

    def line_for(self, forward_path: bytes) -> tuple[str, str] | None:
        """The line of [transport] that decides about an address, as it is kept; None: no line does."""
        try:
            _, key = self._key_of(forward_path)
        except ValueError:
            return None
        return None if key is None else (key, self._table[key])

    def _lookup(self, forward_path: bytes) -> tuple[str, str | None]:
        """(domain, entry or None) of an address."""
        name, key = self._key_of(forward_path)
        return name, None if key is None else self._table[key]

    def _key_of(self, forward_path: bytes) -> tuple[str, str | None]:
        """(domain, key or None): user+extension@domain, then user@domain, then the domain, as transport(5) says."""
        raw_local_part, _, domain = forward_path.rpartition(b"@")
        name = canonical_domain(domain)
        local_part = unquote(raw_local_part.decode("utf-8", "surrogateescape")).lower()
        key = f"{local_part}@{name}"
        if key in self._table:
            return name, key
        user, extension = split_extension(local_part, self._delimiters)
        if extension and f"{user}@{name}" in self._table:
            return name, f"{user}@{name}"
        return name, self._key(name)

    def is_local(self, domain: str) -> bool:
        """Whether a canonical domain has its mailboxes here."""
        return domain in self._local

    def _entry(self, name: str) -> str | None:
        key = self._key(name)
        return None if key is None else self._table[key]

    def _key(self, name: str) -> str | None:
        """The key that decides about a domain: itself, its nearest parent after a dot, or "*"."""
        table = self._table
        if not table:
            return None
        if name in table:
            return name
        dot = -1 if name.startswith("[") else name.find(".")
        while dot >= 0:
            if name[dot:] in table:
                return name[dot:]
            dot = name.find(".", dot + 1)
        return "*" if "*" in table else None

    def _text(self, name: str, entry: str | None) -> str:
        """The route's text; `transport:` alone means the domain itself, `:` alone the default transport."""
        default = self._relay_hop or f"smtp:{name}"
        if entry is None or entry == ":":
            return default
        if entry == "hold:":
            return f"hold:{default}"
        return of_domain(entry, name)

    def _route(self, name: str, entry: str | None) -> Route:
        if name in self._local and entry is None:
            return LOCAL
        if not name or (name.startswith("[") and literal_address(name) is None):
            return Route(b"", refusal=_BAD_DOMAIN)
        literal = literal_address(name) if name.startswith("[") else None
        if literal and entry is None and not self._relay_hop and not self._allow_internal and is_internal(literal):
            return Route(b"", refusal=_INTERNAL)  # what an MX may not name, a user's literal may not either
        text = self._text(name, entry)
        held = text.startswith("hold:")
        if held:
            text = text[5:]
        refusal = None
        if text.startswith(("error:", "retry:")) and not held:
            transport, _, rest = text.partition(":")
            refusal = status_reply(transport, rest)
        return Route(hop_key(text), held, refusal)


def _written(what: str, parse: Callable[[str, int], str], text: str, port: int) -> str:
    try:
        return parse(text, port)
    except ValueError as error:
        raise ConfigError(f"{what}: {error}") from error


def _lower(names: Iterable[str]) -> Iterable[str]:
    return (canonical_domain(name.encode()) for name in names)
