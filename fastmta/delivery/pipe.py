"""Hops behind pipe: a command of [pipe.NAME] takes the mail on its standard input, as Postfix's pipe(8) has it.

The mail is written whole into a file without a name before the command is started, so that a worker that dies leaves
the command no half message. Who runs it is the launcher (runtime/launching.py); what its end means says pipe_command.
"""

import asyncio
import re
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Final

from fastmta.config.tables import PipeConfig
from fastmta.delivery.job import Job
from fastmta.delivery.owner import TaskHop
from fastmta.delivery.pipe_command import converted, opening, recipient_values, sender_value, verdict
from fastmta.delivery.routing import is_digest, parse_hop
from fastmta.model.errors import StorageFailure
from fastmta.model.ids import queue_id_text
from fastmta.model.reply import Reply
from fastmta.runtime.launching import Ended, Request

if TYPE_CHECKING:
    from fastmta.delivery.service import DeliveryService

PIECE_BYTES: Final = 65_536
HEADER_BYTES: Final = 65_536  # of a message whose header is searched for our own Delivered-To
TOO_LARGE: Final = Reply(554, "5.2.3", "message too large")
UNREADABLE: Final = Reply(451, "4.3.0", "The message cannot be read from the store")
NO_ROOM: Final = Reply(452, "4.3.1", "There is no room to hand the message over")
NOT_STARTED: Final = Reply(451, "4.3.5", "mail system configuration error")
_DELIVERED_TO: Final = re.compile(rb"(?im)^delivered-to:[ \t]*(\S.*?)[ \t]*\r?$")


class PipeHop(TaskHop):
    """One pipe with one next hop."""

    __slots__ = ("_name", "_next_hop")

    def __init__(self, service: "DeliveryService", hop: bytes, transport: str) -> None:
        super().__init__(service, hop, transport)
        self._name = self._next_hop = ""
        if not is_digest(hop):
            self._parse(hop)

    def _parse(self, hop: bytes) -> None:
        parsed = parse_hop(hop)
        self._name, self._next_hop = parsed.name, parsed.next_hop

    @property
    def pipe(self) -> PipeConfig:
        """The table, or one without a command where a reload has taken it away."""
        return self.service.config.pipe.get(self._name, _GONE)

    @property
    def at_once(self) -> int:
        return self.pipe.destination_concurrency_limit

    @property
    def recipient_limit(self) -> int:
        return 1 if "D" in self.pipe.flags or "O" in self.pipe.flags else self.pipe.destination_recipient_limit

    @property
    def is_final(self) -> bool:  # type: ignore[override]
        return "X" in self.pipe.flags

    @property
    def place(self) -> str:  # type: ignore[override]
        return self._name

    async def deliver(self, job: Job) -> Sequence[Reply]:
        if not self._name:
            self._parse(self.service.services.router.full_hop(self.hop, job.rows[0].tail.forward_path))
        return [await self._deliver(job)] * len(job.rows)

    async def _deliver(self, job: Job) -> Reply:
        pipe = self.pipe
        if not pipe.argv:
            return Reply(451, "4.3.5", f"there is no table [pipe.{self._name}]")
        if pipe.size and job.envelope.size_bytes > pipe.size:
            return TOO_LARGE
        try:
            if "D" in pipe.flags and self._loops(job):
                return Reply(554, "5.4.6", f"mail forwarding loop for {_text(job.rows[0].tail.forward_path)}")
            with tempfile.TemporaryFile(dir=self.service.config.data_directory, buffering=0) as file:
                await self._write(job, file)
                ended = await self.service.services.launcher.run(self._request(job), file.fileno())
        except StorageFailure:
            return UNREADABLE
        except OSError as error:
            self.service.log.error("delivery.pipe_failed", pipe=self._name, cause=error)
            return NO_ROOM
        return self._reply(job, ended)

    def _reply(self, job: Job, ended: Ended) -> Reply:
        if ended.unsafe:
            return Reply(554, "5.1.3", ended.unsafe)
        if ended.error:
            queue_id = queue_id_text(job.message.queue_id)
            self.service.log.error("delivery.pipe_failed", pipe=self._name, queue_id=queue_id, cause=ended.error)
            return NOT_STARTED
        return verdict(self._name, self.pipe.argv[0], ended.status, ended.output, late=ended.late)

    def _request(self, job: Job) -> Request:
        envelope, pipe = job.envelope, self.pipe
        name, _, rest = envelope.client.partition("[")
        common = {
            "client_address": rest.rstrip("]"),
            "client_hostname": name,
            "client_protocol": envelope.protocol,
            "envid": _text(envelope.envid),
            "nexthop": self._next_hop.lower() if "h" in pipe.flags else self._next_hop,
            "queue_id": queue_id_text(job.message.queue_id),
            "sasl_username": envelope.authenticated_as,
            "sender": sender_value(pipe, _text(envelope.reverse_path)),
            "size": str(envelope.size_bytes),
        }
        delimiters = self.service.config.recipient_delimiter
        tails = [row.tail for row in job.rows]
        each = [
            recipient_values(pipe, _text(tail.forward_path), _text(tail.original or tail.forward_path), delimiters)
            for tail in tails
        ]
        return Request(self._name, common, each)

    async def _write(self, job: Job, file: IO[bytes]) -> None:
        pipe, tail = self.pipe, job.rows[0].tail
        sender = _text(job.envelope.reverse_path) or pipe.null_sender
        recipient, original = _text(tail.forward_path), _text(tail.original or tail.forward_path)
        waiting = self.service.queue.need(job.message.blob_id, 0, job.envelope.size_bytes)
        if waiting is not None:
            await waiting
        head = opening(pipe, sender, recipient, original, self.service.clock.now())
        for piece in converted(pipe, self._pieces(job, head)):
            view = memoryview(piece)
            while view:
                view = view[file.write(view) :]
            await asyncio.sleep(0)

    def _pieces(self, job: Job, head: bytes) -> Iterator[bytes]:
        yield head
        offset, size = 0, job.envelope.size_bytes
        while offset < size:
            piece = self.service.queue.read(job.message.blob_id, offset, min(PIECE_BYTES, size - offset))
            if not piece:
                raise StorageFailure("a message ends before its end")
            offset += len(piece)
            yield piece

    def _loops(self, job: Job) -> bool:
        header = (self.service.queue.read(job.message.blob_id, 0, HEADER_BYTES) or b"").partition(b"\r\n\r\n")[0]
        own = job.rows[0].tail.forward_path.lower()
        return any(match[1].lower() == own for match in _DELIVERED_TO.finditer(header))


_GONE: Final = PipeConfig(argv=(), user="")


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
