"""smtp_header_checks, smtp_mime_header_checks, smtp_nested_header_checks, smtp_body_checks, smtp_generic_maps, and the
same of lmtp_*.

Postfix's tables that look at a message as it leaves, and change only what goes over this wire: what is stored, and what
other transports send, stays. The message is looked through before MAIL, since SIZE says how long it will be; what it
finds is a list of changes (`Changed`), through which the message is read from then on. All of a body is shown, as in
Postfix. smtp_generic_maps give envelope and header other addresses, the header's behind what its checks have made of
it. A seal or signature that is made as the message leaves is made of the changed message; one that it came with, or got
when it was accepted, breaks where it covers what changes, and the log names it (`delivery.changed`).
"""

from bisect import bisect_right
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

from fastmta.delivery.job import Job
from fastmta.directory import addresses
from fastmta.directory.canonical import AddressMap
from fastmta.directory.header_addresses import RECIPIENTS, SENDERS, rewritten
from fastmta.directory.maps import TableSet
from fastmta.model.envelope import HAS_8BIT, HAS_DOT_LINE, HAS_LONG_LINE, NO_FINAL_CRLF
from fastmta.model.errors import TemporaryFailure
from fastmta.model.ids import queue_id_text
from fastmta.model.limits import (
    CONTENT_PIECE_BYTES,
    LINE_BYTES,
    OUTGOING_CHANGED_BYTES,
    OUTGOING_CHANGES,
    OUTGOING_TOLD,
    REWRITTEN_FIELD_BYTES,
)
from fastmta.model.reply import Reply
from fastmta.policy.contents import DELETES, Kind, Piece, Walk, field_of, parse_outgoing

if TYPE_CHECKING:
    from fastmta.config.delivery_keys import DeliveryConfig
    from fastmta.delivery.seams import Services
    from fastmta.delivery.service import DeliveryService

Read = Callable[[int, int], bytes | None]
Need = Callable[[int, int], Awaitable[None] | None]

_REFRESH_S: Final = 1.0
_WHOLE: Final = 1 << 62
_SHOWN: Final = 200  # octets of a field or line in the log
_UNREADABLE: Final = Reply(451, "4.3.0", "Temporary lookup failure in the checks of outgoing mail")
_MISTAKEN: Final = Reply(451, "4.3.5", "Server configuration error in the checks of outgoing mail")
_TOO_MANY: Final = Reply(451, "4.3.0", "The checks of outgoing mail change too much of this message")


class Changed:
    """A message read through its changes, which were made in the order of their places."""

    __slots__ = ("_at", "_pieces", "_starts", "octets", "size_bytes")

    def __init__(self) -> None:
        self._starts: list[int] = []  # of each piece, in the changed message
        self._pieces: list[bytes | int] = []  # octets that are put in, or where stored ones begin
        self._at = 0  # in what is stored
        self.octets = 0  # that are put in
        self.size_bytes = 0  # of the changed message, once it is `closed`

    def change(self, at: int, size: int, new: bytes) -> None:
        """`size` octets at `at` become `new`."""
        self._keep_to(at)
        if new:
            self._starts.append(self.size_bytes)
            self._pieces.append(new)
            self.size_bytes += len(new)
            self.octets += len(new)
        self._at = at + size

    @property
    def is_too_much(self) -> bool:
        return len(self._pieces) > OUTGOING_CHANGES or self.octets > OUTGOING_CHANGED_BYTES

    @property
    def is_any(self) -> bool:
        return self._at > 0 or bool(self._pieces)

    def close(self, size: int) -> None:
        """The rest, up to the size of what is stored, stays."""
        self._keep_to(size)

    def _keep_to(self, at: int) -> None:
        if at > self._at:
            self._starts.append(self.size_bytes)
            self._pieces.append(self._at)
            self.size_bytes += at - self._at

    def stored(self, offset: int) -> int:
        """Where the octet at `offset`, or one before it, is stored."""
        for number in range(bisect_right(self._starts, offset) - 1, -1, -1):
            piece = self._pieces[number]
            if isinstance(piece, int):
                return piece + offset - self._starts[number]
        return 0

    def read(self, offset: int, length: int, stored: Read) -> bytes | None:
        """Octets of the changed message, fewer only at its end; None where `stored` gives none."""
        end = min(offset + length, self.size_bytes)
        out = []
        number = bisect_right(self._starts, offset) - 1
        while offset < end:
            stop = self._starts[number + 1] if number + 1 < len(self._starts) else self.size_bytes
            piece, within, octets = self._pieces[number], offset - self._starts[number], min(stop, end) - offset
            found = piece[within : within + octets] if isinstance(piece, bytes) else stored(piece + within, octets)
            if found is None or len(found) != octets:
                return None
            out.append(found)
            offset += octets
            number += 1
        return b"".join(out)


class OutgoingChecks:
    """The tables of one transport."""

    __slots__ = ("_generic", "_looked_at", "_services", "_tables", "_transport")

    def __init__(self, services: "Services", transport: str, tables: dict[Kind, TableSet], generic: AddressMap) -> None:
        self._services = services
        self._generic = generic
        self._transport = transport
        self._tables = tables
        self._looked_at = services.clock.monotonic()

    async def look(self, job: Job, read: Read, need: Need) -> bool:
        """Looks through what is stored, and gives the job its changes; False: it cannot be read. A job that must not
        leave as it is has been decided.
        """
        self._refresh()
        kinds = frozenset(self._tables) | ({Kind.HEADER} if self._generic else set())
        walk = Walk(kinds, _WHOLE)
        size = job.envelope.size_bytes
        share = self._services.turns.share()
        findings = _Findings(self._services, self._tables, self._transport, job, self._generic, share.pause)
        share.begin()
        try:
            findings.rename()
            at = 0
            while at < size and not walk.is_over:
                octets = min(CONTENT_PIECE_BYTES, size - at)
                waiting = need(at, octets)
                if waiting is not None:
                    await waiting
                piece = read(at, octets)
                if not piece:
                    return False
                at += len(piece)
                for each in walk.feed(piece):
                    await findings.take(each)
                    await share.pause()
                if findings.failure is not None:
                    break
                await share.pause()
            for each in walk.end():
                await findings.take(each)
        except TemporaryFailure:
            findings.failure = _UNREADABLE
        finally:
            share.leave()
        findings.conclude()
        return True

    def _refresh(self) -> None:
        now = self._services.clock.monotonic()
        if now - self._looked_at >= _REFRESH_S:
            self._looked_at = now
            for tables in (*self._tables.values(), self._generic.tables):
                tables.refresh()


def tables_of(delivery: "DeliveryConfig", transport: str) -> dict[Kind, tuple[str, ...]]:
    """The tables that are set for mail of a transport, "smtp" or "lmtp"."""
    found = {kind: getattr(delivery, f"{transport}_{kind}") for kind in Kind}
    return {kind: names for kind, names in found.items() if names}


def checks_of(services: "Services") -> dict[str, OutgoingChecks]:
    """By transport, those that have any."""
    made = {}
    for transport in ("smtp", "lmtp"):
        delivery = services.config.delivery
        tables = tables_of(delivery, transport)
        maps = delivery.lmtp_generic_maps if transport == "lmtp" else delivery.smtp_generic_maps
        if tables or maps:
            sets = {kind: TableSet(names) for kind, names in tables.items()}
            generic = AddressMap(services.config, maps, propagates=False)
            made[transport] = OutgoingChecks(services, transport, sets, generic)
    return made


async def looked_through(service: "DeliveryService", checks: OutgoingChecks, job: Job, read: Read) -> bool:
    """Whether a job has been looked through; else its message cannot be read."""
    blob_id = job.message.blob_id
    job.checked = await checks.look(job, read, lambda at, octets: service.queue.need(blob_id, at, octets))
    return job.checked


class _Findings:
    """What the tables say of one message."""

    def __init__(
        self,
        services: "Services",
        tables: dict[Kind, TableSet],
        transport: str,
        job: Job,
        generic: AddressMap,
        pause: Callable[[], Awaitable[None]],
    ) -> None:
        self._pause = pause
        self._generic = generic
        self._log = services.log
        self._offload = services.offload
        self._tables = tables
        self._transport = transport
        self._job = job
        self._changed = Changed()
        self._bits = 0
        self._told = 0
        self.failure: Reply | None = None

    async def take(self, piece: Piece) -> None:
        """Asks about a piece, and does what is said."""
        if self.failure is not None or not piece.text:
            return
        tables = self._tables.get(piece.kind)
        text = piece.text.decode("utf-8", "surrogateescape")
        value = await tables.find(text, self._offload) if tables is not None else None
        if value is None:
            await self._stays(piece)
            return
        try:
            action = parse_outgoing(piece.kind, value)
        except ValueError as error:
            self._log.warning("delivery.configuration_problem", setting=self._key(piece.kind), cause=str(error)[:400])
            self.failure = _MISTAKEN
            return
        if action.word in ("DUNNO", "OK"):
            await self._stays(piece)
            return
        if action.word != "IGNORE":
            self._tell(action.word, action.text, piece)
        new = field_of(action.text)
        match action.word:
            case "PREPEND":
                self._change(piece.at, 0, new)
                await self._stays(piece)
            case "REPLACE":
                new = await self._renamed(piece.kind, new) or new
                self._change(piece.at, piece.size, new[:-2] if self._lacks_end(piece) else new)
            case word if word in DELETES:
                self._change(piece.at, piece.size, b"")
            case _:
                await self._stays(piece)

    async def _stays(self, piece: Piece) -> None:
        """The checks have nothing against a piece: it stays, but for its addresses."""
        if self._generic and piece.kind is Kind.HEADER:
            new = await self._renamed(piece.kind, piece.text.replace(b"\n", b"\r\n") + b"\r\n")
            if new is not None:
                self._change(piece.at, piece.size, new[:-2] if self._lacks_end(piece) else new)

    async def _renamed(self, kind: Kind, raw: bytes) -> bytes | None:
        """A field of the message's own header with the addresses that the generic maps give it; None: as it is."""
        name, _, value = raw.partition(b":")
        word = name.strip().lower()
        if kind is not Kind.HEADER or not self._generic or not (word in SENDERS or word in RECIPIENTS):
            return None
        if len(raw) > REWRITTEN_FIELD_BYTES:
            self._log.info(
                "delivery.not_rewritten", queue_id=queue_id_text(self._job.message.queue_id), octets=len(raw)
            )
            return None
        new = await rewritten(value.decode("utf-8", "surrogateescape"), self._new_address, self._pause)
        return None if new is None else name + b":" + new.encode("utf-8", "surrogateescape")

    def _new_address(self, text: str) -> str | None:
        try:
            found = self._generic.once(addresses.parse(text))
        except ValueError:
            return None
        return found.raw.decode("utf-8", "surrogateescape") if found is not None else None

    def rename(self) -> None:
        """Gives the envelope the addresses that the generic maps have for it."""
        job, generic = self._job, self._generic
        if not generic:
            return

        def renamed(path: bytes) -> bytes:
            new = self._new_address(path.decode("utf-8", "surrogateescape")) if path else None
            return path if new is None else new.encode("utf-8", "surrogateescape")

        job.sender = renamed(job.sender)
        job.paths = [renamed(each.forward_path) for each in job.recipients]

    def conclude(self) -> None:
        """Gives the job what has been found."""
        job, changed = self._job, self._changed
        if self.failure is not None:
            job.kept_back = True
            job.decide(self.failure)
            return
        if not changed.is_any:
            return
        changed.close(job.envelope.size_bytes)
        job.changed = changed
        job.growth = changed.size_bytes - job.envelope.size_bytes
        job.bits |= self._bits | HAS_DOT_LINE  # what is left of a long line may begin with a dot

    def _lacks_end(self, piece: Piece) -> bool:
        """Whether a piece has no line end: the first ones of a long line, and a message's last one without."""
        if piece.at + piece.size >= self._job.envelope.size_bytes and self._job.envelope.bits & NO_FINAL_CRLF:
            return True
        return piece.kind is Kind.BODY and piece.size == len(piece.text)

    def _change(self, at: int, size: int, new: bytes) -> None:
        self._changed.change(at, size, new)
        if self._changed.is_too_much:
            self.failure = _TOO_MANY
        if not new.isascii():
            self._bits |= HAS_8BIT
        if max(map(len, new.split(b"\r\n"))) > LINE_BYTES:
            self._bits |= HAS_LONG_LINE

    def _tell(self, word: str, text: str, piece: Piece) -> None:
        self._told += 1
        if self._told > OUTGOING_TOLD:
            return
        self._log.info(
            "delivery.content",
            queue_id=queue_id_text(self._job.message.queue_id),
            action=word.lower(),
            key=self._key(piece.kind),
            what=piece.text[:_SHOWN].decode("utf-8", "replace"),
            text=text or None,
        )

    def _key(self, kind: Kind) -> str:
        return f"{self._transport}_{kind}"
