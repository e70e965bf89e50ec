"""A resolver over a dict for tests of authentication: (name, type) to values, TROUBLE for what no server can say."""

import ipaddress
from typing import Any

from fastmta.dns.resolver import LookupTrouble, NotFound

TROUBLE = "TROUBLE"


class Zone:
    def __init__(self, records: dict[str, dict[str, Any] | str] | None = None) -> None:
        self.records = {name.lower(): value for name, value in (records or {}).items()}
        self.asked: list[tuple[str, str]] = []

    def _get(self, name: str, kind: str) -> tuple[Any, ...]:
        self.asked.append((name, kind))
        known = self.records.get(name.lower().rstrip("."))
        if known is None:
            raise NotFound(name, kind, name_exists=False)
        if known == TROUBLE:
            raise LookupTrouble(name)
        assert isinstance(known, dict)
        values = known.get(kind)
        if values == TROUBLE:
            raise LookupTrouble(name)
        if values is None:
            raise NotFound(name, kind, name_exists=True)
        return tuple(values)

    async def txt(self, name: str) -> tuple[bytes, ...]:
        return tuple(text.encode() if isinstance(text, str) else text for text in self._get(name, "TXT"))

    async def a(self, name: str) -> tuple[str, ...]:
        return self._get(name, "A")

    async def aaaa(self, name: str) -> tuple[str, ...]:
        return self._get(name, "AAAA")

    async def mx(self, domain: str) -> tuple[tuple[int, str], ...]:
        return self._get(domain, "MX")

    async def ptr(self, address: str) -> tuple[str, ...]:
        return self._get(ipaddress.ip_address(address).reverse_pointer, "PTR")
