"""The DNS of a simulation: a zone in memory behind the real resolver, whose cache and shared questions are as ever."""

from typing import TYPE_CHECKING, Any, Final

from fastmta.dns.resolver import LookupTrouble, NotFound, Resolver

if TYPE_CHECKING:
    from fastmta.simulation.loop import VirtualLoop

_TTL_S: Final = 300.0
_LATENCY_S: Final = 0.005


class Zone:
    """Records by (name, type), in the form that Resolver gives them. A name with any record exists.

    `troubled` names are not answered for: SERVFAIL.
    """

    def __init__(self) -> None:
        self._records: dict[tuple[str, str], tuple[Any, ...]] = {}
        self._names: dict[str, int] = {}
        self.troubled: dict[str, None] = {}
        self.ttl_s = _TTL_S

    def put(self, name: str, kind: str, *values: Any) -> None:
        """Puts records in the place of those that were there; none: they go."""
        known = self._records.pop((name, kind), None)
        self._names[name] = self._names.get(name, 0) - (known is not None) + bool(values)
        if values:
            self._records[name, kind] = values

    def find(self, name: str, kind: str) -> tuple[Any, ...]:
        """NotFound, LookupTrouble."""
        if name in self.troubled:
            raise LookupTrouble(f"no name server could answer for {name} {kind}: SERVFAIL")
        try:
            return self._records[name, kind]
        except KeyError:
            raise NotFound(name, kind, name_exists=self._names.get(name, 0) > 0) from None


class ZoneResolver(Resolver):
    """The resolver, asking a zone."""

    def __init__(self, loop: "VirtualLoop", zone: Zone) -> None:
        super().__init__((), monotonic=loop.time)
        self._loop = loop
        self._zone = zone

    def _send(self, asked: tuple[str, str]) -> None:
        self._loop.call_later(_LATENCY_S, self._find, *asked)

    def _find(self, name: str, kind: str) -> None:
        try:
            values = self._zone.find(name, kind)
        except NotFound as absence:
            self._cache.put(name, kind, absence, self._zone.ttl_s)
            self._tell(name, kind, absence)
        except LookupTrouble as trouble:
            self._tell(name, kind, trouble)
        else:
            self._cache.put(name, kind, values, self._zone.ttl_s)
            self._tell(name, kind, values)
