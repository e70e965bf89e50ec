"""`fastmta queue shape`: how old the queue is, by destination: Postfix's qshape(1).

Columns are minutes, each twice the one before: how many recipients are at most so old; the last column has all others.
It walks what its selectors mean, so a queue of a million takes a while; memory is bounded by the number of domains.
"""

import time
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import click

from fastmta.cli.opened import run
from fastmta.cli.output import config_option, json_option, print_json, print_table
from fastmta.cli.selection import Selector, selected, selector_options
from fastmta.config.schema import Config

if TYPE_CHECKING:
    from fastmta.store import MailStore

FIRST_MINUTES: Final = 5
BUCKETS: Final = 10
NULL_SENDER: Final = "MAILER-DAEMON"


@click.command()
@selector_options
@click.option("-s", "--senders", is_flag=True, help="By the domain of senders; without it by that of recipients.")
@click.option("-l", "--limit", "shown", type=click.IntRange(1), default=30, show_default=True, help="So many domains.")
@click.option(
    "-t", "--first", type=click.IntRange(1, 10_000), default=FIRST_MINUTES, show_default=True, help="Minutes."
)
@click.option("-b", "--buckets", type=click.IntRange(2, 20), default=BUCKETS, show_default=True, help="Columns.")
@json_option
@config_option
def shape(
    selector: Selector,
    senders: bool,
    shown: int,
    first: int,
    buckets: int,
    as_json: bool,
    config_path: str | None,
) -> None:
    """Count recipients by age and destination, as qshape does."""
    bounds = [first << n for n in range(buckets - 1)]

    async def work(_: Config, store: "MailStore") -> dict[str, tuple[int, ...]]:
        return ages(store, selector, bounds, senders)

    found = run(config_path, work)
    total = tuple(map(sum, zip(*found.values(), strict=True))) if found else (0,) * (buckets + 1)
    order = sorted(found, key=lambda domain: (-found[domain][0], domain))[:shown]
    if as_json:
        print_json(
            {
                "minutes": bounds,
                "total": _as_json("TOTAL", total),
                "domains": [_as_json(domain, found[domain]) for domain in order],
            }
        )
        return
    rows = [("TOTAL", *total), *((domain, *found[domain]) for domain in order)]
    headings = ("", "T", *map(str, bounds), f"{bounds[-1]}+")
    print_table(headings, rows, right=range(1, buckets + 2))


def ages(store: "MailStore", selector: Selector, bounds: list[int], senders: bool) -> dict[str, tuple[int, ...]]:
    """domain -> (total, at most bounds[0] minutes old, ..., older than all bounds)."""
    now_ms = time.time() * 1000
    counted: Counter[tuple[str, int]] = Counter()
    for message, recipient in selected(store, selector):
        path = message.envelope.reverse_path if senders else recipient.tail.forward_path
        domain = path.lower().rpartition(b"@")[2].decode("utf-8", "backslashreplace") or NULL_SENDER
        minutes = (now_ms - message.envelope.received_at_ms) / 60_000
        counted[domain, sum(minutes > bound for bound in bounds)] += 1
    out: dict[str, list[int]] = {}
    for (domain, column), count in counted.items():
        row = out.setdefault(domain, [0] * (len(bounds) + 2))
        row[0] += count
        row[1 + column] += count
    return {domain: tuple(row) for domain, row in out.items()}


def _as_json(domain: str, row: tuple[int, ...]) -> dict[str, Any]:
    return {"domain": domain, "total": row[0], "ages": list(row[1:])}
