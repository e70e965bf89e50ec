"""Addresses written anew, as Postfix's cleanup(8) and smtp(8) do it (ADDRESS_REWRITING_README).

In envelopes and in header fields sender_canonical_maps or recipient_canonical_maps come first, then canonical_maps,
then masquerade_domains, each for the classes that its key names. A map is asked until it says no more, or says the
same; an extension that no key matched goes along. smtp_generic_maps are asked once, as mail leaves, and take no
extension along.

Look-ups are synchronous. TemporaryFailure: a table cannot be used, or leads in a circle.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

from fastmta.directory import addresses
from fastmta.directory.addresses import Address
from fastmta.directory.maps import TableSet
from fastmta.model.errors import TemporaryFailure
from fastmta.model.reply import Reply

_FIRST: Final = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^\s,"])+')  # of several addresses one counts
_NESTING: Final = 10  # Postfix's
_CIRCLE: Final = Reply(451, "4.3.0", "Address rewriting leads in a circle")


class Origin(Protocol):
    """What decides which addresses are looked up without their domain."""

    @property
    def myorigin(self) -> str: ...
    @property
    def mydestination(self) -> tuple[str, ...]: ...
    @property
    def recipient_delimiter(self) -> str: ...


class CanonicalConfig(Origin, Protocol):
    @property
    def canonical_maps(self) -> tuple[str, ...]: ...
    @property
    def canonical_classes(self) -> tuple[str, ...]: ...
    @property
    def sender_canonical_maps(self) -> tuple[str, ...]: ...
    @property
    def sender_canonical_classes(self) -> tuple[str, ...]: ...
    @property
    def recipient_canonical_maps(self) -> tuple[str, ...]: ...
    @property
    def recipient_canonical_classes(self) -> tuple[str, ...]: ...
    @property
    def masquerade_domains(self) -> tuple[str, ...]: ...
    @property
    def masquerade_exceptions(self) -> tuple[str, ...]: ...
    @property
    def masquerade_classes(self) -> tuple[str, ...]: ...


class AddressMap:
    """One map from addresses to addresses, in the order of canonical(5) and generic(5)."""

    __slots__ = ("_config", "_propagates", "tables")

    def __init__(self, config: Origin, names: tuple[str, ...], *, propagates: bool) -> None:
        self._config = config
        self._propagates = propagates
        self.tables = TableSet(names)

    def __bool__(self) -> bool:
        return bool(self.tables)

    def once(self, address: Address) -> Address | None:
        """What the map says of an address; None: nothing, or no address."""
        found = self._find(address)
        if found is None:
            return None
        value, extension = found
        first = _FIRST.match(value)
        if first is None:
            return None
        written = first[0]
        try:
            if written.startswith("@"):  # the local part stays, with all that it has
                return addresses.parse(f"{addresses.quote(address.local_part)}{written}")
            target = qualified(written, self._config.myorigin)
        except ValueError:
            return None
        if not target.local_part:
            return None
        return Address(target.local_part + extension, target.domain) if self._propagates else target

    def to_the_end(self, address: Address) -> Address:
        """What it comes to when the map is asked over and over."""
        for _ in range(_NESTING):
            found = self.once(address)
            if found is None or found == address:
                return address
            if found.key == address.key:
                return found
            address = found
        raise TemporaryFailure(_CIRCLE)

    def _find(self, address: Address) -> tuple[str, str] | None:
        """(value, extension that no key matched)."""
        for number, (key, unmatched) in enumerate(self._keys(address)):
            value = self.tables.get(key, whole=number == 0)
            if value is not None:
                return value, unmatched
        return None

    def _keys(self, address: Address) -> Iterator[tuple[str, str]]:
        config = self._config
        user, extension = addresses.split_extension(address.local_part, config.recipient_delimiter)
        yield f"{addresses.quote(address.local_part)}@{address.domain}", ""
        if extension:
            yield f"{addresses.quote(user)}@{address.domain}", extension
        if address.domain == config.myorigin or address.domain in config.mydestination:
            yield address.local_part, ""
            if extension:
                yield user, extension
        yield f"@{address.domain}", extension


class _Step(NamedTuple):
    """What is done to the addresses of some classes."""

    classes: frozenset[str]
    change: Callable[[Address], Address]


class Canonical:
    """The rewriting of one configuration. `steps` for senders and for recipients, in order."""

    __slots__ = ("_domains", "_exceptions", "_maps", "_recipients", "_senders")

    def __init__(self, config: CanonicalConfig) -> None:
        senders = AddressMap(config, config.sender_canonical_maps, propagates=True)
        recipients = AddressMap(config, config.recipient_canonical_maps, propagates=True)
        common = AddressMap(config, config.canonical_maps, propagates=True)
        self._maps = (senders, recipients, common)
        self._domains = [
            (text.lstrip("!").lower(), (len(text) - len(text.lstrip("!"))) % 2 == 0)
            for text in config.masquerade_domains
            if text.strip("!")
        ]
        self._exceptions = frozenset(text.lower() for text in config.masquerade_exceptions)
        behind = []
        if common:
            behind.append(_Step(frozenset(config.canonical_classes), common.to_the_end))
        if self._domains:
            behind.append(_Step(frozenset(config.masquerade_classes), self._masqueraded))
        self._senders, self._recipients = list(behind), list(behind)
        if senders:
            self._senders.insert(0, _Step(frozenset(config.sender_canonical_classes), senders.to_the_end))
        if recipients:
            self._recipients.insert(0, _Step(frozenset(config.recipient_canonical_classes), recipients.to_the_end))

    @property
    def tables(self) -> tuple[TableSet, ...]:
        return tuple(each.tables for each in self._maps)

    def __bool__(self) -> bool:
        return bool(self._senders or self._recipients)

    def sender(self, path: bytes) -> bytes:
        """An envelope's reverse path; the null path, and what is no address, stay."""
        if not self._senders or not path:
            return path
        try:
            address = addresses.parse(path.decode("utf-8", "surrogateescape"))
        except ValueError:
            return path
        changed = _applied(self._senders, "envelope_sender", address)
        return path if changed == address else changed.raw

    def recipient(self, address: Address) -> Address:
        """An envelope's recipient, before its aliases."""
        return _applied(self._recipients, "envelope_recipient", address) if self._recipients else address

    def in_header(self, address: Address, *, of_sender: bool) -> Address:
        """An address in a header field."""
        if of_sender:
            return _applied(self._senders, "header_sender", address)
        return _applied(self._recipients, "header_recipient", address)

    def _masqueraded(self, address: Address) -> Address:
        """Without the host's name in front of a domain that is listed; the first that fits counts, `!` spares."""
        if address.local_part.lower() in self._exceptions:
            return address
        for domain, strips in self._domains:
            if address.domain == domain:
                break
            if address.domain.endswith("." + domain):
                return Address(address.local_part, domain) if strips else address
        return address


def qualified(text: str, origin: str) -> Address:
    """An address as it is written in a header or a table; one without "@" gets a domain: of user%domain and
    domain!user the one that they have, of a bare name `origin`, as trivial-rewrite(8) does it. ValueError.
    """
    if "@" not in text:
        host, bang, user = text.partition("!")
        local_part, percent, domain = text.rpartition("%")
        if bang and host and user:
            return addresses.parse(f"{user}@{host}")
        if percent and local_part and domain:
            return addresses.parse(f"{local_part}@{domain}")
        if not origin:
            raise ValueError("an address without a domain")
        text = f"{text}@{origin}"
    return addresses.parse(text)


def _applied(steps: list[_Step], kind: str, address: Address) -> Address:
    for step in steps:
        if kind in step.classes:
            address = step.change(address)
    return address
