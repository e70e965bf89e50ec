"""All of a message's authentication at once: SPF, DKIM, ARC and DMARC side by side, and the field that tells them."""

import asyncio
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from fastmta.authentication import results
from fastmta.authentication.arc import ArcVerdict, verify_arc
from fastmta.authentication.bodies import Bodies
from fastmta.authentication.dkim import DkimVerdict, verify_dkim
from fastmta.authentication.dmarc import DmarcDns, DmarcVerdict, check_dmarc
from fastmta.authentication.message import Field
from fastmta.authentication.signature import Offload
from fastmta.authentication.spf import SpfDns, SpfVerdict, check_spf


class Dns(SpfDns, DmarcDns, Protocol):
    """dns.resolver.Resolver."""


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

    async def check_client() -> SpfVerdict | None:
        if spf is not None or client is None:
            return spf
        return await check_spf(dns, client.ip, client.helo, client.sender, receiver=receiver, now=lambda: now)

    spf_verdict, dkim, arc = await asyncio.gather(
        check_client(),
        verify_dkim(fields, bodies, dns, offload, now),
        verify_arc(fields, bodies, dns, offload, now),
    )
    return Verdicts(spf_verdict, dkim, arc, await check_dmarc(dns, fields, spf_verdict, dkim))
