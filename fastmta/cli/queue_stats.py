"""`fastmta queue stats` for people."""

from typing import Any

from fastmta.cli.output import age, print_table, size


def show_stats(found: dict[str, Any]) -> None:
    """Prints the queue in figures: `listing.Counts` as it is in JSON."""
    if found["messages"] is None:
        print("messages and domains of a long queue are counted with --exact")
    else:
        print(f"messages {found['messages']}, {size(found['size'] or 0)}")
    print("recipients " + ", ".join(f"{state} {count}" for state, count in found["recipients"].items()))
    if found["oldest_seconds"] is not None:
        print(f"oldest {age(found['oldest_seconds'])}")
    if found["next_hops"]:
        print()
        hops = [tuple(each.values()) for each in found["next_hops"]]
        print_table(("NEXT HOP", "RECIPIENTS", "ACTIVE", "DEFERRED", "HELD"), hops, right=(1, 2, 3, 4))
    if found["domains"] and found["messages"] is not None:
        print()
        domains = [tuple(each.values()) for each in found["domains"]]
        print_table(("DOMAIN", "RECIPIENTS", "DEFERRED"), domains, right=(1, 2))
