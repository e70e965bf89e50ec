"""`fastmta queue stats` for people."""

from fastmta.cli.output import age, print_table, size
from fastmta.operations.listing import Counts


def show_stats(found: Counts) -> None:
    """Prints the queue in figures."""
    if found.messages is None:
        print("messages and domains of a long queue are counted with --exact")
    else:
        print(f"messages {found.messages}, {size(found.size or 0)}")
    print("recipients " + ", ".join(f"{state} {count}" for state, count in found.recipients.items()))
    if found.oldest_seconds is not None:
        print(f"oldest {age(found.oldest_seconds)}")
    if found.next_hops:
        print()
        hops = [(each.next_hop, each.recipients, each.active, each.deferred, each.held) for each in found.next_hops]
        print_table(("NEXT HOP", "RECIPIENTS", "ACTIVE", "DEFERRED", "HELD"), hops, right=(1, 2, 3, 4))
    if found.domains and found.messages is not None:
        print()
        domains = [(each.domain, each.recipients, each.deferred) for each in found.domains]
        print_table(("DOMAIN", "RECIPIENTS", "DEFERRED"), domains, right=(1, 2))
