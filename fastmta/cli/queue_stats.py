"""`fastmta queue stats`: what the store keeps count of, by state and next hop; a small queue is counted by domain, too.

The counts by next hop cost a row a hop, however long the queue is. Messages, bytes and domains are in no count, so the
whole queue is walked for them: up to COUNTED recipients, or because somebody asks for it.
"""

import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from fastmta.cli.output import age, print_table, size
from fastmta.cli.selection import Selector, selected
from fastmta.config.schema import Config
from fastmta.model.envelope import RecipientState

if TYPE_CHECKING:
    from fastmta.store import MailStore

COUNTED: Final = 10_000  # recipients that are walked unasked, in about 50 ms
SHOWN: Final = 50  # next hops, domains


def figures(config: Config, store: "MailStore", exact: bool) -> dict[str, Any]:
    """What `--json` gives; `messages` and `size` are None where they were not counted."""
    queue = store.queue
    counts = dict(queue.counts())
    oldest = queue.oldest_ms()
    hops = sorted(queue.hop_counts(), key=lambda each: (-sum(each[1:]), each[0]))
    walked = exact or sum(counts.values()) <= COUNTED
    counted = _walked(store) if walked else {"messages": None, "size": None, "domains": _by_hop(config, hops)}
    return {
        "recipients": counts,
        "oldest_seconds": None if oldest is None else max(0, round(time.time() - oldest / 1000)),
        **counted,
        "next_hops": [
            {
                "next_hop": hop.decode("utf-8", "backslashreplace"),
                "recipients": active + deferred + held,
                "active": active,
                "deferred": deferred,
                "held": held,
            }
            for hop, active, deferred, held in hops[:SHOWN]
        ],
    }


def _walked(store: "MailStore") -> dict[str, Any]:
    domains: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    messages: set[int] = set()
    size_bytes = 0
    for message, recipient in selected(store, Selector()):
        if message.queue_id not in messages:
            messages.add(message.queue_id)
            size_bytes += message.envelope.size_bytes
        domain = recipient.tail.forward_path.lower().rpartition(b"@")[2].decode("utf-8", "backslashreplace")
        domains[domain] += 1
        waiting[domain] += recipient.state == RecipientState.DEFERRED
    return {
        "messages": len(messages),
        "size": size_bytes,
        "domains": [
            {"domain": domain, "recipients": count, "deferred": waiting[domain]}
            for domain, count in domains.most_common(SHOWN)
        ],
    }


def _by_hop(config: Config, hops: list[tuple[bytes, int, int, int]]) -> list[dict[str, Any]]:
    """The domains that are next hops of their own, by their MX, and of nobody else's by a route."""
    routed = {config.relayhost, *(route.partition(":")[2] for route in config.transport.values())}
    out = []
    for hop, active, deferred, held in hops:
        transport, _, domain = hop.decode("utf-8", "backslashreplace").partition(":")
        if transport == "smtp" and domain not in routed and "[" not in domain and ":" not in domain:
            out.append({"domain": domain, "recipients": active + deferred + held, "deferred": deferred})
            if len(out) == SHOWN:
                break
    return out


def show(found: dict[str, Any]) -> None:
    """The same for people."""
    if found["messages"] is None:
        print("messages and domains of a long queue are counted with --exact")
    else:
        print(f"messages {found['messages']}, {size(found['size'])}")
    print("recipients " + ", ".join(f"{state} {count}" for state, count in found["recipients"].items()))
    if found["oldest_seconds"] is not None:
        print(f"oldest {age(found['oldest_seconds'])}")
    if found["next_hops"]:
        print()
        rows = [tuple(each.values()) for each in found["next_hops"]]
        print_table(("NEXT HOP", "RECIPIENTS", "ACTIVE", "DEFERRED", "HELD"), rows, right=(1, 2, 3, 4))
    if found["domains"] and found["messages"] is not None:
        print()
        rows = [tuple(each.values()) for each in found["domains"]]
        print_table(("DOMAIN", "RECIPIENTS", "DEFERRED"), rows, right=(1, 2))
