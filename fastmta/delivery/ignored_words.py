"""Which keywords of a server's EHLO or LHLO count as not offered: Postfix's smtp_discard_ehlo_keyword_address_maps,
which are asked by the server's address, and smtp_discard_ehlo_keywords for the servers of whom they know nothing.
"""

from typing import TYPE_CHECKING

from fastmta.directory.maps import TableSet

if TYPE_CHECKING:
    from fastmta.config.delivery_keys import DeliveryConfig


def _words(texts: list[str] | tuple[str, ...]) -> frozenset[str]:
    return frozenset(text.upper() for text in texts)


class IgnoredWords:
    """The keywords of one configuration."""

    __slots__ = ("_always", "_maps")

    def __init__(self, delivery: "DeliveryConfig") -> None:
        always = {"smtp": delivery.smtp_discard_ehlo_keywords, "lmtp": delivery.lmtp_discard_lhlo_keywords}
        maps = {
            "smtp": delivery.smtp_discard_ehlo_keyword_address_maps,
            "lmtp": delivery.lmtp_discard_lhlo_keyword_address_maps,
        }
        self._always = {name: _words(texts) for name, texts in always.items()}
        self._maps = {name: TableSet(names) for name, names in maps.items()}

    def refresh(self) -> None:
        """Reads maps again that have changed; for once a second."""
        for maps in self._maps.values():
            maps.refresh()

    def of(self, transport: str, ip: str) -> frozenset[str]:
        """The keywords in upper case. TemporaryFailure: a map cannot be asked, so nobody may guess."""
        maps = self._maps[transport]
        found = maps.get(ip) if maps else None
        return self._always[transport] if found is None else _words(found.replace(",", " ").split())
