"""Mail that has waited as it was accepted is brought into the queue's indexes, so that listings find it.

What is delivered at once is in none, and pays for none (adr/0115). Each worker looks once a second at the hops of its
slot, which keep count of such recipients, and takes a bounded number of them.
"""

from typing import TYPE_CHECKING

from fastmta.model.errors import StorageFailure
from fastmta.model.limits import INDEXED_A_SECOND, UNINDEXED_MS

if TYPE_CHECKING:
    from fastmta.delivery.service import DeliveryService


class Indexing:
    """The walk over one slot's hops; `look` is called once a second."""

    __slots__ = ("_after", "_busy", "_partitions", "_service")

    def __init__(self, service: "DeliveryService") -> None:
        self._service = service
        self._after = b""
        self._busy = False
        self._partitions = bytes(256)

    def begin(self, partitions: frozenset[int]) -> None:
        """These are the slot's partitions."""
        self._partitions = bytes(each in partitions for each in range(256))

    def look(self) -> None:
        """Takes the next recipients that have waited for UNINDEXED_MS, unless the last ones are still on their way."""
        if self._busy:
            return
        before_ms = self._service.now_ms() - UNINDEXED_MS
        try:
            pairs, self._after = self._service.queue.fresh(self._partitions, before_ms, self._after, INDEXED_A_SECOND)
        except StorageFailure:
            self._after = b""
            return
        if pairs:
            self._busy = True
            self._service.services.tasks.spawn("delivery indexes what waits", self._index(pairs))

    async def _index(self, pairs: list[tuple[int, int]]) -> None:
        try:
            await self._service.queue.index(pairs)
        except StorageFailure as error:
            self._service.log.warning("queue.not_indexed", cause=str(error))
        finally:
            self._busy = False
