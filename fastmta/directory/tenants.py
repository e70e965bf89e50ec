"""Whose a message is: the tenant that a queued recipient is listed, held and counted by.

A message is the tenant's who sends it: of its login, else of its reverse path where the client may relay. Mail from
others is, for each recipient, the tenant's who gets it. `tenant_maps` name tenants by address and by @domain; without a
line there, each domain of ours is a tenant of its own. Everything else is nobody's. What it was when the message was
accepted stays with it (docs/adr/0273).
"""

from collections.abc import Callable
from typing import Final

from fastmta.directory import addresses
from fastmta.directory.addresses import Address
from fastmta.directory.maps import TableSet

NAME_CHARACTERS: Final = 100


class Tenants:
    """The tenants of one directory, which reads `names` again with its own tables."""

    __slots__ = ("_delimiters", "_is_ours", "names")

    def __init__(self, names: TableSet, delimiters: str, is_ours: Callable[[str], bool]) -> None:
        self.names = names
        self._delimiters = delimiters
        self._is_ours = is_ours

    def of_sender(self, login: str, reverse_path: bytes) -> str:
        """Of a login, "" for none, and of the address that it, or a client that may relay, sends as; "": nobody's."""
        text = login or reverse_path.decode("utf-8", "surrogateescape")
        try:
            return self.of_address(addresses.parse(text))
        except ValueError:
            return ""

    def of_address(self, address: Address) -> str:
        """Of an address with a canonical domain; "": nobody's."""
        found = self._named(address) if self.names else None
        if found is not None:
            return found.strip()[:NAME_CHARACTERS]
        return address.domain if self._is_ours(address.domain) else ""

    def _named(self, address: Address) -> str | None:
        found = self.names.get(address.key)
        if found is None:
            user, extension = addresses.split_extension(address.local_part, self._delimiters)
            if extension:
                found = self.names.get(f"{user}@{address.domain}", whole=False)
        return self.names.get(f"@{address.domain}", whole=False) if found is None else found
