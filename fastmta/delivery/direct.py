"""Hops that need no connection: discard:, error: and retry:, and routes that cannot be understood."""

from typing import TYPE_CHECKING, Final

from fastmta.delivery.owner import HopOwner
from fastmta.delivery.routing import parse_hop
from fastmta.model.reply import Reply

if TYPE_CHECKING:
    from fastmta.delivery.service import DeliveryService

UNUSABLE: Final = Reply(451, "4.3.5", "the route cannot be used")


class DirectHop(HopOwner):
    """One reply for whatever is due."""

    __slots__ = ("_reply",)

    def __init__(self, service: "DeliveryService", hop: bytes, transport: str) -> None:
        super().__init__(service, hop, transport)
        try:
            self._reply = parse_hop(hop).reply or UNUSABLE
        except ValueError as error:
            self._reply = Reply(UNUSABLE.code, UNUSABLE.enhanced, f"{UNUSABLE.text}: {error}")

    def pump(self) -> None:
        service = self.service
        while not service.is_stalled(self) and (self.ready or self.refill()):
            job = self.ready.popleft()
            job.decide(self._reply)
            service.recorder.finish(job)
