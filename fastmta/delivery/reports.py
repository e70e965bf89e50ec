"""Reports to senders (queue/dsn.py) as mail of our own: composed, shown to the checks of such mail, put into a unit.

The unit is that of the results which the report is about, so both are kept or none.
"""

import contextlib
from collections.abc import Awaitable
from typing import Any, Final

from fastmta._canonical import Field
from fastmta._intake import Body, Posting, Recipient, Teller
from fastmta._mime import Structure
from fastmta.delivery.job import Job
from fastmta.delivery.seams import Services
from fastmta.model.envelope import (
    HAS_8BIT,
    HAS_BARE_NEWLINE,
    HAS_DOT_LINE,
    HAS_LONG_LINE,
    Envelope,
    LocalTarget,
    Terms,
    tenant_of,
)
from fastmta.model.errors import StorageFailure, TemporaryFailure
from fastmta.model.ids import queue_id_text
from fastmta.model.limits import LINE_BYTES
from fastmta.policy.judge import Judge
from fastmta.queue.dsn import HEADER_BYTES, Kind, Notice, Outcome, Report, build
from fastmta.queue.retry import RetryPolicy
from fastmta.runtime.metrics import METRICS
from fastmta.smtp.transaction import ascii_path

_CLIENT: Final = "local"


class Composed:
    """A report that is in no unit yet. `head`: fields that checks put on top, its signatures."""

    def __init__(self, queue_id: int, kind: Notice, message: bytes, envelope: Envelope, to: Recipient) -> None:
        self.queue_id = queue_id
        self.kind = kind
        self.message = message
        self.envelope = envelope
        self.to = to
        self.head = b""
        self.fields: tuple[Field, ...] | None = None

    @property
    def size(self) -> int:
        return len(self.message)

    async def read(self, offset: int, octets: int) -> bytes:
        return self.message[offset : offset + octets]


class Reports:
    """All reports of one service."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._judge = Judge("bounce", services)

    def configure(self, policy: RetryPolicy, teller: Teller, tells_postmaster: bool, sender: bytes) -> None:
        """The configuration was read. `tells_postmaster`: of what no sender can be told; `sender`: of what he gets."""
        self._tells_postmaster = tells_postmaster
        self._sender = sender
        self._policy = policy
        self._teller = teller
        self._judge.configure(self._services)

    @property
    def are_judged(self) -> bool:
        return self._judge.asks

    def compose(self, job: Job, notice: Notice, outcomes: list[Outcome]) -> Composed | None:
        """The report on these outcomes; None, and a line in the log, where its reader is nobody."""
        services = self._services
        envelope = job.envelope
        now = services.clock.now()
        kind, postmaster = self._addressed(notice)
        reader = postmaster or envelope.reverse_path
        resolution = services.directory.resolve(reader, may_relay=True)
        if resolution.refusal is not None or not resolution.targets:
            if notice == "failed" and self._tells_postmaster:
                return self.compose(job, "2bounce", outcomes)
            services.cells[METRICS.bounces_dropped_total["sender_refused"]] += 1
            services.log.warning(
                "delivery.bounce_dropped",
                queue_id=queue_id_text(job.message.queue_id),
                sender=reader,
                kind=notice,
                recipients=[outcome.recipient.forward_path for outcome in outcomes[:10]],
                reply=str(resolution.refusal),
            )
            return None
        report_id = services.store.new_id()
        config = services.config
        report = Report(
            kind=kind,
            hostname=config.myhostname,
            queue_id=queue_id_text(job.message.queue_id),
            report_id=queue_id_text(report_id),
            envelope=envelope,
            outcomes=outcomes,
            original=self._original(job, kind, config.delivery.bounce_size_limit),
            now_s=now,
            retry_until_s=envelope.began_ms / 1000 + self._policy.lifetime_s(envelope.reverse_path),
            size_limit=config.delivery.bounce_size_limit,
            eight_bit=all(isinstance(target, LocalTarget) for target in resolution.targets),
            postmaster=postmaster,
        )
        message = build(report)
        own = Envelope(
            self._sender if postmaster else b"",
            int(now * 1000),
            len(message),
            bits_of(message),
            client=_CLIENT,
            smtputf8=ascii_path(reader) is None,
            protocol="local",
            terms=Terms(True) if envelope.terms is not None and envelope.terms.requiretls else None,
            tenant=tenant_of(envelope, outcomes[0].recipient) if outcomes else "",
        )
        to = Recipient(reader, resolution)
        directory = services.directory
        if directory.adjusts:
            with contextlib.suppress(TemporaryFailure):  # a table cannot be read: the usual route, then
                to = directory.adjusted(own.reverse_path, [to], copies=False)[0]
        return Composed(report_id, notice, message, own, to)

    async def judge(self, reports: list[Composed]) -> None:
        """Shows them to the checks of our own mail, which may add to them; what they refuse goes out as it is."""
        for each in reports:
            try:
                outcome = await self._judge.judge(
                    each, each.queue_id, _CLIENT, each.envelope.reverse_path, [each.to.forward_path]
                )
            except TemporaryFailure:
                continue
            each.head = outcome.head

    def put(self, unit: Any, job: Job, composed: Composed) -> None:
        """Adds a report to the unit: into the sender's mailbox where it is ours, else into the queue."""
        blob = self._services.store.new_blob()
        blob.feed(composed.message)
        blob.head = composed.head
        blob.bits = composed.envelope.bits
        composed.envelope.size_bytes = blob.size
        structure = b""
        if composed.to.has_local:
            parser = Structure()
            parser.feed(composed.message)
            structure = parser.finish(head=composed.head)
        posting = Posting(self._teller, composed.queue_id, composed.envelope, Body(blob, structure))
        posting.to([composed.to]).write(unit)
        job.postings.append(posting)
        self._services.log.info(
            "delivery.notified",
            queue_id=queue_id_text(job.message.queue_id),
            report=queue_id_text(composed.queue_id),
            kind=composed.kind,
            recipient=composed.to.forward_path,
        )

    def _addressed(self, notice: Notice) -> tuple[Kind, bytes]:
        """The kind of a notification, and the postmaster who gets it; b"": the sender does."""
        config = self._services.config
        if notice == "copy":
            return "failed", at_origin(config.bounce_notice_recipient, config.myorigin)
        if notice == "2bounce":
            return "failed", at_origin(config._2bounce_notice_recipient, config.myorigin)
        if notice == "delayed copy":
            return "delayed", at_origin(config.delay_notice_recipient, config.myorigin)
        return notice, b""

    def need(self, job: Job) -> Awaitable[None] | None:
        """None where what the job's reports have of the message can be read without waiting for the disk; else to be
        awaited before they are composed.
        """
        limit = self._services.config.delivery.bounce_size_limit if "failed" in (job.reports or ()) else HEADER_BYTES
        wanted = min(job.envelope.size_bytes, max(limit, HEADER_BYTES))
        return self._services.store.queue.need(job.message.blob_id, 0, wanted)

    def _original(self, job: Job, kind: Kind, limit: int) -> bytes:
        """As much of the message as the notification needs; b"" where it has gone."""
        size = job.envelope.size_bytes
        wanted = size if kind == "failed" and size <= limit else min(size, HEADER_BYTES)
        raw = b""
        while len(raw) < wanted:
            try:
                piece = self._services.store.queue.read(job.message.blob_id, len(raw), min(wanted - len(raw), 262_144))
            except StorageFailure:  # the report goes out without what cannot be read
                break
            if not piece:
                break
            raw += piece
        return raw


def bits_of(message: bytes) -> int:
    """The arrival bits of a message of our own making."""
    bits = 0 if message.isascii() else HAS_8BIT
    if b"\n." in message:
        bits |= HAS_DOT_LINE
    if any(len(line) > LINE_BYTES for line in message.split(b"\r\n")):
        bits |= HAS_LONG_LINE
    if message.count(b"\n") != message.count(b"\r\n") or message.count(b"\r") != message.count(b"\r\n"):
        bits |= HAS_BARE_NEWLINE
    return bits


def at_origin(address: str, origin: str) -> bytes:
    """An address of the configuration, with our domain where it has none."""
    return (address if "@" in address else f"{address}@{origin}").encode()
