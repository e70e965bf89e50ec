"""`fastmta queue suspend`, `resume` and `top`: next hops, stopped, started again, and the busiest of them."""

import os
import time
from typing import TYPE_CHECKING, Any, Final

import click

from fastmta.cli.acts import tell
from fastmta.cli.failures import EX_DATAERR, EX_USAGE, CommandFailed
from fastmta.cli.hops import hop_of, shown, states
from fastmta.cli.opened import run
from fastmta.cli.output import age, config_option, json_option, print_json, print_table
from fastmta.config.schema import Config
from fastmta.model.errors import Refused
from fastmta.model.limits import SUSPENDED_HOPS
from fastmta.runtime.identity import user_name

if TYPE_CHECKING:
    from fastmta.store import MailStore

_FAR_MS: Final = 2**62
_LOOKED: Final = 20  # recipients of a hop among which one with a last answer is sought

_names = click.argument("names", metavar="DOMAIN", nargs=-1)


@click.command()
@_names
@click.option("--all", "everything", is_flag=True, help="Every next hop.")
@json_option
@config_option
def suspend(names: tuple[str, ...], everything: bool, as_json: bool, config_path: str | None) -> None:
    """Stop delivery to domains, or to next hops such as smtp:[host]:25: their mail waits in the queue until resumed.

    New mail is accepted and waits too, over restarts, and neither flush nor requeue overrides it. What is being
    delivered at this moment ends.
    """
    _require_names(names, everything)

    async def work(config: Config, store: "MailStore") -> list[dict[str, str]]:
        wanted = {b"*": "*"} if everything else {hop_of(config, name): name.lower() for name in names}
        by = user_name(os.getuid())
        out = []
        for hop, name in wanted.items():
            try:
                added = await store.suspensions.add([hop], name, by)
            except Refused as refusal:
                raise CommandFailed(
                    f"{SUSPENDED_HOPS} next hops are suspended; resume some, or suspend --all", EX_DATAERR
                ) from refusal
            for each in added:
                tell(config, "queue.suspend", next_hop=shown(each), name=name)
                out.append({"name": name, "next_hop": shown(each)})
        states(config)  # the owners have read it when this returns
        return out

    _say(run(config_path, work), "suspended", "suspended already", as_json)


@click.command()
@_names
@click.option("--all", "everything", is_flag=True, help="Everything that is suspended.")
@json_option
@config_option
def resume(names: tuple[str, ...], everything: bool, as_json: bool, config_path: str | None) -> None:
    """Let suspended next hops deliver again: what waits for them is due at once."""
    _require_names(names, everything)

    async def work(config: Config, store: "MailStore") -> list[dict[str, str]]:
        found = store.suspensions.by_hop()
        chosen = dict(found) if everything else {}
        for name in names:
            # By the name that was given then, since routes may have changed; else by today's hop.
            hops = [hop for hop, each in found.items() if name.lower() in (each.name, shown(hop).lower())]
            hops = hops or [hop for hop in [hop_of(config, name)] if hop in found]
            if not hops and b"*" in found:
                raise CommandFailed("every next hop is suspended: fastmta queue resume --all", EX_DATAERR)
            if not hops:
                known = ", ".join(sorted({each.name for each in found.values()})[:10])
                raise CommandFailed(f"{name} is not suspended; what is: {known or 'nothing'}", EX_DATAERR)
            chosen.update({hop: found[hop] for hop in hops})
        await store.suspensions.remove(chosen)
        for hop, each in chosen.items():
            tell(config, "queue.resume", next_hop=shown(hop), name=each.name)
        states(config)
        return [{"name": each.name, "next_hop": shown(hop)} for hop, each in chosen.items()]

    _say(run(config_path, work), "resumed", "nothing was suspended", as_json)


@click.command()
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="At most so many hops.")
@json_option
@config_option
def top(limit: int, as_json: bool, config_path: str | None) -> None:
    """Show the busiest next hops: what waits, what is in flight, and the last trouble."""

    async def work(config: Config, store: "MailStore") -> list[dict[str, Any]]:
        return busiest(config, store, limit)

    found = run(config_path, work)
    if as_json:
        print_json(found)
    elif not found:
        print("no mail waits for any next hop, and none is suspended")
    else:
        headings = (
            "NEXT HOP",
            "WAITING",
            "DEFERRED",
            "HELD",
            "IN FLIGHT",
            "CONNECTIONS",
            "OLDEST",
            "STATE",
            "LAST ERROR",
        )
        rows = [
            (
                each["next_hop"],
                each["waiting"],
                each["deferred"],
                each["held"],
                "?" if each["in_flight"] is None else each["in_flight"],
                "?" if each["connections"] is None else f"{each['connections']}/{each['concurrency']}",
                "-" if each["oldest_seconds"] is None else age(each["oldest_seconds"]),
                each["state"],
                each["last_error"],
            )
            for each in found
        ]
        print_table(headings, rows, right=(1, 2, 3, 4, 5, 6))


def busiest(config: Config, store: "MailStore", limit: int) -> list[dict[str, Any]]:
    """The hops with most recipients that are not held, those that are suspended first of all.

    `in_flight`, `connections` and `concurrency` are None while no server runs.
    """
    stopped = store.suspensions.by_hop()
    counts = {hop: (active, deferred, held) for hop, active, deferred, held in store.queue.hop_counts()}
    for hop in stopped:
        if hop != b"*":
            counts.setdefault(hop, (0, 0, 0))
    order = sorted(counts, key=lambda hop: (hop not in stopped, -counts[hop][0] - counts[hop][1], hop))[:limit]
    known: dict[str, dict[str, Any]] | None = {}
    for start in range(0, len(order), 50):
        page = states(config, order[start : start + 50])
        if page is None:
            known = None
            break
        known.update({each["next_hop"]: each for each in page})  # type: ignore[union-attr]
    out = []
    for hop in order:
        active, deferred, held = counts[hop]
        now = {} if known is None else known.get(shown(hop), {})
        suspended = stopped.of(hop)
        last, oldest_ms = _last_error(store, hop)
        out.append(
            {
                "next_hop": shown(hop),
                "waiting": active + deferred,
                "active": active,
                "deferred": deferred,
                "held": held,
                "in_flight": None if known is None else now.get("in_flight", 0),
                "connections": None if known is None else now.get("connections", 0),
                "concurrency": None if known is None else now.get("concurrency", 0),
                "oldest_seconds": None if oldest_ms is None else max(0, round(time.time() - oldest_ms / 1000)),
                "state": state_of(suspended is not None, now),
                "last_error": now.get("reason") or last,
            }
        )
    return out


def state_of(suspended: bool, now: dict[str, Any]) -> str:
    """One word for a hop, from what is suspended and what its owner says."""
    if suspended:
        return "suspended"
    if now.get("dead_seconds"):
        return f"dead for {now['dead_seconds']}s"
    return "delivering" if now.get("in_flight") else "waiting"


def _last_error(store: "MailStore", hop: bytes) -> tuple[str, int | None]:
    """(a last answer, when the oldest was received) among the first recipients of a hop's schedule."""
    rows = store.queue.due(hop, _FAR_MS, _LOOKED)
    reply, oldest_ms = "", None
    for message, recipients in store.queue.load_readable([(row[2], row[3]) for row in rows])[0]:
        received_ms = message.envelope.received_at_ms
        oldest_ms = received_ms if oldest_ms is None else min(oldest_ms, received_ms)
        reply = reply or next(
            (each.last_reply.decode("utf-8", "replace") for each in recipients if each.last_reply), ""
        )
    return reply, oldest_ms


def _require_names(names: tuple[str, ...], everything: bool) -> None:
    if bool(names) == everything:
        raise CommandFailed("which? give domains or next hops, or --all for everything", EX_USAGE)


def _say(done: list[dict[str, str]], what: str, nothing: str, as_json: bool) -> None:
    if as_json:
        print_json(done)
        return
    for each in done:
        hop = "every next hop" if each["next_hop"] == "*" else each["next_hop"]
        print(f"{hop} {what}")
    if not done:
        print(nothing)
