"""What the acts that send reports have in common, of DMARC (dmarc.py) and of TLS (tlsrpt.py)."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import msgspec

from fastmta.operations.desk import Desk

if TYPE_CHECKING:
    from fastmta.dns.resolver import Resolver
    from fastmta.pickup.daily_reports import Sent


class Send(msgspec.Struct, forbid_unknown_fields=True):
    today: Annotated[bool, msgspec.Meta(description="Also of the day that is not over yet.")] = False


async def send_by(desk: Desk, send: "Callable[[Resolver], Awaitable[list[Sent]]]") -> "list[Sent]":
    """Has `send` send the reports that are due; the line of the act says how many went out."""
    from fastmta.dns.resolver import Resolver

    resolver = Resolver(desk.config.dns.nameservers, monotonic=desk.clock.monotonic)
    try:
        sent = await send(resolver)
    finally:
        await resolver.close()
    desk.note(reports=sum(bool(each.to) for each in sent), domains=len(sent))
    return sent
