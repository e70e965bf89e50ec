"""The hop local: recipients of ours that the accepting unit did not deliver: refused by their mailbox, or with
NOTIFY=SUCCESS.

The delivery and the end of the queued recipient are one unit, so it happens exactly once. One message at a time, in a
task, since reading a whole message and finding its structure may take a while.
"""

import asyncio
import contextlib
from typing import Any, Final

from fastmta._intake import REFUSE, Body, Posting, Recipient
from fastmta._mime import Structure
from fastmta._parser import HeaderScan
from fastmta.delivery.job import Job
from fastmta.delivery.owner import COMMITTED, REFUSED, TaskHop
from fastmta.delivery.recorder import FORWARDED
from fastmta.delivery.seams import QueuedRecipient
from fastmta.model.envelope import (
    NOTIFY_SUCCESS,
    LocalTarget,
    RecipientState,
    Resolution,
)
from fastmta.model.errors import TemporaryFailure
from fastmta.model.reply import Reply
from fastmta.queue.dsn import Outcome, owes

PIECE_BYTES: Final = 65_536  # parsed in one go; the loop runs between pieces

DELIVERED: Final = Reply(250, "2.0.0", "delivered to mailbox")
UNKNOWN_USER: Final = Reply(550, "5.1.1", "The mailbox does not exist")
OVER_QUOTA: Final = Reply(452, "4.2.2", "The mailbox is full")
UNREADABLE: Final = Reply(451, "4.3.0", "The message cannot be read")
NOT_NOW: Final = Reply(451, "4.3.0", "The mailbox cannot be written now")


class LocalHop(TaskHop):
    """All local recipients of the queue."""

    __slots__ = ()

    is_final = True
    place = "local"

    async def deliver(self, job: Job) -> list[Reply]:
        """What mailboxes take is done and committed here; every recipient gets a reply for the recorder."""
        replies = [UNKNOWN_USER] * len(job.rows)
        wanted: dict[int, Resolution] = {}
        for n, row in enumerate(job.rows):
            resolution = self._resolve(row)
            if resolution.refusal is not None:
                replies[n] = resolution.refusal
            elif resolution.targets:
                wanted[n] = resolution
        body = await self._body(job) if wanted else None
        for n, resolution in wanted.items():
            replies[n] = await self._commit(job, job.rows[n], resolution, body) if body is not None else UNREADABLE
        return replies

    def _resolve(self, row: QueuedRecipient) -> Resolution:
        """The mailbox of an address, which aliases have been applied to already, or what the directory says now."""
        path = row.tail.forward_path
        services = self.service.services
        account = services.store.accounts.lookup(path.decode("utf-8", "surrogateescape").lower())
        if account is not None and account.enabled:
            return Resolution(targets=(LocalTarget(account.id, account.inbox_id, path, account.address.encode()),))
        return services.directory.resolve(path, may_relay=True)

    async def _commit(self, job: Job, row: QueuedRecipient, resolution: Resolution, body: Body) -> Reply:
        """One unit: into each mailbox that has not got the message, into the queue for whoever else the address stands
        for now, the report that the sender wants, and done.
        """
        store = self.service.services.store
        message, recorder = job.message, self.service.recorder
        now = self.service.clock.now()
        unit = store.new_unit()
        job.postings.clear()
        recipient = Recipient.onward(row.tail, resolution)
        directory = self.service.services.directory
        if directory.adjusts:
            with contextlib.suppress(TemporaryFailure):  # a table cannot be read: the usual route, then
                recipient = directory.adjusted(message.envelope.reverse_path, [recipient], copies=False)[0]
        posting = Posting(recorder.teller, store.new_id(), message.envelope, body, REFUSE).to([recipient])
        posting.date_s = int(now)
        posting.due_ms = int(now * 1000)
        posting.write(unit)
        unit.move_recipient(message.queue_id, row.n, 0, int(RecipientState.DELIVERED), row.attempts + 1, 0, b"")
        # Who is forwarded keeps his NOTIFY, so the next server, or we, report his success then (RFC 3461 §5.2.7).
        local = recipient.has_local and not posting.is_loop
        if local and row.tail.notify & NOTIFY_SUCCESS and owes("delivered", job.envelope, row.tail):
            report = recorder.reports.compose(job, "delivered", [Outcome(row.tail, DELIVERED)])
            if report is not None:
                if recorder.reports.are_judged:
                    await recorder.reports.judge([report])
                recorder.reports.put(unit, job, report)
        committed: asyncio.Future[Any] = self.service.loop.create_future()
        store.submit(unit, committed.set_result)
        await asyncio.shield(committed)
        posting.committed(unit)
        if unit.status == COMMITTED:
            recorder.notifications_committed(job, unit)
            job.done.add(row.n)
            if local:
                if job.mailboxes is None:
                    job.mailboxes = {}
                job.mailboxes[row.n] = b",".join(each.mailbox for each in recipient.targets if each.mailbox_id)
            return DELIVERED if local else FORWARDED
        if unit.status == REFUSED and unit.failure == "quota":
            return OVER_QUOTA
        return NOT_NOW  # the store is in trouble, or the mailbox went meanwhile: the next try asks again

    async def _body(self, job: Job) -> Body | None:
        """The message as mailboxes need it; None where it cannot be read."""
        parser, scan = Structure(), HeaderScan()
        queue = self.service.queue
        size = job.envelope.size_bytes
        offset = 0
        while offset < size:
            waiting = queue.need(job.message.blob_id, offset, min(PIECE_BYTES, size - offset))
            if waiting is not None:
                await waiting
            piece = queue.read(job.message.blob_id, offset, min(PIECE_BYTES, size - offset))
            if not piece:
                return None
            parser.feed(piece)
            if not scan.is_done:
                scan.feed(piece)
            offset += len(piece)
            await asyncio.sleep(0)
        loops = scan.delivered_to_addresses() or None
        return Body(None, parser.finish(), loops, blob_id=job.message.blob_id, size=size)
