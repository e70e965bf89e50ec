"""Is an address in one of a list of networks: `mynetworks` and the like.

The look-up costs one shift and one set probe for each prefix length that occurs, however many networks there are.
An IPv4-mapped IPv6 address is the IPv4 address it carries (RFC 4291 §2.5.5.2).
"""

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Final

_MEMO_ENTRIES: Final = 4096
_BITS: Final = {4: 32, 6: 128}


class Networks:
    """An immutable set of networks; ValueError at construction names the one that is none."""

    __slots__ = ("_memo", "_prefixes", "_texts")

    def __init__(self, networks: Iterable[str]) -> None:
        self._texts = tuple(networks)
        grouped: dict[tuple[int, int], set[int]] = {}  # (version, shift): networks, shifted down
        for text in self._texts:
            network = ipaddress.ip_network(text.replace("[", "").replace("]", ""), strict=False)
            version, shift = network.version, _BITS[network.version] - network.prefixlen
            grouped.setdefault((version, shift), set()).add(int(network.network_address) >> shift)
        self._prefixes = {
            version: tuple((shift, frozenset(found)) for (v, shift), found in grouped.items() if v == version)
            for version in (4, 6)
        }
        self._memo: dict[str, bool] = {}

    def __contains__(self, ip: object) -> bool:
        """Whether the textual address is in a network; what is no address (a unix socket's "") is in none."""
        if not isinstance(ip, str):
            return False
        found = self._memo.get(ip)
        if found is None:
            found = self._look_up(ip)
            if len(self._memo) >= _MEMO_ENTRIES:
                self._memo.clear()
            self._memo[ip] = found
        return found

    def _look_up(self, ip: str) -> bool:
        try:
            address = ipaddress.ip_address(ip.partition("%")[0])  # fe80::1%eth0
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        number = int(address)
        return any(number >> shift in found for shift, found in self._prefixes[address.version])

    def __bool__(self) -> bool:
        return bool(self._texts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __repr__(self) -> str:
        return f"Networks({list(self._texts)!r})"


def is_loopback(ip: str) -> bool:
    """Whether a peer is this machine, for Dovecot's exception to disable_plaintext_auth; a unix socket's "" is too."""
    return not ip or ip in _LOOPBACK


_LOOPBACK: Final = Networks(("127.0.0.0/8", "::1/128"))
