"""Hops that need no connection: discard:, error: and retry:, and routes that cannot be understood."""

from typing import TYPE_CHECKING, Final

from fastmta.delivery.owner import HopOwner
from fastmta.model.reply import Reply

if TYPE_CHECKING:
    from fastmta.delivery.service import DeliveryService

DISCARDED: Final = Reply(250, "2.0.0", "discarded")


class DirectHop(HopOwner):
    """One reply for whatever is due."""

    __slots__ = ("_reply",)

    def __init__(self, service: "DeliveryService", hop: bytes, transport: str, reply: Reply) -> None:
        super().__init__(service, hop, transport)
        self._reply = reply

    def pump(self) -> None:
        service = self.service
        while not service.is_stalled(self) and (self.ready or self.refill()):
            job = self.ready.popleft()
            job.decide(self._reply)
            service.recorder.finish(job)
