"""What an accepted envelope brings along: canonical addresses (canonical.py), blind copies, as Postfix's cleanup adds
them, and routes by sender.

Copies go to always_bcc, and to what sender_bcc_maps and recipient_bcc_maps say of the sender (not of the null sender)
and of each recipient as it was given, before aliases; once, for mail that comes in from outside, never for our own
reports, and nothing is ever reported about them.

sender_dependent_relayhost_maps and sender_dependent_default_transport_maps are asked about the sender ("<>" for the
null one) and change the route of whoever has no line of [transport] or transport_maps; DUNNO ends the search.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, Protocol

import msgspec

from fastmta._intake import Recipient, Target
from fastmta.directory import addresses
from fastmta.directory.aliases import split_targets
from fastmta.directory.canonical import Canonical, CanonicalConfig
from fastmta.directory.maps import TableSet
from fastmta.directory.seams import Router
from fastmta.model.envelope import NOTIFY_NEVER, QueuedTarget, RecipientTail, Resolution
from fastmta.model.errors import TemporaryFailure
from fastmta.model.reply import Reply

_NOWHERE: Final = (b"error:", b"discard:", b"retry:")
_TAIL: Final = msgspec.msgpack.Decoder(RecipientTail)
NULL_SENDER: Final = "<>"  # Postfix's empty_address_relayhost_maps_lookup_key
_MISWRITTEN: Final = Reply(451, "4.3.5", "Mail system configuration error")


class OutgoingConfig(CanonicalConfig, Protocol):
    @property
    def always_bcc(self) -> str: ...
    @property
    def sender_bcc_maps(self) -> tuple[str, ...]: ...
    @property
    def recipient_bcc_maps(self) -> tuple[str, ...]: ...
    @property
    def sender_dependent_relayhost_maps(self) -> tuple[str, ...]: ...
    @property
    def sender_dependent_default_transport_maps(self) -> tuple[str, ...]: ...


class Resolver(Protocol):
    """The directory, as far as copies need it."""

    def qualify(self, text: str) -> addresses.Address: ...
    def resolve(self, forward_path: bytes, *, may_relay: bool) -> Resolution: ...


class Outgoing:
    """The additions of one configuration. Look-ups are synchronous. TemporaryFailure: a table cannot be used."""

    __slots__ = (
        "_always",
        "_config",
        "_of_recipients",
        "_of_senders",
        "_relayhosts",
        "_router",
        "_transports",
        "canonical",
    )

    def __init__(self, config: OutgoingConfig, router: Router) -> None:
        self._config = config
        self._router = router
        self._always = config.always_bcc
        self.canonical = Canonical(config)
        self._of_senders = TableSet(config.sender_bcc_maps)
        self._of_recipients = TableSet(config.recipient_bcc_maps)
        self._relayhosts = TableSet(config.sender_dependent_relayhost_maps)
        self._transports = TableSet(config.sender_dependent_default_transport_maps)

    @property
    def changes_any(self) -> bool:
        """Whether an envelope may become another one."""
        return bool(self.copies_any or self.routes_any or self.canonical)

    @property
    def copies_any(self) -> bool:
        return bool(self._always or self._of_senders or self._of_recipients)

    @property
    def routes_any(self) -> bool:
        """Whether senders decide about routes."""
        return bool(self._relayhosts or self._transports)

    @property
    def tables(self) -> tuple[TableSet, ...]:
        return (
            self._of_senders,
            self._of_recipients,
            self._relayhosts,
            self._transports,
            *self.canonical.tables,
        )

    def adjusted(
        self,
        directory: Resolver,
        sender: bytes,
        recipients: Sequence[Recipient],
        copies: bool,
        more: Sequence[bytes] = (),
        through: str = "",
    ) -> list[Recipient]:
        """The recipients of an accepted envelope, each with its sender's route, and behind them those of blind copies:
        by configuration, if `copies` (our own mail has none), and `more` by checks. `through`: they go to this content
        filter first, and the rest is done when it has given the message back.
        """
        out = list(recipients)
        wanted = self.copies(sender, [each.forward_path for each in out]) if copies and not through else []
        wanted += [each.decode("utf-8", "surrogateescape") for each in more]
        for text in dict.fromkeys(wanted):
            try:
                raw = directory.qualify(text).raw
            except ValueError:
                raw = text.encode("utf-8", "surrogateescape")
            found = directory.resolve(raw, may_relay=True)
            if found.refusal is not None and found.refusal.is_temporary:
                raise TemporaryFailure(found.refusal)
            if found.refusal is not None:  # bounced, and nobody is told but the log
                hop = f"error:{found.refusal.enhanced} {found.refusal.text}"[:200].encode("ascii", "replace")
                found = Resolution(targets=(QueuedTarget(raw, hop),))
            out.append(Recipient(raw, found, NOTIFY_NEVER))
        if through:
            return [self._filtered(each, through) for each in out]
        return self.routed(sender, out) if self.routes_any else out

    def _filtered(self, recipient: Recipient, through: str) -> Recipient:
        """The recipient as it was given, at the filter's hop; whom nothing is to be sent to stays."""
        targets = [each for each in recipient.targets if not each.hop.startswith(_NOWHERE)]
        if not targets:
            return recipient
        path = recipient.forward_path
        try:
            hop = self._router.through(through, path)
        except ValueError as error:
            raise TemporaryFailure(_MISWRITTEN) from error
        tail = _TAIL.decode(targets[0].tail)
        held = all(each.held for each in targets)
        return Recipient(
            path, Resolution(targets=(QueuedTarget(path, hop, held),), tenant=tail.tenant), tail.notify, tail.orcpt
        )

    def copies(self, sender: bytes, recipients: Iterable[bytes]) -> list[str]:
        """Who gets a blind copy, as it is written there, each address once."""
        found: dict[str, None] = {}
        if self._of_senders and sender:
            found.update(dict.fromkeys(split_targets(self._find(self._of_senders, sender) or "")))
        for path in recipients if self._of_recipients else ():
            found.update(dict.fromkeys(split_targets(self._find(self._of_recipients, self._now(path)) or "")))
        if self._always:
            found[self._always] = None
        return list(found)

    def _now(self, path: bytes) -> bytes:
        """A recipient that was given, as address rewriting has it."""
        if not self.canonical:
            return path
        try:
            address = addresses.parse(path.decode("utf-8", "surrogateescape"))
        except ValueError:
            return path
        return self.canonical.recipient(address).raw

    def routed(self, sender: bytes, recipients: Sequence[Recipient]) -> list[Recipient]:
        """The recipients, queued where this sender's mail goes."""
        relayhost = self._of_sender(self._relayhosts, sender)
        transport = self._of_sender(self._transports, sender)
        if not relayhost and not transport:
            return list(recipients)
        return [self._rerouted(each, relayhost, transport) for each in recipients]

    def _rerouted(self, recipient: Recipient, relayhost: str, transport: str) -> Recipient:
        targets = [self._moved(target, relayhost, transport) for target in recipient.targets]
        if targets == recipient.targets:
            return recipient
        return Recipient.of(recipient.forward_path, targets)

    def _moved(self, target: Target, relayhost: str, transport: str) -> Target:
        if target.mailbox_id or target.hop.startswith((b"local:", *_NOWHERE)):
            return target
        try:
            route = self._router.route_from(target.address, relayhost, transport)
        except ValueError as error:
            raise TemporaryFailure(_MISWRITTEN) from error
        if route is None or not route.hop or route.hop == target.hop:
            return target
        return Target(
            route.hop, target.tail, target.address, target.original, target.mailbox, 0, target.held or route.held
        )

    def _of_sender(self, tables: TableSet, sender: bytes) -> str:
        if not tables:
            return ""
        found = (self._find(tables, sender) if sender else tables.get(NULL_SENDER)) or ""
        return "" if found.upper() == "DUNNO" else found

    def _find(self, tables: TableSet, path: bytes) -> str | None:
        try:
            address = addresses.parse(path.decode("utf-8", "surrogateescape"))
        except ValueError:
            return None
        for number, key in enumerate(self._keys(address)):
            value = tables.get(key, whole=number == 0)
            if value is not None:
                return value
        return None

    def _keys(self, address: addresses.Address) -> Iterator[str]:
        """In Postfix's order: user+extension@domain, user@domain, user+extension and user of our own, @domain."""
        user, extension = addresses.split_extension(address.local_part, self._config.recipient_delimiter)
        yield f"{address.local_part}@{address.domain}"
        if extension:
            yield f"{user}@{address.domain}"
        if address.domain == self._config.myorigin or address.domain in self._config.mydestination:
            yield address.local_part
            if extension:
                yield user
        yield f"@{address.domain}"
