"""Lists of addresses and names in the DNS (RFC 5782): whether one is listed, and in what words it is refused."""

import ipaddress
from collections.abc import Sequence

from fastmta.dns.resolver import LookupTrouble, NotFound, Resolver
from fastmta.model.reply import Reply
from fastmta.model.verdict import Action, Verdict

Allowed = Sequence[frozenset[int]]
_REASON_CHARACTERS = 200


class Lists:
    """Asks lists with one resolver. A list that cannot be asked blocks nobody."""

    def __init__(self, resolver: Resolver, reject_code: int) -> None:
        self._resolver = resolver
        self._code = reject_code

    def reversed(self, ip: str) -> str:
        """An address as the first labels of a list's name; "" where it is none."""
        try:
            address = ipaddress.ip_address(ip)
        except ValueError:
            return ""
        pointer = address.reverse_pointer
        return pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")

    async def blocked(self, key: str, zone: str, allowed: Allowed, kind: str, what: str) -> tuple[str, Verdict] | None:
        """The refusal of what is listed."""
        try:
            if not await self._is_listed(key, zone, allowed):
                return None
        except LookupTrouble:
            return None
        code = self._code
        text = f"Service unavailable; {kind} [{what[:320]}] blocked using {zone}"
        why = await self._reason(f"{key}.{zone}")
        reply = Reply(code, f"{code // 100}.7.1", text + (f"; {why}" if why else ""))
        return "now", Verdict(Action.REJECT if code >= 500 else Action.DEFER, reply, reason=zone)

    async def listed(self, key: str, zone: str, allowed: Allowed, kind: str, what: str) -> tuple[str, Verdict] | None:
        """The permission of what is listed; who cannot be asked turns a refusal into another try."""
        try:
            is_listed = await self._is_listed(key, zone, allowed)
        except LookupTrouble:
            text = f"<{what[:320]}>: {kind} rejected: Service unavailable"
            return "if_reject", Verdict(Action.DEFER, Reply(450, "4.7.1", text), reason=zone)
        return ("now", Verdict(Action.ACCEPT, reason=zone)) if is_listed else None

    async def _is_listed(self, key: str, zone: str, allowed: Allowed) -> bool:
        try:
            found = await self._resolver.a(f"{key}.{zone}")
        except NotFound:
            return False
        return any(_fits(address, allowed) for address in found)

    async def _reason(self, name: str) -> str:
        try:
            texts = await self._resolver.txt(name)
        except (NotFound, LookupTrouble):
            return ""
        text = texts[0].decode("ascii", "replace") if texts else ""
        return "".join(c if 32 <= ord(c) < 127 else "?" for c in text[:_REASON_CHARACTERS])


def _fits(address: str, allowed: Allowed) -> bool:
    """Whether a list's answer counts: one outside of 127.0.0.0/8 is a name server's that invents answers."""
    octets = [int(part) for part in address.split(".")]
    if octets[0] != 127:
        return False
    return not allowed or all(octet in each for octet, each in zip(octets, allowed, strict=True))
