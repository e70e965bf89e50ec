"""The table of a greylist: which client network, sender and recipient have been seen together, and who is known.

It lies in a mapped file (policy/mapped.py), so it is exact over all workers and kept over restarts.
"""

import re
from pathlib import Path
from typing import Final

from fastmta.directory import addresses
from fastmta.policy.mapped import MappedTable

FILE: Final = "greylist.table"
_TRIPLET, _CLIENT = 1, 2  # kinds of entries
_HOUR_S: Final = 3600  # a client is counted once in it, as postgrey does
_NUMBERS: Final = re.compile(r"[0-9]+")


class Greylist:
    """The table, opened by one process."""

    __slots__ = ("_key", "_table")

    def __init__(self, directory: Path) -> None:
        """Opens the file, and makes it where there is none. OSError."""
        mapped = MappedTable(directory, FILE)
        self._key = mapped.key
        self._table = mapped.table

    def wait_s(
        self, network: str, sender: str, recipient: str, *, delay_s: int, window_s: int, age_s: int, now: int
    ) -> int:
        """Seconds that these three are still too early; 0: they may pass, and stay known for `age_s`."""
        key = self._key(network, sender_key(sender), recipient.lower())
        return self._table.introduce(_TRIPLET, *key, delay_s, window_s, age_s, now)

    def known(self, network: str, *, age_s: int, now: int) -> int:
        """How often mail of a client network has passed, once an hour at the most, without a break of `age_s`."""
        return self._table.note(_CLIENT, *self._key(network), age_s, _HOUR_S, now, False)

    def passed(self, network: str, *, age_s: int, now: int) -> int:
        """The same, this time included."""
        return self._table.note(_CLIENT, *self._key(network), age_s, _HOUR_S, now, True)


def sender_key(sender: str) -> str:
    """A sender without what changes from message to message: extensions, and numbers in names of mailing lists."""
    try:
        address = addresses.parse(sender.lower())
    except ValueError:
        return sender.lower()
    local, _ = addresses.split_extension(address.local_part, "+")
    if local[:4] in ("srs0", "srs1"):
        local = local.rpartition("=")[2]
    return f"{_NUMBERS.sub('#', local)}@{address.domain}"
