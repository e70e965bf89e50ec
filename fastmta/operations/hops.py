"""Next hops, stopped, started again, and the busiest of them: the acts `queue.suspend`, `resume` and `top`."""

import heapq
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from fastmta.model.errors import ActFailed, Refused
from fastmta.model.limits import HOPS_TOLD, SUSPENDED_HOPS
from fastmta.operations.acts import act
from fastmta.operations.desk import Desk
from fastmta.operations.listing import HOPS_AT_ONCE
from fastmta.operations.queued import text

if TYPE_CHECKING:
    from fastmta.config.schema import Config

EVERY: Final = b"*"
_FAR_MS: Final = 2**62
_LOOKED: Final = 20  # recipients of a hop among which one with a last answer is sought

Names = Annotated[tuple[str, ...], msgspec.Meta(extra={"argument": True, "metavar": "DOMAIN"})]


class SuspendHops(msgspec.Struct, forbid_unknown_fields=True):
    names: Names = ()
    everything: Annotated[bool, msgspec.Meta(description="Every next hop.", extra={"option": "--all"})] = False


class ResumeHops(msgspec.Struct, forbid_unknown_fields=True):
    names: Names = ()
    everything: Annotated[
        bool, msgspec.Meta(description="Everything that is suspended.", extra={"option": "--all"})
    ] = False


class Hop(msgspec.Struct):
    """A next hop, under the name that was given for it."""

    name: str
    next_hop: str


@act("queue.suspend", changes=True)
async def suspend(desk: Desk, asked: SuspendHops) -> list[Hop]:
    """Stop delivery to domains, or to next hops such as smtp:[host]:25: their mail waits in the queue until resumed.

    New mail is accepted and waits too, over restarts, and neither flush nor requeue overrides it. What is being
    delivered at this moment ends.
    """
    _require_names(asked.names, asked.everything)
    wanted = {EVERY: "*"} if asked.everything else {hop_of(desk.config, name): name.lower() for name in asked.names}
    out = []
    for hop, name in wanted.items():
        try:
            added = await desk.store.suspensions.add([hop], name, desk.actor.user)
        except Refused as refusal:
            raise ActFailed(
                f"{SUSPENDED_HOPS} next hops are suspended; resume some, or suspend --all", "invalid"
            ) from refusal
        for each in added:
            desk.tell(next_hop=text(each), name=name)
            out.append(Hop(name, text(each)))
        await desk.pause()
    await desk.owners.hops(["*"])  # they have read it when this returns
    return out


@act("queue.resume", changes=True)
async def resume(desk: Desk, asked: ResumeHops) -> list[Hop]:
    """Let suspended next hops deliver again: what waits for them is due at once."""
    _require_names(asked.names, asked.everything)
    found = desk.store.suspensions.by_hop()
    chosen = dict(found) if asked.everything else {}
    for name in asked.names:
        # By the name that was given then, since routes may have changed; else by today's hop.
        hops = [hop for hop, one in found.items() if name.lower() in (one.name, text(hop).lower())]
        hops = hops or [hop for hop in [hop_of(desk.config, name)] if hop in found]
        if not hops and EVERY in found:
            raise ActFailed("every next hop is suspended: fastmta queue resume --all", "invalid")
        if not hops:
            known = ", ".join(sorted({one.name for one in found.values()})[:10])
            raise ActFailed(f"{name} is not suspended; what is: {known or 'nothing'}", "invalid")
        chosen.update({hop: found[hop] for hop in hops})
    await desk.store.suspensions.remove(chosen)
    out = [Hop(one.name, text(hop)) for hop, one in chosen.items()]
    for each in out:
        desk.tell(next_hop=each.next_hop, name=each.name)
    await desk.owners.hops(["*"])
    return out


def _require_names(names: tuple[str, ...], everything: bool) -> None:
    if bool(names) == everything:
        raise ActFailed("which? give domains or next hops, or --all for everything", "usage")


def hop_of(config: "Config", name: str) -> bytes:
    """The hop that a domain's mail takes by today's routes, or the hop that is written out ("smtp:[host]:25").

    ActFailed where mail of the domain has no hop of its own.
    """
    from fastmta.delivery.routing import Router, hop_key, next_hop_of

    if ":" in name and not name.startswith("["):
        try:
            next_hop_of(name.encode("utf-8", "surrogateescape"), config.delivery)
        except ValueError as error:
            raise ActFailed(f"{name}: no next hop: {error}", "invalid") from error
        return hop_key(name)
    router = Router(config)
    domain = name.removeprefix("@").encode("utf-8", "surrogateescape")
    route = router.hop_for(domain)
    if not route.hop:
        raise ActFailed(f"{name}: not a domain", "invalid")
    if route.hop == b"local:":
        raise ActFailed(f"{name} is local: its mail takes no next hop", "invalid")
    full = router.full_hop(route.hop, b"postmaster@" + domain)
    if router.named_by(full, b"postmaster@" + domain) == "relayhost":
        raise ActFailed(
            f"mail for {name} goes by relayhost with all other mail; name that hop instead: {text(route.hop)}",
            "invalid",
        )
    return route.hop


# --- the busiest ---


class TopHops(msgspec.Struct, forbid_unknown_fields=True):
    limit: Annotated[int, msgspec.Meta(description="At most so many hops.", ge=1, le=1000)] = 20


class Busy(msgspec.Struct):
    """A next hop; `in_flight`, `connections` and `concurrency` are None while no server runs."""

    next_hop: str
    waiting: int
    active: int
    deferred: int
    held: int
    in_flight: int | None
    connections: int | None
    concurrency: int | None
    oldest_seconds: int | None
    state: str
    last_error: str


@act("queue.top", waits=False)
async def top(desk: Desk, asked: TopHops) -> list[Busy]:
    """Show the busiest next hops: what waits, what is in flight, and the last trouble."""
    stopped = desk.store.suspensions.by_hop()
    counts = {hop: (0, 0, 0) for hop in stopped if hop != EVERY}
    for n, (hop, active, deferred, held) in enumerate(desk.store.queue.hop_counts(), 1):
        counts[hop] = (active, deferred, held)
        if n % HOPS_AT_ONCE == 0:
            await desk.pause()
    order = heapq.nsmallest(
        asked.limit, counts, key=lambda hop: (hop not in stopped, -counts[hop][0] - counts[hop][1], hop)
    )
    known = await in_hand(desk, order)
    out = []
    for hop in order:
        active, deferred, held = counts[hop]
        now = {} if known is None else known.get(text(hop), {})
        suspended = stopped.of(hop)
        last, oldest_ms = _last_error(desk, hop)
        out.append(
            Busy(
                text(hop),
                active + deferred,
                active,
                deferred,
                held,
                None if known is None else now.get("in_flight", 0),
                None if known is None else now.get("connections", 0),
                None if known is None else now.get("concurrency", 0),
                None if oldest_ms is None else max(0, round(desk.clock.now() - oldest_ms / 1000)),
                state_of(suspended is not None, now),
                now.get("reason") or last,
            )
        )
        await desk.pause()
    return out


async def in_hand(desk: Desk, hops: Iterable[bytes]) -> dict[str, dict[str, Any]] | None:
    """What the owners have in hand for these hops, by hop; None where no server runs."""
    named = [hop.decode("utf-8", "surrogateescape") for hop in hops]
    known: dict[str, dict[str, Any]] = {}
    for start in range(0, len(named), HOPS_TOLD):
        page = await desk.owners.hops(named[start : start + HOPS_TOLD])
        if page is None:
            return None
        known.update({each["next_hop"]: each for each in page})
    return known


def state_of(suspended: bool, now: dict[str, Any]) -> str:
    """One word for a hop, from what is suspended and what its owner says."""
    if suspended:
        return "suspended"
    if now.get("dead_seconds"):
        return f"dead for {now['dead_seconds']}s"
    if now.get("shaped"):
        return "shaped"
    return "delivering" if now.get("in_flight") else "waiting"


def _last_error(desk: Desk, hop: bytes) -> tuple[str, int | None]:
    """(a last answer, when the oldest was received) among the first recipients of a hop's schedule."""
    queue = desk.store.queue
    rows = queue.due(hop, _FAR_MS, _LOOKED)
    reply, oldest_ms = "", None
    for message, recipients in queue.load_readable([(row[2], row[3]) for row in rows])[0]:
        received_ms = message.envelope.received_at_ms
        oldest_ms = received_ms if oldest_ms is None else min(oldest_ms, received_ms)
        reply = reply or next(
            (each.last_reply.decode("utf-8", "replace") for each in recipients if each.last_reply), ""
        )
    return reply, oldest_ms
