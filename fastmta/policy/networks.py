"""Is an address in one of a list of networks: `mynetworks` and the like.

The look-up costs one shift and one set probe for each prefix length that occurs, however many networks there are.
An IPv4-mapped IPv6 address is the IPv4 address it carries (RFC 4291 §2.5.5.2).
"""

import ipaddress
import socket
from collections.abc import Iterable, Iterator
from typing import Final

_MEMO_ENTRIES: Final = 4096
_BITS: Final = {4: 32, 6: 128}
_MAPPED: Final = b"\0" * 10 + b"\xff\xff"


def number_of(ip: str) -> tuple[int, int]:
    """(version, the address as a number); (0, 0) for what is none. An IPv4 address in IPv6's clothes is one of IPv4."""
    try:
        if ":" not in ip:
            return 4, int.from_bytes(socket.inet_pton(socket.AF_INET, ip), "big")
        raw = socket.inet_pton(socket.AF_INET6, ip.partition("%")[0])  # fe80::1%eth0
    except (OSError, ValueError):
        return 0, 0
    if raw.startswith(_MAPPED):
        return 4, int.from_bytes(raw[12:], "big")
    return 6, int.from_bytes(raw, "big")


class Networks:
    """A set of networks, which stays as it is; ValueError at construction names the one that is none."""

    __slots__ = ("_memo", "_prefixes", "_texts")

    def __init__(self, networks: Iterable[str]) -> None:
        self._texts = dict.fromkeys(networks)
        self._prefixes: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}  # version: shift: networks, shifted down
        for text in self._texts:
            version, shift, number = _shifted(text)
            self._prefixes[version].setdefault(shift, set()).add(number)
        self._memo: dict[str, bool] = {}

    def __contains__(self, ip: object) -> bool:
        """Whether the textual address is in a network; what is no address (a unix socket's "") is in none."""
        if not self._texts or not isinstance(ip, str):
            return False
        found = self._memo.get(ip)
        if found is None:
            found = self._look_up(ip)
            if len(self._memo) >= _MEMO_ENTRIES:
                self._memo.clear()
            self._memo[ip] = found
        return found

    def _look_up(self, ip: str) -> bool:
        version, number = number_of(ip)
        if not version:
            return False
        return any(number >> shift in found for shift, found in self._prefixes[version].items())

    def __bool__(self) -> bool:
        return bool(self._texts)

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __repr__(self) -> str:
        return f"Networks({list(self._texts)!r})"


class ChangingNetworks(Networks):
    """A set that networks come into and leave, each at the cost of one look-up; they are in their one form."""

    __slots__ = ()

    def add(self, text: str) -> None:
        version, shift, number = _shifted(text)
        self._texts[text] = None
        self._prefixes[version].setdefault(shift, set()).add(number)
        self._memo.clear()

    def discard(self, text: str) -> None:
        if text not in self._texts:
            return
        version, shift, number = _shifted(text)
        del self._texts[text]
        found = self._prefixes[version][shift]
        found.discard(number)
        if not found:
            del self._prefixes[version][shift]
        self._memo.clear()

    def has(self, text: str) -> bool:
        """Whether just this network is one of them."""
        return text in self._texts

    def __len__(self) -> int:
        return len(self._texts)


def _shifted(text: str) -> tuple[int, int, int]:
    network = ipaddress.ip_network(text.replace("[", "").replace("]", ""), strict=False)
    shift = _BITS[network.version] - network.prefixlen
    return network.version, shift, int(network.network_address) >> shift


def is_loopback(ip: str) -> bool:
    """Whether a peer is this machine, for Dovecot's exception to disable_plaintext_auth; a unix socket's "" is too."""
    return not ip or ip in _LOOPBACK


_LOOPBACK: Final = Networks(("127.0.0.0/8", "::1/128"))
