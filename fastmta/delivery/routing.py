"""Which next hop a recipient goes to: local domains, `[transport]`, transport_maps, relayhost, else the domain's MX.

The order is Postfix's: transport(5)'s keys `user@domain`, `domain`, `.parent` (subdomains only, nearest first) and `*`;
else the domain is local; else default_transport (relay_transport for relay_domains) with the next hop that it names,
else with relayhost, else with the domain itself. Where nothing but that default decides, the sender may
(`Router.route_from`). An answer may be kept until `refresh` says that a table has changed.

A hop is the key under which the queue schedules a recipient, and at the same time the whole route, so an owner needs
nothing else: b"smtp:example.org", b"smtp:[127.0.0.1]:2526", b"lmtp:unix:/run/x", b"local:", b"discard:", b"error:TEXT".
A hop that would be longer than 200 bytes is replaced by b"transport:#" and a digest; its owner asks the router again.
"""

import hashlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import idna
import msgspec

from fastmta.directory.addresses import split_extension, unquote
from fastmta.directory.maps import TableSet
from fastmta.dns.mx import is_internal
from fastmta.model.errors import ConfigError, TemporaryFailure
from fastmta.model.reply import Reply
from fastmta.model.routes import (
    SMTP_PORT,
    NextHop,
    literal_address,
    of_domain,
    parse_route,
    status_reply,
    written_filter,
    written_relayhost,
    written_route,
)

if TYPE_CHECKING:
    from fastmta.config.delivery_keys import DeliveryConfig
    from fastmta.config.schema import Config

HOP_BYTES: Final = 200  # a hop is part of the schedule's key, and LMDB keys end at 511 bytes


class Route(msgspec.Struct, frozen=True, gc=False):
    """Where a recipient goes. `held`: queued and held at once. `refusal`: what RCPT is to be told instead."""

    hop: bytes
    held: bool = False
    refusal: Reply | None = None


LOCAL: Final = Route(b"local:")
_BAD_DOMAIN: Final = Reply(553, "5.1.2", "The recipient's domain is not a valid name")
_MISWRITTEN: Final = Reply(451, "4.3.5", "Mail system configuration error")
_WRITTEN: Final = 10_000  # lines of transport_maps that are kept as the router writes them
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


def next_hop_of(hop: bytes, delivery: "DeliveryConfig") -> NextHop:
    """As `parse_hop`, with the port that the configuration gives to a hop without one."""
    return parse_hop(hop, delivery.smtp_tcp_port)


def parse_hop(hop: bytes, default_port: int = SMTP_PORT) -> NextHop:
    """Takes a hop apart; ValueError says in one line what is wrong with it."""
    return parse_route(hop.decode("utf-8", "surrogateescape"), default_port)


class Router:
    """Routes of one configuration. ConfigError at construction names a wrong `[transport]` entry or relayhost."""

    __slots__ = (
        "_allow_internal",
        "_bad",
        "_default",
        "_default_port",
        "_delimiters",
        "_filter",
        "_has_addresses",
        "_local",
        "_maps",
        "_named",
        "_relay_default",
        "_relay_domains",
        "_relay_hop",
        "_table",
        "_written",
    )

    def __init__(self, config: "Config") -> None:
        self._default_port = config.delivery.smtp_tcp_port
        self._allow_internal = config.delivery.allow_loopback_mx
        self._local = frozenset(_lower(config.mailbox_domains))
        self._delimiters = config.recipient_delimiter
        self._relay_hop = ""
        if config.relayhost:
            self._relay_hop = _written("relayhost", written_relayhost, config.relayhost, self._default_port)
        self._table: dict[str, str] = {}
        for key, value in config.transport.items():
            self._table[key.lower()] = _written(f"transport {key!r}", written_route, value, self._default_port)
        self._named = frozenset(entry.removeprefix("hold:") for entry in self._table.values())
        self._maps = TableSet(config.transport_maps)
        self._written: dict[str, str] = {}
        self._bad = ""  # a line of a table that is no route
        self._has_addresses = bool(self._maps) or any("@" in key for key in self._table)
        self._relay_domains = frozenset(_lower(config.relay_domains))
        self._default = _written("default_transport", written_default, config.default_transport, self._default_port)
        self._filter = config.content_filter
        if self._filter:
            _written("content_filter", written_filter, self._filter, self._default_port)
        self._relay_default = _written("relay_transport", written_default, config.relay_transport, self._default_port)

    @classmethod
    def of_questions(cls, config: "Config") -> "Router | None":
        """The routes of questions about addresses, where they are others than those of mail."""
        if not config.address_verify_transport_maps:
            return None
        others = msgspec.structs.replace(config, transport_maps=config.address_verify_transport_maps, transport={})
        return cls(others)

    def refresh(self) -> bool:
        """Looks whether a table has changed; whether earlier answers may be stale."""
        changed = self._maps.refresh()
        if changed:
            self._written.clear()
            self._bad = ""
        return changed

    def problems(self) -> list[str]:
        """Why tables cannot be used, one line each."""
        return [*self._maps.problems(), *([self._bad] if self._bad else [])]

    def hop_for(self, domain: bytes) -> Route:
        """The route of a domain; keys of the form `user@domain` need `route`."""
        try:
            name = canonical_domain(domain)
        except ValueError:
            return Route(b"", refusal=_BAD_DOMAIN)
        try:
            return self._route(name, self._entry(name))
        except TemporaryFailure as failure:
            return Route(b"", refusal=failure.reply)

    def route(self, forward_path: bytes) -> Route:
        """The route of a whole address."""
        if not self._has_addresses:
            return self.hop_for(forward_path.rpartition(b"@")[2])
        try:
            return self._route(*self._lookup(forward_path))
        except ValueError:
            return Route(b"", refusal=_BAD_DOMAIN)
        except TemporaryFailure as failure:
            return Route(b"", refusal=failure.reply)

    def route_from(self, forward_path: bytes, relayhost: str, transport: str) -> Route | None:
        """The route of an address whose sender has a relayhost or a default transport of his own ("": he has not).

        None: the sender has no say, because a line of [transport] or transport_maps decides, or the domain is ours.
        ValueError: what he has is no route.
        """
        name, entry = self._lookup(forward_path)
        if (entry is None and name in self._local) or entry not in (None, ":", "hold:"):
            return None
        relay = written_relayhost(relayhost, self._default_port) if relayhost else self._relay_hop
        route = self._route(name, entry, relay, written_default(transport, self._default_port) if transport else "")
        if is_digest(route.hop):
            raise ValueError("a route that depends on the sender is longer than a hop may be")
        return route

    def through(self, route: str, forward_path: bytes) -> bytes:
        """The hop of a content filter for a recipient. ValueError: it is none, or too long to be a hop."""
        name = canonical_domain(forward_path.rpartition(b"@")[2])
        hop = hop_key(of_domain(written_filter(route, self._default_port), name))
        if is_digest(hop):
            raise ValueError("the route of a content filter is longer than a hop may be")
        return hop

    def is_filtered(self, hop: bytes, forward_path: bytes) -> bool:
        """Whether a recipient waits for content_filter, which nobody may be led past."""
        try:
            return bool(self._filter) and hop == self.through(self._filter, forward_path)
        except ValueError:
            return False

    def full_hop(self, hop: bytes, forward_path: bytes) -> bytes:
        """The hop itself, also where its key is a digest; routes that have changed since give today's."""
        if not is_digest(hop):
            return hop
        return (
            self._text(*self._lookup(forward_path), self._relay_hop, "")
            .removeprefix("hold:")
            .encode("utf-8", "surrogateescape")
        )

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
        return None if key is None else (key, self._line(key))

    def table_of(self, key: str) -> str:
        """Where a line that decides stands."""
        return "[transport]" if key in self._table else "transport_maps"

    def _line(self, key: str) -> str:
        """What a key that is known stands for, as it is kept."""
        known = self._table.get(key)
        if known is not None:
            return known
        raw = self._maps.get(key) or ""
        written = self._written.get(raw)
        if written is None:
            try:
                written = written_route(raw, self._default_port)
            except ValueError as error:
                self._bad = f"transport_maps: {key}: {error}"
                raise TemporaryFailure(_MISWRITTEN) from error
            if len(self._written) >= _WRITTEN:
                self._written.clear()
            self._written[raw] = written
        return written

    def _has(self, key: str, *, whole: bool = False) -> bool:
        return key in self._table or (bool(self._maps) and self._maps.get(key, whole=whole) is not None)

    def _lookup(self, forward_path: bytes) -> tuple[str, str | None]:
        """(domain, entry or None) of an address."""
        name, key = self._key_of(forward_path)
        return name, None if key is None else self._line(key)

    def _key_of(self, forward_path: bytes) -> tuple[str, str | None]:
        """(domain, key or None): user+extension@domain, then user@domain, then the domain, as transport(5) says."""
        raw_local_part, _, domain = forward_path.rpartition(b"@")
        name = canonical_domain(domain)
        local_part = unquote(raw_local_part.decode("utf-8", "surrogateescape")).lower()
        key = f"{local_part}@{name}"
        if self._has(key, whole=True):
            return name, key
        user, extension = split_extension(local_part, self._delimiters)
        if extension and self._has(f"{user}@{name}"):
            return name, f"{user}@{name}"
        return name, self._key(name)

    def is_local(self, domain: str) -> bool:
        """Whether a canonical domain has its mailboxes here."""
        return domain in self._local

    def _entry(self, name: str) -> str | None:
        key = self._key(name)
        return None if key is None else self._line(key)

    def _key(self, name: str) -> str | None:
        """The key that decides about a domain: itself, its nearest parent after a dot, or "*"."""
        if not self._table and not self._maps:
            return None
        if self._has(name):
            return name
        dot = -1 if name.startswith("[") else name.find(".")
        while dot >= 0:
            if self._has(name[dot:]):
                return name[dot:]
            dot = name.find(".", dot + 1)
        return "*" if self._has("*") else None

    def _usual(self, name: str, relay_hop: str, transport: str) -> str:
        """The route's text where no line decides."""
        default = self._relay_default if self._is_relayed(name) else transport or self._default
        if relay_hop and default in ("smtp:", "lmtp:"):
            return default + relay_hop.partition(":")[2]
        return of_domain(default, name)

    def _is_relayed(self, name: str) -> bool:
        if not self._relay_domains:
            return False
        labels = name.split(".")
        return any(".".join(labels[n:]) in self._relay_domains for n in range(len(labels)))

    def _text(self, name: str, entry: str | None, relay_hop: str, transport: str) -> str:
        """The route's text; `transport:` alone means the domain itself, `:` alone the default transport."""
        default = self._usual(name, relay_hop, transport)
        if entry is None or entry == ":":
            return default
        if entry == "hold:":
            return f"hold:{default}"
        return of_domain(entry, name)

    def _route(self, name: str, entry: str | None, relay_hop: str | None = None, transport: str = "") -> Route:
        relay_hop = self._relay_hop if relay_hop is None else relay_hop
        if name in self._local and entry is None:
            return LOCAL
        if not name or (name.startswith("[") and literal_address(name) is None):
            return Route(b"", refusal=_BAD_DOMAIN)
        literal = literal_address(name) if name.startswith("[") else None
        if literal and entry is None and not relay_hop and not self._allow_internal and is_internal(literal):
            return Route(b"", refusal=_INTERNAL)  # what an MX may not name, a user's literal may not either
        text = self._text(name, entry, relay_hop, transport)
        held = text.startswith("hold:")
        if held:
            text = text[5:]
        refusal = None
        if text.startswith(("error:", "retry:")) and not held:
            transport, _, rest = text.partition(":")
            refusal = status_reply(transport, rest)
        return Route(hop_key(text), held, refusal)


def written_default(text: str, default_port: int = SMTP_PORT) -> str:
    """default_transport and its like: a transport's name, perhaps with a next hop behind a colon."""
    text = text.strip()
    written = written_route(text if ":" in text else f"{text}:", default_port)
    if written.partition(":")[0] in ("hold", "local", ""):
        raise ValueError(f'"{text}" is no way out of this machine')
    return written


def _written(what: str, parse: Callable[[str, int], str], text: str, port: int) -> str:
    try:
        return parse(text, port)
    except ValueError as error:
        raise ConfigError(f"{what}: {error}") from error


def _lower(names: Iterable[str]) -> Iterable[str]:
    return (canonical_domain(name.encode()) for name in names)
