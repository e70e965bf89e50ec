"""The table of a greylist: which client network, sender and recipient have been seen together, and who is known.

It is a file in the data directory that all workers map: of one size for ever (2 MB), so a flood pushes out what was not
seen for longest and nothing else; kept over restarts; never flushed, since what a power cut loses costs a second try.
Keys are hashed; entries are those of the table of limits (`_limits.Table`), counted by the wall clock.
"""

import hashlib
import mmap
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

from fastmta._limits import HOLDINGS_BYTES, TABLE_BYTES, Table
from fastmta.directory import addresses

FILE: Final = "greylist.table"
_TRIPLET, _CLIENT = 1, 2  # kinds of entries
_HOUR_S: Final = 3600  # a client is counted once in it, as postgrey does
_NUMBERS: Final = re.compile(r"[0-9]+")


class Greylist:
    """The table, opened by one process."""

    __slots__ = ("_seed", "_table")

    def __init__(self, directory: Path) -> None:
        """Opens the file, and makes it where there is none. OSError."""
        path = directory / FILE
        if not path.exists():
            draft = path.with_name(f"{FILE}.{os.getpid()}")
            with os.fdopen(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "r+b") as file:
                file.write((int.from_bytes(os.urandom(8), "little") | 1).to_bytes(8, "little"))
                file.truncate(TABLE_BYTES)
            with suppress(FileExistsError):
                os.link(draft, path)
            draft.unlink()
        with path.open("r+b") as file:
            if os.fstat(file.fileno()).st_size != TABLE_BYTES:  # another program's: begun anew
                file.truncate(0)
                file.truncate(TABLE_BYTES)
            memory = mmap.mmap(file.fileno(), TABLE_BYTES)
        self._seed = bytes(memory[:8])
        self._table = Table(memory, bytearray(HOLDINGS_BYTES), os.getpid())

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

    def _key(self, *parts: str) -> tuple[int, int]:
        digest = hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogateescape"), key=self._seed, digest_size=16)
        raw = digest.digest()
        return int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:], "little")


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
