"""From replies to the store: the new state of each recipient, notifications that are owed, log lines and counters.

Everything that one delivery decides of a message is one unit: moves and notifications are all kept or none. A unit
that is refused because somebody else has decided about one recipient meanwhile is written again without that one.
"""

import asyncio
import random
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any, Final

from fastmta._intake import Event
from fastmta.delivery.answers import Answers, Note
from fastmta.delivery.job import Job
from fastmta.delivery.reports import Composed, Reports, at_origin
from fastmta.delivery.seams import QueuedRecipient, Services
from fastmta.model.envelope import (
    NOTIFY_SUCCESS,
    RecipientState,
)
from fastmta.model.events import Happening
from fastmta.model.ids import queue_id_text
from fastmta.model.reply import Reply
from fastmta.queue.dsn import Kind, Notice, Outcome, owes, status_of
from fastmta.queue.retry import DELAY_NOTED, RetryPolicy, asked_delay_s
from fastmta.runtime import crash
from fastmta.runtime.events import teller
from fastmta.runtime.metrics import METRICS

if TYPE_CHECKING:
    from fastmta.delivery.service import DeliveryService

LAST_REPLY_BYTES: Final = 1000  # of a reply that is kept with a deferred recipient
LOGGED_CHARACTERS: Final = 2048  # of a reply in the log
FORWARDED: Final = Reply(250, "2.0.0", "forwarded")  # a recipient of ours stands for others now
RECORDINGS: Final = 8  # of one job, before its recipients are given back to the schedule

_COPIES: Final[dict[Kind, Notice]] = {"failed": "copy", "delayed": "delayed copy"}
# What is told to postmaster, and by which of notify_classes: "bounce" has "2bounce" with it, as in Postfix.
_CLASSES: Final = (("failed", "bounce"), ("2bounce", "bounce"), ("2bounce", "2bounce"), ("delayed", "delay"))

_DELIVERED, _DEFERRED, _BOUNCED = (
    int(RecipientState.DELIVERED),
    int(RecipientState.DEFERRED),
    int(RecipientState.BOUNCED),
)
_LIVE: Final = (RecipientState.ACTIVE, RecipientState.DEFERRED)


class Recorder:
    """Writes results down, and tells of them once they are. One a service."""

    def __init__(self, services: Services, service: "DeliveryService") -> None:
        self._services = services
        self._service = service
        self.reports = Reports(services)
        self.configure()

    def configure(self) -> None:
        """The configuration was reread."""
        self.policy = RetryPolicy.of(self._services.config.delivery)
        config = self._services.config
        classes = config.notify_classes
        self._double_bounce_sender = at_origin(config.double_bounce_sender, config.myorigin)
        self._copies = {word for word, name in _CLASSES if name in classes}
        self._soft_bounce = config.soft_bounce
        self.teller = teller(self._services.log, self._services.clock, self._services.cells)
        self.reports.configure(self.policy, self.teller, "2bounce" in self._copies, self._double_bounce_sender)

    # --- results ---

    def finish(self, job: Job, *, counts: bool = True, not_before_s: float = 0.0) -> None:
        """Records every result of the job. `counts`: it was an attempt. `not_before_s`: the earliest next try."""
        services = self._services
        now = services.clock.now()
        envelope = job.envelope
        age_s = now - envelope.began_ms * 0.001
        took_s = services.clock.monotonic() - job.began if job.began >= 0 else -1.0
        moves = job.moves
        moves.clear()
        taken = []  # by a next hop, which a duplicate would reach
        for row, reply in zip(job.rows, job.results, strict=True):
            if reply is None:
                continue
            if self._soft_bounce:
                reply = reply.softened()
            attempts = row.attempts + counts
            status: Happening
            if reply.code < 300:
                if row.n not in job.done:
                    moves.append((row.n, _DELIVERED, attempts, 0, b""))
                status = "expanded" if reply is FORWARDED else "delivered"
                if not _owes_success(job, row):
                    taken.append(row.n)
                elif row.n not in job.done:
                    self._report(job, "delivered" if job.owner.is_final else "relayed", row, reply)
            elif reply.code >= 500 or (not self._soft_bounce and self.policy.is_expired(age_s, envelope.reverse_path)):
                moves.append((row.n, _BOUNCED, attempts, 0, b""))
                status = "bounced"
                self._classify(job, reply, counts=counts)
                self._report(job, "failed", row, reply)
            else:
                self._classify(job, reply, counts=counts)
                terms = envelope.terms
                if terms is not None and terms.returns and now * 1000 >= terms.deliver_by_ms:
                    reply = Reply(550, "5.4.7", f"Delivery time expired: {reply}")
                    moves.append((row.n, _BOUNCED, attempts, 0, b""))
                    status = "bounced"
                    self._report(job, "failed", row, reply)
                else:
                    moves.append(self._deferral(job, row, reply, now, age_s, attempts, not_before_s))
                    status = "deferred"
            job.events.append((row.n, self._event(status, job, row, reply, age_s, took_s)))
        if taken and job.owner.is_remote and self._service.answers is not None:
            self._note(job, self._service.answers, taken)
        if crash.NAME and any(reply is not None and reply.code < 300 for reply in job.results):
            crash.crash_point("after_remote_250")
        if moves or job.reports:
            self.submit(job)
        else:
            self.tell(job)
            job.owner.forget_decided(job)

    def _classify(self, job: Job, reply: Reply, *, counts: bool) -> None:
        """Counts what a reply means; a server that asks for less is sent less."""
        if not counts:
            return
        meaning = self._service.replies.of_reply(reply)
        self._services.cells[METRICS.delivery_replies_total[meaning]] += 1
        if meaning == "rate-limited" and job.relay:
            job.owner.asked_for_less(reply)

    def partly_answered(self, job: Job) -> None:
        """Notes what was taken of a job that goes on."""
        if self._service.answers is None:
            return
        replies = zip(job.rows, job.results, strict=True)
        taken = [row for row, reply in replies if reply is not None and reply.code < 300]
        # Not the last ones of them: who is tried again after a lost connection stands where he stood.
        fresh = [row.n for row in taken if row.n not in job.heard and not _owes_success(job, row)]
        job.heard = frozenset(row.n for row in taken)
        self._note(job, self._service.answers, fresh)

    def _note(self, job: Job, answers: Answers, taken: list[int]) -> None:
        """Notes what the next hop took, so that it is not sent again should we be killed before the commit.

        Where success is ours to report it is not: the report is in the unit, and worth more than a duplicate.
        """
        try:
            answers.note(job.message.queue_id, job.envelope.received_at_ms, taken)
        except OSError as error:
            self._services.log.warning("delivery.answers_not_kept", cause=str(error))

    async def recover(self, notes: Sequence[Note]) -> None:
        """Records recipients that a dead process had delivered; what the store knows already is passed over."""
        services = self._services
        queue = services.store.queue
        unit = services.store.new_unit()
        found = 0
        for queue_id, received_at_ms, n in dict.fromkeys(notes):
            row = queue.recipient(queue_id, n)
            message = queue.message(queue_id) if row is not None else None
            if (
                row is None
                or row.state not in _LIVE
                or message is None
                or message.envelope.received_at_ms != received_at_ms
            ):
                continue
            unit.move_recipient(queue_id, n, row.state, _DELIVERED, row.attempts + 1, 0, b"")
            found += 1
            services.log.info(
                "delivery.recovered",
                queue_id=queue_id_text(queue_id),
                recipient=row.tail.forward_path,
                next_hop=row.hop,
            )
        if found:
            recorded: asyncio.Future[Any] = services.loop.create_future()
            services.store.submit(unit, recorded.set_result)
            await asyncio.shield(recorded)

    def _event(
        self, status: Happening, job: Job, row: QueuedRecipient, reply: Reply, age_s: float, took_s: float
    ) -> Event:
        return Event(
            status,
            job.owner.label,
            job.message.queue_id,
            row.tail.forward_path,
            job.owner.hop_text,
            job.relay or job.owner.place,
            age_s,
            status_of(reply),
            str(reply)[:LOGGED_CHARACTERS],
            row.tail.original,
            job.mailboxes.get(row.n, b"") if job.mailboxes is not None else b"",
            took_s=took_s,
            tls=job.tls,
        )

    def tell(self, job: Job) -> None:
        """What the job's recipients have met is the store's now: it is told."""
        events, job.events = job.events, []
        for _, event in events:
            self.teller.tell(event)

    def _deferral(
        self,
        job: Job,
        row: QueuedRecipient,
        reply: Reply,
        now: float,
        age_s: float,
        attempts: int,
        not_before_s: float,
    ) -> tuple[int, int, int, int, bytes]:
        policy = self.policy
        reverse_path = job.envelope.reverse_path
        delay_s = policy.delay_s(age_s, attempts, random.random(), asked_delay_s(reply) if job.relay else 0.0)
        due_s = max(now + delay_s, not_before_s)
        said = f"host {job.relay} said: {reply}" if job.relay else str(reply)
        text = said.encode("utf-8", "replace")[:LAST_REPLY_BYTES]
        noted = row.last_reply.endswith(DELAY_NOTED)
        terms = job.envelope.terms
        is_late = False
        if terms is not None and terms.by_mode:
            by_s = terms.deliver_by_ms * 0.001
            is_late = by_s <= now and not noted
            due_s = min(due_s, by_s) if by_s > now else due_s  # RFC 2852 §4.1.1: told, or returned, at that time
        if is_late or policy.owes_delay_warning(age_s, reverse_path, row.last_reply):
            self._report(job, "delayed", row, reply)
            noted = True
        return row.n, _DEFERRED, attempts, int(due_s * 1000), text + DELAY_NOTED if noted else text

    def _report(self, job: Job, kind: Kind, row: QueuedRecipient, reply: Reply) -> None:
        """Notes whom a notification of this kind is owed to: the sender, and postmaster by notify_classes."""
        is_from_us = job.envelope.reverse_path == self._double_bounce_sender  # to postmaster, who cannot get it
        if owes(kind, job.envelope, row.tail) and not is_from_us:
            self._note_report(job, kind, row, reply)
            if kind in self._copies:
                self._note_report(job, _COPIES[kind], row, reply)
        elif kind == "failed" and (is_from_us or not job.envelope.reverse_path):
            # A notification of a notification would have nobody to go to (RFC 5321 §6.1): postmaster gets it where he
            # wants it, and the log is the last to know.
            if "2bounce" in self._copies and not is_from_us:
                self._note_report(job, "2bounce", row, reply)
                return
            self._services.cells[METRICS.bounces_dropped_total["double_bounce"]] += 1
            self._services.log.warning(
                "delivery.bounce_dropped",
                queue_id=queue_id_text(job.message.queue_id),
                recipient=row.tail.forward_path,
                next_hop=job.owner.hop_text,
                reply=str(reply)[:LOGGED_CHARACTERS],
            )

    def _note_report(self, job: Job, notice: Notice, row: QueuedRecipient, reply: Reply) -> None:
        if job.reports is None:
            job.reports = {}
        job.reports.setdefault(notice, []).append(Outcome(row.tail, reply, job.relay))

    # --- the unit ---

    def submit(self, job: Job) -> None:
        """Hands the job's moves and notifications to the store as one unit; `job.committed` hears of it."""
        waiting = self.reports.need(job) if job.reports else None
        if waiting is not None:
            self._services.tasks.spawn("delivery report", self._submit_when_there(job, waiting))
            return
        self._submit(job)

    async def _submit_when_there(self, job: Job, waiting: Awaitable[None]) -> None:
        await waiting
        self._submit(job)

    def _submit(self, job: Job) -> None:
        reports: list[Composed] = []
        if job.reports:
            made = [self.reports.compose(job, kind, outcomes) for kind, outcomes in job.reports.items()]
            reports = [each for each in made if each is not None]
        job.recordings += 1
        self._service.submitted(job.results_recorded())
        if reports and self.reports.are_judged:
            self._services.tasks.spawn("delivery report", self._judge(job, reports))
        else:
            self._write(job, reports)

    async def _judge(self, job: Job, reports: list[Composed]) -> None:
        await self.reports.judge(reports)
        self._write(job, reports)

    def _write(self, job: Job, reports: list[Composed]) -> None:
        store = self._services.store
        queue_id = job.message.queue_id
        unit = store.new_unit()
        job.postings.clear()  # of a unit that was refused
        # From any live state: a requeue in the meantime must not make a second delivery of this one.
        for n, state, attempts, due_ms, reply in job.moves:
            unit.move_recipient(queue_id, n, 0, state, attempts, due_ms, reply)
        for each in reports:
            self.reports.put(unit, job, each)
        if crash.NAME:
            crash.crash_point("before_done")
        store.submit(unit, job.committed)

    def still_wanted(self, job: Job) -> bool:
        """After a refusal: leaves only the moves of recipients that may still be moved; whether any is left."""
        queue = self._services.store.queue
        queue_id = job.message.queue_id
        kept = []
        gone = set()
        for move in job.moves:
            row = queue.recipient(queue_id, move[0])
            if row is not None and row.state in _LIVE:
                kept.append(move)
            else:
                gone.add(move[0])
                self._services.log.info("delivery.too_late", queue_id=queue_id_text(queue_id), n=move[0])
        for n, event in job.events:
            if n in gone and event.happened == "delivered":  # it was, whatever the queue says by now
                self.teller.tell(event)
        job.events = [each for each in job.events if each[0] not in gone]
        lost = {bytes(row.tail.forward_path) for row in job.rows if row.n in gone}
        for kind, outcomes in list((job.reports or {}).items()):
            left = [outcome for outcome in outcomes if outcome.recipient.forward_path not in lost]
            assert job.reports is not None
            if left:
                job.reports[kind] = left
            else:
                del job.reports[kind]
        changed = len(kept) < len(job.moves)
        job.moves = kept
        return bool(kept) and changed and job.recordings < RECORDINGS

    # --- notifications ---

    def notifications_committed(self, job: Job, unit: Any) -> None:
        """Tells and counts the reports that this unit has put into mailboxes."""
        if job.postings:
            postings, job.postings = job.postings, []
            for posting in postings:
                posting.committed(unit)


def _owes_success(job: Job, row: QueuedRecipient) -> bool:
    """Whether a report of success is ours to send."""
    terms = job.envelope.terms
    if terms is not None and terms.by_mode.endswith("T") and not job.owner.is_final:
        return True
    return bool(row.tail.notify & NOTIFY_SUCCESS) and not job.dsn_passed_on
