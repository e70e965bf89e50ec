"""What is read and made of a message before and while it leaves: its octets, its header, seals, and a 7-bit form."""

import asyncio
import re
from collections.abc import Awaitable
from functools import partial
from typing import TYPE_CHECKING, Final

from fastmta.delivery.forwarding import Gone as NotReadable
from fastmta.delivery.job import Job
from fastmta.delivery.outgoing_checks import OutgoingChecks, looked_through
from fastmta.model.errors import StorageFailure
from fastmta.model.ids import queue_id_text
from fastmta.model.limits import CONVERTED_PIECE_BYTES
from fastmta.model.reply import Reply
from fastmta.smtp.client_connection import Connection
from fastmta.smtp.conversion import Gone, Unconvertible, plan
from fastmta.smtp.folding import signatures
from fastmta.smtp.transaction import Transaction

if TYPE_CHECKING:
    from fastmta.delivery.service import DeliveryService

_TLS_REQUIRED: Final = re.compile(rb"^TLS-Required[ \t]*:([^\r\n]*)", re.IGNORECASE | re.MULTILINE)
HEADER_LOOK_BYTES: Final = 65_536  # of a message whose header is searched


def read_body(service: "DeliveryService", transaction: Transaction, offset: int, length: int) -> bytes | None:
    """Octets as they leave: the job's front before what is stored; None: the message is gone or unreadable."""
    assert isinstance(transaction, Job)
    front = transaction.front
    if front:
        if offset < len(front):
            before = front[offset : offset + length]
            rest = read_stored(service, transaction, 0, length - len(before))
            return None if rest is None else before + rest
        offset -= len(front)
    return read_stored(service, transaction, offset, length)


def need_body(service: "DeliveryService", job: Job, offset: int, length: int) -> Awaitable[None] | None:
    """None where `read_body` of these octets will not wait for the disk; else to be awaited before it."""
    at = max(0, offset - len(job.front))
    if job.changed is not None:
        at = job.changed.stored(at)
    return service.queue.need(job.message.blob_id, at, length)


class _Reading:
    """Reads of a message that is looked through from its beginning: what comes next is brought before it is read."""

    def __init__(self, service: "DeliveryService", job: Job) -> None:
        self._service = service
        self._job = job
        self._at, self._length = 0, CONVERTED_PIECE_BYTES

    def read(self, offset: int, length: int) -> bytes | None:
        self._at, self._length = offset + length, length
        return read_body(self._service, self._job, offset, length)

    async def turn(self) -> None:
        """Lets others have their turn, and returns when the next piece is in memory."""
        await (need_body(self._service, self._job, self._at, self._length) or asyncio.sleep(0))


def read_stored(service: "DeliveryService", job: Job, offset: int, length: int) -> bytes | None:
    """Octets of what is stored, with what the checks of outgoing mail change."""
    if job.changed is not None:
        return job.changed.read(offset, length, partial(_read_unchanged, service, job))
    return _read_unchanged(service, job, offset, length)


def _read_unchanged(service: "DeliveryService", job: Job, offset: int, length: int) -> bytes | None:
    try:
        piece = service.queue.read(job.message.blob_id, offset, length, job.fresh) if length else b""
    except StorageFailure:
        piece = None
        job.unreadable = True
    job.gone = piece is None
    return piece


def header_of(service: "DeliveryService", job: Job) -> bytes:
    """The stored header, as far as it is looked at; empty where it cannot be read: sending it meets the same."""
    try:
        beginning = service.queue.read(job.message.blob_id, 0, HEADER_LOOK_BYTES) or b""
    except StorageFailure:
        return b""
    return beginning.partition(b"\r\n\r\n")[0]


def asks_no_tls(header: bytes) -> bool:
    """Whether a header has TLS-Required: No (RFC 8689 §5): more than one, or another word, is none."""
    found = _TLS_REQUIRED.findall(header)
    return len(found) == 1 and found[0].strip().lower() == b"no"


def tell_folded(service: "DeliveryService", connection: Connection, lines: int) -> None:
    """So many lines of the connection's message were too long."""
    job = connection.transaction
    assert isinstance(job, Job)
    service.log.info(
        "delivery.folded",
        queue_id=queue_id_text(job.message.queue_id),
        relay=connection.client.peer,
        lines=lines,
        breaks=",".join(signatures(header_of(service, job))) or "none",
    )


async def look_through(service: "DeliveryService", connection: Connection, job: Job, checks: OutgoingChecks) -> bool:
    """Has the checks of outgoing mail look at the message; whether the connection still waits for it."""
    if not await looked_through(service, checks, job, partial(_read_unchanged, service, job)):
        connection.abort()
        return False
    if job.changed is not None:
        service.log.info(
            "delivery.changed",
            queue_id=queue_id_text(job.message.queue_id),
            relay=connection.client.peer,
            octets=job.growth,
            breaks=",".join(signatures(header_of(service, job))) or "none",
        )
    return connection.transaction is job


async def seal(service: "DeliveryService", connection: Connection, job: Job) -> bool:
    """Makes what a message that is passed on gets in front; whether the connection still waits for it."""
    job.wants_front = False
    try:
        if service.forwarding is not None:
            job.front = await service.forwarding.front(job, partial(read_stored, service, job))
    except NotReadable:
        connection.abort()
        return False
    return connection.transaction is job  # else the connection ended meanwhile, and the job went its way


async def convert(service: "DeliveryService", connection: Connection, job: Job) -> bool:
    """Plans how the message becomes 7-bit, a little at a time; whether the connection still waits for it."""
    try:
        reading = _Reading(service, job)
        await reading.turn()
        for step in plan(reading.read, job.size_bytes):
            job.conversion = step
            await reading.turn()
    except Unconvertible as error:
        if connection.transaction is not job:  # the next server may take it as it is
            return False
        text = f"8BITMIME is required, but was not offered by server {connection.client.peer}: {error}"
        job.decide(Reply(554, "5.6.3", text))
    except Gone:
        connection.abort()
        return False
    if connection.transaction is not job:  # the connection ended meanwhile, and the job went its way
        return False
    if job.conversion is not None:
        service.log.info(
            "delivery.converted",
            queue_id=queue_id_text(job.message.queue_id),
            relay=connection.client.peer,
            parts=job.conversion.parts,
            breaks=",".join(job.conversion.breaks) or "none",
        )
    return True
