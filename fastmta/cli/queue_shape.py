"""`fastmta queue shape`: how old the queue is, by destination: Postfix's qshape(1).

Columns are minutes, each twice the one before: how many recipients are at most so old; the last column has all others.
With selectors beyond the state it walks what they mean, so a queue of a million takes a while; memory is bounded by the
number of domains.
"""

from typing import Any

from fastmta.cli.output import print_table


def show_shape(found: dict[str, Any]) -> None:
    """Prints it as a table: `listing.Shape` as it is in JSON."""
    rows = [(each["domain"], each["total"], *each["ages"]) for each in (found["total"], *found["domains"])]
    headings = ("", "T", *map(str, found["minutes"]), f"{found['minutes'][-1]}+")
    print_table(headings, rows, right=range(1, len(headings)))
