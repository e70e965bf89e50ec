"""How late it was at the last hourly look: what says, after any pause, how far the clock has come since."""

from typing import Final

from fastmta._store import TABLE_META
from fastmta.store.committing import Committer

_KEY: Final = b"believed_time"


class BelievedTime:
    """One instant of the whole store, in seconds since 1970."""

    def __init__(self, store: Committer) -> None:
        self._store = store

    def get(self) -> int:
        """0 where none was noted."""
        value = self._store.raw.get(TABLE_META, _KEY)
        return int.from_bytes(value, "little") if value is not None else 0

    async def note(self, at_s: int) -> None:
        unit = self._store.raw.new_unit()
        unit.put(TABLE_META, _KEY, at_s.to_bytes(8, "little"))
        await self._store.commit(unit)
