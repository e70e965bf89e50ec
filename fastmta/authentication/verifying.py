"""All of a message's authentication at once: SPF, DKIM, ARC and DMARC side by side, and the field that tells them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple, Protocol

from fastmta.authentication import results
from fastmta.authentication.arc import ArcVerdict, CheckedChain, prepare_arc
from fastmta.authentication.asking import Start, side_by_side
from fastmta.authentication.bodies import Bodies
from fastmta.authentication.dkim import Checked, DkimVerdict, prepare_dkim
from fastmta.authentication.dmarc import DmarcDns, DmarcVerdict, check_dmarc
from fastmta.authentication.message import Field
from fastmta.authentication.signature import Offload, hold
from fastmta.authentication.spf import SpfDns, SpfVerdict, check_spf, spf_at_once
from fastmta.dns.resolver import LookupTrouble
from fastmta.model.limits import AUTHENTICATION_TIME_S


class Dns(SpfDns, DmarcDns, Protocol):
    """dns.resolver.Resolver."""


class _Bounded:
    """Asks nothing once AUTHENTICATION_TIME_S have passed: many names of slow servers take no more of one message."""

    __slots__ = ("_clock", "_dns", "_until")

    def __init__(self, dns: Dns, clock: Callable[[], float]) -> None:
        self._dns = dns
        self._clock = clock
        self._until = clock() + AUTHENTICATION_TIME_S

    def _in_time(self) -> Dns:
        if self._clock() > self._until:
            raise LookupTrouble("the message's verification took too long")
        return self._dns

    def txt(self, name: str) -> Awaitable[tuple[bytes, ...]]:
        return (self._dns if self._clock() <= self._until else self._in_time()).txt(name)

    def a(self, name: str) -> Awaitable[tuple[str, ...]]:
        return self._in_time().a(name)

    def aaaa(self, name: str) -> Awaitable[tuple[str, ...]]:
        return self._in_time().aaaa(name)

    def mx(self, domain: str) -> Awaitable[tuple[tuple[int, str], ...]]:
        return self._in_time().mx(domain)

    def ptr(self, address: str) -> Awaitable[tuple[str, ...]]:
        return self._in_time().ptr(address)


class Client(NamedTuple):
    """Who brings a message, as far as authentication asks."""

    ip: str
    helo: str
    sender: str  # MAIL FROM's address, "" for the null sender


class Verdicts(NamedTuple):
    """What became of all four."""

    spf: SpfVerdict | None
    dkim: tuple[DkimVerdict, ...]
    arc: ArcVerdict
    dmarc: DmarcVerdict

    def parts(self, sender: str) -> list[str]:
        """The parts of Authentication-Results, in the order of their making."""
        out = []
        if self.spf is not None:
            spf = self.spf
            out.append(results.spf_result(spf.result, spf.domain, from_helo=spf.from_helo, sender=sender))
        out += results.dkim_results(self.dkim)
        if self.arc.result != "none":
            out.append(results.arc_result(self.arc))
        dmarc = self.dmarc
        if dmarc.author_domain:
            out.append(results.dmarc_result(dmarc.result, dmarc.policy, dmarc.disposition, dmarc.author_domain))
        return out


async def verify_message(
    fields: Sequence[Field],
    bodies: Bodies,
    client: Client | None,
    dns: Dns,
    offload: Offload,
    now: float,
    *,
    spf: SpfVerdict | None = None,
    receiver: str = "unknown",
) -> Verdicts:
    """Verifies a whole message. `spf`: the verdict if it has been asked for earlier; else `client` is checked."""

    clock = asyncio.get_running_loop().time
    bounded = _Bounded(dns, clock)
    waiting: list[Start] = []
    if spf is None and client is not None:
        who = (bounded, client.ip, client.helo, client.sender)
        spf = spf_at_once(*who)
        if spf is None:
            waiting.append(partial(check_spf, *who, receiver=receiver, now=lambda: now))
    found = await side_by_side(
        partial(prepare_dkim, fields, bodies, bounded, now),
        partial(prepare_arc, fields, bodies, bounded, now),
        waiting=waiting,
    )
    if waiting:
        spf = found[2]
    checked: Checked = found[0]
    chain: CheckedChain = found[1]
    held: tuple[list[bool], int] = ([], 0)
    if checked.operations or chain.operations:
        held = await offload(hold, checked.operations, chain.operations)
    dkim = checked.done(held[0])
    # DMARC has a time of its own: else signatures of slow servers would keep the author's policy from being found.
    dmarc = await check_dmarc(_Bounded(dns, clock), fields, spf, dkim)
    return Verdicts(spf, dkim, chain.done(held[1]), dmarc)
