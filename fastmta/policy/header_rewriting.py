"""Addresses in the header of a message that comes in, written anew: which messages, which fields, what they become.

Postfix's rule of whose header is touched: that of local programs, and of clients in local_header_rewrite_clients, whose
addresses without a domain get myorigin; of all others only where remote_header_rewrite_domain is set, which is the
domain that theirs get then. What changes is a cut and a field of the head, so what is longer than a head has room for
stays.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from fastmta.authentication.message import Field
from fastmta.config.schema import Config
from fastmta.directory.canonical import Canonical, qualified
from fastmta.directory.header_addresses import RECIPIENTS, SENDERS, rewritten
from fastmta.directory.maps import TableSet
from fastmta.dns.mx import Ourselves, ourselves
from fastmta.model.limits import REWRITTEN_FIELD_BYTES, REWRITTEN_HEAD_BYTES
from fastmta.model.services import SERVICES
from fastmta.policy.check import Context
from fastmta.runtime.turns import Turns

DEFAULT_CLIENTS: Final = ("permit_inet_interfaces",)
_MOST: Final = 16  # fields: other checks cut too
_HIDDEN: Final = frozenset({b"bcc", b"resent-bcc", b"return-path"})  # never put in front, where it would be seen


class Change(NamedTuple):
    """One field: where it lies in the message, what it becomes, and its name."""

    at: int
    size: int
    new: bytes
    name: bytes


class HeaderRewriting:
    """The rewriting of headers of one configuration."""

    __slots__ = ("_canonical", "_config", "_ourselves", "_tables", "_words")

    def __init__(self, config: Config, canonical: Canonical) -> None:
        self._config = config
        self._canonical = canonical
        self._ourselves: Ourselves = ourselves(config)
        words = config.local_header_rewrite_clients
        self._words = frozenset(words)
        self._tables = TableSet([word for word in words if ":" in word])

    @staticmethod
    def is_wanted(config: Config) -> bool:
        """Whether any key says that headers are to be looked at."""
        return bool(
            config.canonical_maps
            or config.sender_canonical_maps
            or config.recipient_canonical_maps
            or config.masquerade_domains
            or config.remote_header_rewrite_domain
            or config.local_header_rewrite_clients != DEFAULT_CLIENTS
        )

    def refresh(self) -> None:
        self._tables.refresh()
        for tables in self._canonical.tables:
            tables.refresh()

    def origin(self, context: Context) -> str:
        """The domain for addresses without one; "": this header stays as it is. TemporaryFailure."""
        if context.service not in _SPOKEN or self._is_local(context):
            return self._config.myorigin
        return self._config.remote_header_rewrite_domain

    def _is_local(self, context: Context) -> bool:
        words = self._words
        if "permit_inet_interfaces" in words and self._ourselves.have(context.client_ip):
            return True
        if "permit_mynetworks" in words and context.trusted:
            return True
        if "permit_sasl_authenticated" in words and context.login:
            return True
        return bool(self._tables) and self._tables.get(context.client_ip) is not None

    async def changes(
        self, context: Context, fields: Sequence[Field], turns: Turns
    ) -> tuple[list[Change], list[Change]]:
        """(what changes, what has no room to), for the fields that came. TemporaryFailure."""
        origin = self.origin(context)
        made: list[Change] = []
        left: list[Change] = []
        room = REWRITTEN_HEAD_BYTES
        at = 0
        share = turns.share()
        share.begin()
        try:
            for field in fields if origin else ():
                size = len(field.raw)
                new = await self.field(field, origin, share.pause) if size <= REWRITTEN_FIELD_BYTES else b""
                if new is not None and _has_addresses(field):
                    fits = 0 < len(new) <= room and len(made) < _MOST
                    room -= len(new) if fits else 0
                    (made if fits else left).append(Change(at, size, new, field.name))
                at += size
                await share.pause()
        finally:
            share.leave()
        return made, left

    async def field(self, field: Field, origin: str, pause: Callable[[], Awaitable[None]]) -> bytes | None:
        """The field with its addresses written anew; None: it stays. `pause` lets others have their turn."""
        if not _has_addresses(field):
            return None
        of_sender = field.name in SENDERS
        name, _, value = field.raw.partition(b":")

        def change(text: str) -> str | None:
            try:
                address = qualified(text, origin)
            except ValueError:
                return None
            new = self._canonical.in_header(address, of_sender=of_sender)
            return None if new == address and "@" in text else new.raw.decode("utf-8", "surrogateescape")

        changed = await rewritten(value.decode("utf-8", "surrogateescape"), change, pause)
        return None if changed is None else name + b":" + changed.encode("utf-8", "surrogateescape")


_SPOKEN: Final = frozenset(service.name for service in SERVICES if service.protocol == "smtp")


def _has_addresses(field: Field) -> bool:
    return (field.name in SENDERS or field.name in RECIPIENTS) and field.name not in _HIDDEN


def cuts_of(changes: Sequence[Change]) -> tuple[tuple[int, int], ...]:
    """The ranges that are not shown any more, neighbours joined."""
    out: list[tuple[int, int]] = []
    for change in changes:
        if out and sum(out[-1]) == change.at:
            out[-1] = (out[-1][0], out[-1][1] + change.size)
        else:
            out.append((change.at, change.size))
    return tuple(out)
