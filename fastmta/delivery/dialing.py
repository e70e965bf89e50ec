"""From an address to a connection of a remote hop: what it says of itself, where it comes from, what is told of it."""

import asyncio
import errno
import os
from collections.abc import Hashable
from typing import TYPE_CHECKING

from fastmta.auth.sasl_client import Credentials
from fastmta.delivery.job import Job
from fastmta.delivery.tls_policy import TlsPolicy
from fastmta.dns.mx import Address
from fastmta.model.ids import queue_id_text
from fastmta.model.reply import Reply
from fastmta.runtime.metrics import METRICS
from fastmta.smtp.client import Client
from fastmta.smtp.client_connection import Connection, ConnectionOwner

if TYPE_CHECKING:
    from fastmta.delivery.service import DeliveryService


def connection_to(
    service: "DeliveryService",
    owner: ConnectionOwner,
    address: Address,
    policy: TlsPolicy,
    credentials: Credentials | None,
    *,
    is_lmtp: bool,
    is_ours: bool,
    helo_name: str = "",
) -> Connection:
    """A connection that has yet to be dialled. `is_ours`: a relay host that the administrator has named.

    TemporaryFailure: a map that is asked about the server cannot be read.
    """
    place = f"[{address.ip}]:{address.port}" if address.port else f"[{address.ip}]"
    peer = (address.host if address.port else service.config.myhostname) + place
    delivery = service.config.delivery
    client = Client(
        helo_name or delivery.smtp_helo_name,
        peer,
        lmtp=is_lmtp,
        tls_level=policy.level,
        credentials=credentials,
        own_relay=is_ours,
        wrapped=policy.is_wrapped,
        ignores=service.ignored.of("lmtp" if is_lmtp else "smtp", address.ip),
        forwards=delivery.lmtp_send_xforward_command if is_lmtp else delivery.smtp_send_xforward_command,
    )
    return Connection(service.loop, owner, client, address, delivery, policy)


async def dial(service: "DeliveryService", connection: Connection, address: Address, source: str = "") -> None:
    """Connects within smtp_connect_timeout, from `source` where it is given; OSError (TimeoutError is one) where that
    fails.
    """
    delivery = service.config.delivery
    async with asyncio.timeout(delivery.smtp_connect_timeout):
        if not address.port:
            await service.loop.create_unix_connection(lambda: connection, address.ip)
        else:
            own = source or (delivery.smtp_bind_address6 if ":" in address.ip else delivery.smtp_bind_address)
            await service.loop.create_connection(
                lambda: connection, address.ip, address.port, local_addr=(own, 0) if own else None
            )


def session_key(connection: Connection) -> Hashable:
    """What a TLS session is kept by: who the server is, and all that it has to prove."""
    address = connection.address
    return address.host, address.ip, address.port, connection.policy


def tell_tls(service: "DeliveryService", next_hop: str, connection: Connection) -> None:
    """Counts and logs a session over TLS: at which level, and by what the server was verified, if at all; keeps it."""
    tls = connection.tls()
    if tls is not None:
        service.tls_sessions.keep(session_key(connection), tls, connection.verified)
    is_resumed = connection.is_resumed
    version = connection.tls_version
    strategy, name = connection.verified or ("none", "")
    connection.tls_shown = f"{version} {connection.cipher} verified={strategy}"
    service.cells[METRICS.tls_connections_total["delivery", version]] += 1
    service.cells[METRICS.delivery_tls_total[connection.policy.level, strategy]] += 1
    service.cells[METRICS.delivery_tls_sessions_total["resumed" if is_resumed else "new"]] += 1
    service.log.info(
        "delivery.tls",
        next_hop=next_hop,
        relay=connection.client.peer,
        security_level=connection.policy.level,
        version=version,
        cipher=connection.cipher,
        verified=strategy,
        certificate=name,
        resumed=is_resumed or None,
    )


def tell_failure(service: "DeliveryService", next_hop: str, job: Job, relay: str, failure: Reply) -> None:
    """One address has failed: the log hears of each, since the recipient's result names the last one alone."""
    service.log.info(
        "delivery.attempt_failed",
        queue_id=queue_id_text(job.message.queue_id),
        next_hop=next_hop,
        relay=relay,
        reply=str(failure),
        took=round(service.clock.monotonic() - job.began, 3),
        tls=job.tls or None,
    )


def reason(error: OSError) -> str:
    """The cause in the words of the system, as Postfix logs it."""
    if isinstance(error, TimeoutError) and error.errno is None:
        return "Connection timed out"
    if error.errno is not None and error.errno in errno.errorcode:
        return os.strerror(error.errno)
    return "Connection refused" if isinstance(error, ConnectionRefusedError) else str(error) or type(error).__name__
