"""`fastmta queue top` for people."""

from typing import Any

from fastmta.cli.output import age, print_table


def show_top(found: list[dict[str, Any]]) -> None:
    """Prints the busiest next hops: `hops.Busy` as they are in JSON."""
    if not found:
        print("no mail waits for any next hop, and none is suspended")
        return
    headings = ("NEXT HOP", "WAITING", "DEFERRED", "HELD", "IN FLIGHT", "CONNECTIONS", "OLDEST", "STATE", "LAST ERROR")
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
