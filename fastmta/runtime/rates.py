"""So many events in a time unit: the one face of such limits, whoever counts them, over a table that processes share.

    rate.take(key, n)       0: granted, else the seconds to wait
    rate.lacks(key, n)      the same without counting

What is refused counts too, as in Postfix's anvil(8): who goes on trying goes on waiting. Places that are held and given
back, such as connections, are the table's own (`Table.hold`).
"""

from collections.abc import Callable

from fastmta._limits import Table

Key = tuple[int, int, int]  # of model/limited.What or its kin; then what is counted for itself


class Rate:
    """At most `limit` events of each key in `window_s` seconds from the first of them; 0: no limit."""

    __slots__ = ("_now", "_table", "_window_s", "limit")

    def __init__(self, table: Table, limit: int, window_s: int, now: Callable[[], float]) -> None:
        """`now` gives seconds of a clock that all who share the table have."""
        self._table = table
        self.limit = limit
        self._window_s = window_s
        self._now = now

    def take(self, key: Key, n: int = 1) -> int:
        """Counts `n` events: 0 where they are granted, else the seconds until the window ends."""
        return self._table.take(*key, n, self.limit, self._window_s, int(self._now())) if self.limit else 0

    def lacks(self, key: Key, n: int = 1) -> int:
        """The seconds until `n` events may be granted, 0 where they would be now; counts none."""
        if not self.limit:
            return 0
        return self._table.take(*key, 0, max(0, self.limit - n), self._window_s, int(self._now()))
