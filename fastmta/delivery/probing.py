"""Asks the next hop of an address whether it would take mail for it: all the way of a message but the message itself.

The address goes through aliases and routes as mail does. What ends here (a mailbox, a command, several targets of an
alias) is good without a question; a server is asked up to RCPT, and what it says to it is the answer, as in Postfix.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Coroutine
from typing import TYPE_CHECKING, Any

from fastmta.delivery.dialing import connection_to, dial, reason, session_key
from fastmta.delivery.finding import Finder
from fastmta.delivery.logins import HopLogins
from fastmta.delivery.routing import next_hop_of
from fastmta.delivery.tls_policy import TlsPolicy
from fastmta.dns.mx import Address, unusable
from fastmta.model.envelope import Envelope, QueuedTarget, RecipientTail
from fastmta.model.errors import PermanentFailure, TemporaryFailure
from fastmta.model.reply import Reply
from fastmta.smtp.client_connection import Connection
from fastmta.smtp.transaction import Transaction
from fastmta.tls.sessions import Kept

if TYPE_CHECKING:
    from fastmta.delivery.service import DeliveryService

_GOOD = Reply(250, "2.1.5", "deliverable")
_NO_ADDRESS = Reply(450, "4.4.1", "no address answered")


async def probe(service: "DeliveryService", sender: bytes, address: bytes) -> Reply:
    """What becomes of mail for an address: 250, or the refusal; 4yz where that cannot be found out now."""
    services = service.services
    resolution = services.directory.resolve(address, may_relay=True)
    if resolution.refusal is not None:
        return resolution.refusal
    target = resolution.targets[0] if len(resolution.targets) == 1 else None
    if not isinstance(target, QueuedTarget) or target.hop.startswith(b"hold:"):
        return _GOOD
    router, key = services.router, target.hop
    if service.probe_router is not None:
        router = service.probe_router
        router.refresh()
        route = router.route(target.forward_path)
        if route.refusal is not None:
            return route.refusal
        if not route.hop or route.held:
            return _GOOD
        key = route.hop
    hop = router.full_hop(key, target.forward_path)
    try:
        next_hop = next_hop_of(hop, services.config.delivery)
    except ValueError as error:
        return Reply(451, "4.3.5", f"the route cannot be used: {error}")
    if next_hop.reply is not None:  # error: and retry:
        return next_hop.reply
    if next_hop.transport not in ("smtp", "lmtp"):
        return _GOOD
    try:
        return await _Asking(service, key, next_hop.transport, sender, target.forward_path).answer()
    except (PermanentFailure, TemporaryFailure) as error:
        return error.reply


class _Asking:
    """One question, over one connection after the other; the owner of each (client_connection.ConnectionOwner)."""

    def __init__(self, service: "DeliveryService", hop: bytes, transport: str, sender: bytes, address: bytes) -> None:
        self._service = service
        self._transport = transport
        self._sender = sender
        self._address = address
        self._finder = Finder(service, hop)
        self._logins = HopLogins(service, hop)
        self._over: asyncio.Future[None] = service.loop.create_future()

    async def answer(self) -> Reply:
        service = self._service
        left = await self._finder.addresses(self._address, null_sender=not self._sender)
        said = _NO_ADDRESS
        for address in left[: service.config.delivery.smtp_mx_session_limit]:
            if address.private and not self._sender:
                said = unusable(address.domain, address.ip)
                continue
            policy = await service.tls.of(address, lmtp=self._transport == "lmtp", plain_text=False)
            answered, said, tls_failed = await self._ask(address, policy)
            if tls_failed and policy.level == "may":
                policy = await service.tls.of(address, lmtp=self._transport == "lmtp", plain_text=True)
                answered, said, _ = await self._ask(address, policy)
            if answered:
                return said
        return said if said.is_temporary else Reply(450, "4.4.1", said.text)

    async def _ask(self, address: Address, policy: TlsPolicy) -> tuple[bool, Reply, bool]:
        """Whether the server has answered about the address, what it has said, and whether TLS failed."""
        service = self._service
        credentials = None
        if service.logins.is_enabled and self._transport == "smtp":
            credentials = await self._logins.credentials(None, address)
        connection = connection_to(
            service,
            self,
            address,
            policy,
            credentials,
            is_lmtp=self._transport == "lmtp",
            is_ours=self._finder.is_ours(self._address),
        )
        self._over = service.loop.create_future()
        service.connections += 1
        peer = connection.client.peer
        try:
            try:
                await dial(service, connection, address)
            except OSError as error:
                return False, Reply(450, "4.4.1", f"connect to {peer}: {reason(error)}"), False
            service.services.sweep.add(connection)
            await self._over
            asked = connection.transaction
            result = None if asked is None else _GOOD if asked.accepted else asked.results[0]
            if asked is None or result is None:
                failure = connection.client.failure or Reply(450, "4.4.2", f"lost connection with {peer}")
                return False, failure, connection.tls_failed
            if result.code >= 400:
                stage = "MAIL FROM" if asked.sender_refused else "RCPT TO"
                enhanced = f"{result.enhanced} " if result.enhanced else ""
                text = f"host {peer.rpartition(':')[0]} said: {result.code} {enhanced}{result.text}"
                result = Reply(result.code, result.enhanced, f"{text} (in reply to {stage} command)")
            return True, result, False
        finally:
            connection.close()
            service.connection_over(connection)

    def session_ready(self, connection: Connection) -> None:
        transaction = Transaction(Envelope(self._sender, 0, 0, 0), [RecipientTail(self._address)])
        transaction.only_asks = True
        connection.start(transaction)

    def transaction_done(self, connection: Connection) -> None:
        self._end()

    def partly_answered(self, connection: Connection) -> None:
        pass

    def session_over(self, connection: Connection) -> None:
        self._end()

    def _end(self) -> None:
        if not self._over.done():
            self._over.set_result(None)

    def read_body(self, transaction: Transaction, offset: int, length: int) -> bytes | None:
        return None

    def need_body(self, transaction: Transaction, offset: int, length: int) -> Awaitable[None] | None:
        return None

    def folded(self, connection: Connection, lines: int) -> None:
        pass

    def tls_context(self, connection: Connection) -> ssl.SSLContext | None:
        policy = connection.policy
        return self._service.services.contexts.client_context(policy.trust, policy.protocols, policy.grade)

    def tls_session(self, connection: Connection, context: ssl.SSLContext) -> Kept | None:
        return self._service.tls_sessions.find(session_key(connection), context)

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._service.services.tasks.spawn(name, work)
