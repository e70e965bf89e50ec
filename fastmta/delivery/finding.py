"""The addresses of a hop, and whose mistake it is where there are none.

A domain that a sender wrote and that does not exist is permanent: the mail bounces. A host that an administrator wrote
(relayhost, [transport]) and that does not resolve is a mistake in the configuration, which somebody will mend: the mail
waits with 4.3.5, and a warning says so, as Postfix does it.
"""

from typing import TYPE_CHECKING, Final

import msgspec

from fastmta.delivery.routing import next_hop_of
from fastmta.dns.mx import Address
from fastmta.model.errors import PermanentFailure, TemporaryFailure
from fastmta.model.reply import Reply
from fastmta.model.routes import Host, NextHop

if TYPE_CHECKING:
    from fastmta.delivery.service import DeliveryService

# What a name that leads nowhere is answered with; a loop to ourselves (5.4.6) is the administrator's where all mail
# takes that way, and else the mail's own, as in Postfix.
# Where no smtp_fallback_relay is asked: the mail would come back to us, or the domain takes none (RFC 7505).
_FINAL: Final = ("5.4.6", "5.1.10")
UNRESOLVED: Final = ("5.4.4", "5.1.10")


class Finder:
    """Finds the addresses of one hop; remembers the hop taken apart."""

    __slots__ = ("_full", "_hop", "_known", "_next_hop", "_service")

    def __init__(self, service: "DeliveryService", hop: bytes) -> None:
        self._service = service
        self._hop = hop
        self._full = hop
        self._next_hop: NextHop | None = None
        self._known: tuple[bytes, bool] | None = None  # the domain that was last asked for, with what `is_ours` said

    def forget(self) -> None:
        """Routes may have changed."""
        self._next_hop = self._known = None

    async def addresses(self, forward_path: bytes, *, null_sender: bool = False) -> list[Address]:
        """The addresses of the hop's hosts, one host after the other; one that fails is passed over.

        For mail with the null sender those are left out that an MX may not name for it. `forward_path` is one recipient
        of the hop. PermanentFailure or TemporaryFailure where there is no address.
        """
        found: list[Address] = []
        failure: PermanentFailure | TemporaryFailure | None = None
        next_hop = self._parsed(forward_path)
        for host in next_hop.hosts:
            try:
                found += await self._of_host(host, null_sender)
            except (PermanentFailure, TemporaryFailure) as error:
                if failure is None or isinstance(error, TemporaryFailure):
                    failure = error
        if next_hop.transport == "smtp" and (failure is None or failure.reply.enhanced not in _FINAL):
            found += await self._of_fallback(null_sender)
        if not found and failure is not None:
            raise self._judged(failure, forward_path)
        return found

    async def fallback(self, forward_path: bytes, *, null_sender: bool) -> list[Address]:
        """The addresses of smtp_fallback_relay alone."""
        return await self._of_fallback(null_sender) if self._parsed(forward_path).transport == "smtp" else []

    async def _of_host(self, host: Host, null_sender: bool) -> list[Address]:
        mx = self._service.mx
        if host.path:
            return [Address(host.path, host.path, 0)]
        if host.mx:
            found = await mx.by_mx(host.name, host.port, null_sender=null_sender)
        else:
            found = await mx.by_name(host.name, host.port)
        return [msgspec.structs.replace(address, next_hop=host.text) for address in found]

    async def _of_fallback(self, null_sender: bool) -> list[Address]:
        """The addresses of smtp_fallback_relay; one that does not resolve is passed over with a warning."""
        found: list[Address] = []
        for host in self._service.fallback:
            try:
                found += await self._of_host(host, null_sender)
            except (PermanentFailure, TemporaryFailure) as error:
                self._service.log.warning(
                    "delivery.configuration_problem",
                    setting="smtp_fallback_relay",
                    next_hop=host.text,
                    reply=str(error.reply),
                )
        return found

    def is_ours(self, forward_path: bytes) -> bool:
        """Whether an administrator named the hop, so that what is wrong there is his to mend."""
        domain = forward_path.rpartition(b"@")[2]
        if self._known is None or self._known[0] != domain:
            self._known = domain, bool(self._service.services.router.named_by(self._full, forward_path))
        return self._known[1]

    def _judged(
        self, failure: PermanentFailure | TemporaryFailure, forward_path: bytes
    ) -> PermanentFailure | TemporaryFailure:
        """The failure, temporary where an administrator can mend it."""
        if isinstance(failure, TemporaryFailure):
            return failure
        service = self._service
        setting = service.services.router.named_by(self._full, forward_path)
        if not setting or (setting != "relayhost" and failure.reply.enhanced not in UNRESOLVED):
            return failure
        service.log.warning(
            "delivery.configuration_problem", setting=setting, next_hop=self._full, reply=str(failure.reply)
        )
        text = f"{setting} configuration problem: {failure.reply.text}"
        return TemporaryFailure(Reply(451, "4.3.5", text))

    def _parsed(self, forward_path: bytes) -> NextHop:
        if self._next_hop is None:
            services = self._service.services
            self._full = services.router.full_hop(self._hop, forward_path)
            try:
                self._next_hop = next_hop_of(self._full, services.config.delivery)
            except ValueError as error:
                self._service.log.warning(
                    "delivery.configuration_problem", setting="transport", next_hop=self._full, reply=str(error)
                )
                raise TemporaryFailure(Reply(451, "4.3.5", f"the route cannot be used: {error}")) from error
        return self._next_hop
