"""The domains that we have, by Postfix's address classes, and a written address as one with a domain."""

from enum import Enum
from typing import TYPE_CHECKING

from fastmta.directory import addresses
from fastmta.directory.addresses import Address
from fastmta.directory.aliases import address_of
from fastmta.directory.maps import TableSet
from fastmta.dns.mx import ourselves
from fastmta.model.routes import literal_address

if TYPE_CHECKING:
    from fastmta.config.schema import Config


class DomainClass(Enum):
    """Postfix's address classes. A domain is in one of them."""

    LOCAL = "mydestination"
    MAILBOX = "virtual_mailbox_domains"
    ALIAS = "virtual_alias_domains"
    RELAY = "relay_domains"
    OTHER = "other"


class Domains:
    """Those of one configuration; `virtual` are its virtual_alias_maps, which may name domains too."""

    __slots__ = ("_classes", "_config", "_ourselves", "_relay", "_virtual")

    def __init__(self, config: "Config", virtual: TableSet) -> None:
        self._config = config
        self._virtual = virtual
        self._ourselves = ourselves(config)
        self._classes: dict[str, DomainClass] = {}
        for found in (DomainClass.RELAY, DomainClass.ALIAS, DomainClass.MAILBOX, DomainClass.LOCAL):
            self._classes.update(dict.fromkeys(getattr(config, found.value), found))
        if config.srs_domain:
            self._classes.setdefault(config.srs_domain, DomainClass.ALIAS)
        self._relay = frozenset(config.relay_domains)

    @property
    def own(self) -> str:
        """The domain of whoever is named without one of ours."""
        origin, ours = self._config.myorigin, self._config.mydestination
        return origin if origin in ours or not ours else ours[0]

    def is_of_srs(self, domain: str) -> bool:
        """Whether rewritten senders have it."""
        return bool(domain) and domain == self._config.srs_domain

    def class_of(self, domain: str) -> DomainClass:
        """The class of a canonical domain; relay_domains hold their subdomains too, as in Postfix."""
        found = self._classes.get(domain)
        if found is not None:
            return found
        dot = domain.find(".") if self._relay else -1
        while dot >= 0:
            if domain[dot + 1 :] in self._relay:
                return DomainClass.RELAY
            dot = domain.find(".", dot + 1)
        if self._virtual and self._virtual.get(domain) is not None:  # virtual(5): `example.org anything`
            return DomainClass.ALIAS
        return DomainClass.OTHER

    def qualify(self, text: str) -> Address:
        """A written address as one with a domain: a bare name gets myorigin. ValueError: not an address."""
        name = address_of(text.strip())
        address = addresses.parse(name if "@" in name else f"{name}@{self._config.myorigin}")
        return self._at_address(address) if address.domain[:1] == "[" or address.domain[-1:].isdigit() else address

    def _at_address(self, address: Address) -> Address:
        """`user@[address]`: where the address is ours, the user of our own domain, as in Postfix (RFC 5321 §4.1.3).

        A bare `user@192.0.2.1` is no address, but with resolve_numeric_domain the same as with brackets.
        """
        domain = address.domain
        literal = literal_address(domain)
        if literal is None or domain in self._classes:
            return address
        if domain[0] != "[":
            if not self._config.resolve_numeric_domain:
                raise ValueError("an address without brackets")
            address = Address(address.local_part, f"[{domain}]")
        return Address(address.local_part, self.own) if self._ourselves.have(literal) else address
