"""Who may be asked for: the Host and Origin of a request, against DNS rebinding and foreign pages in a browser here.

A web page anywhere can let a browser on this machine or network connect to us, under a name of its own that resolves
to our address (DNS rebinding), or from its own origin. The name tells: such a page can choose neither an address, nor
`localhost`, nor a name without a dot (those that containers have), nor our own name. Further names, by which a monitor
may know us, are `http_allowed_hosts`. A request without Host comes from no browser.
"""

import ipaddress
from collections.abc import Iterable
from typing import Final

_HTTP: Final = "://"


class AllowedHosts:
    """The names under which we answer; ".example.org" stands for all names below it."""

    __slots__ = ("_names", "_suffixes")

    def __init__(self, names: Iterable[str] = ()) -> None:
        folded = [name.lower().rstrip(".") for name in names]
        self._names = frozenset(name for name in folded if not name.startswith("."))
        self._suffixes = (".localhost", *(name for name in folded if name.startswith(".")))

    def refusal(self, fields: dict[str, str]) -> str:
        """Why a request with these fields (names in lower case) is not answered, or ""."""
        host = fields.get("host", "")
        if host and not self._allows(_name(host)):
            return "this is no name of this server; http_allowed_hosts can add it"
        origin = fields.get("origin")
        if origin is not None and origin.partition(_HTTP)[2].lower() != host.lower():
            return "pages of other origins are not answered"
        return ""

    def _allows(self, name: str) -> bool:
        if not name or any(ord(character) <= 32 for character in name):
            return False
        if "." not in name and ":" not in name:
            return True
        if name in self._names or name.endswith(self._suffixes):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _name(host: str) -> str:
    """The name or address of a Host field, without its port and an address's brackets; "" where it is none."""
    text = host.lower()
    if text.startswith("["):
        address, bracket, port = text[1:].partition("]")
        return address if bracket and (not port or (port[1:].isdigit() and port[0] == ":")) else ""
    name, colon, port = text.partition(":")
    return name.rstrip(".") if not colon or port.isdigit() or not port else ""
