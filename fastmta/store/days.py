"""On which day a daily job was last done: a restart repeats nothing, and a day that was missed is made up for."""

from typing import Final

from fastmta._store import TABLE_META
from fastmta.store.committing import Committer

PREFIX: Final = b"daily\0"


class Days:
    """The last days of all jobs, each as text that sorts: 2026-11-27."""

    def __init__(self, store: Committer) -> None:
        self._store = store

    def last(self, job: str) -> str:
        """The day of a job's last run; "" where it never ran."""
        return (self._store.raw.get(TABLE_META, PREFIX + job.encode()) or b"").decode()

    async def note(self, job: str, day: str) -> None:
        """A job is done for that day."""
        unit = self._store.raw.new_unit()
        unit.put(TABLE_META, PREFIX + job.encode(), day.encode())
        await self._store.commit(unit)
