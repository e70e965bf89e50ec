"""The owner of one hop: what is taken from its schedule, and what becomes of it; its kinds add how it is delivered.

A kind is a transport's class, named in model/routes.py. Most need only `TaskHop.deliver`; one that keeps connections,
or answers without waiting, has a `pump` of its own.

A recipient that was taken is in `book` until its result is committed; jobs that wait for a connection are in `ready`.
Both are bounded, so a backlog of a million costs this process nothing.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from fastmta.delivery.job import Job
from fastmta.model.envelope import RecipientState
from fastmta.model.ids import queue_id_text
from fastmta.model.reply import Reply
from fastmta.model.routes import BY_NAME
from fastmta.queue.scheduler import HopBook
from fastmta.runtime.metrics import METRICS

if TYPE_CHECKING:
    from typing import Any

    from fastmta.delivery.service import DeliveryService

COMMITTED: Final = 1  # Unit.status
REFUSED: Final = 2
DEFERRED_TRANSPORT: Final = Reply(450, "4.3.2", "deferred transport")


class HopOwner:
    """One hop in the hands of this slot. `transport` is the name of its line in model/routes.py."""

    __slots__ = ("book", "hop", "hop_text", "is_suspended", "label", "ready", "retries", "service", "transport")

    is_remote = False  # another server answers: its 250 is noted until it is committed
    is_final = False  # what is delivered goes no further (RFC 3461: "delivered" instead of "relayed")
    place = "none"  # what the log has as the relay, where no server was spoken to

    def __init__(self, service: "DeliveryService", hop: bytes, transport: str) -> None:
        self.service = service
        self.hop = hop
        self.hop_text = hop.decode("utf-8", "backslashreplace")
        self.transport = transport
        self.label = BY_NAME[transport].label  # in metrics
        self.is_suspended = False  # by command: nothing is begun, whatever is wished
        self.book = HopBook()
        self.ready: deque[Job] = deque()
        self.retries = False  # what is taken now was tried before

    def kick(self) -> None:
        """There may be new work."""
        self.book.more = True
        self.pump()

    def pump(self) -> None:
        """Starts as much as may be started now."""
        raise AssertionError("a kind of hop says how it delivers")

    @property
    def is_idle(self) -> bool:
        """Whether forgetting this owner would lose nothing."""
        return not self.ready and not self.book.in_flight

    @property
    def recipient_limit(self) -> int:
        """How many recipients one delivery has at the most."""
        return self.service.config.delivery.default_destination_recipient_limit

    def close(self) -> None:
        """Lets go of what is not under way."""
        self.let_go()

    def let_go(self) -> None:
        """Gives back the jobs that have not begun."""
        for job in self.ready:
            self.give_back(job)
        self.ready.clear()

    def state(self) -> dict[str, object]:
        """For an administrator: what this hop has in hand, in plain values."""
        ready = sum(len(job.rows) for job in self.ready)
        return {
            "next_hop": self.hop_text,
            "suspended": self.is_suspended,
            "in_flight": len(self.book.in_flight) - ready,
            "connections": 0,
            "concurrency": 0,
            "dead_seconds": 0,
            "reason": "",
        }

    def withdraw(self, keys: frozenset[tuple[int, int]]) -> None:
        """Gives back the jobs that have not begun and hold one of these recipients."""
        for job in [job for job in self.ready if any((row.queue_id, row.n) in keys for row in job.rows)]:
            self.ready.remove(job)
            self.give_back(job)

    def close_idle(self) -> bool:
        """Closes one connection that is at rest, to make room for another hop's; whether there was one."""
        return False

    def abort(self) -> None:
        """Ends what is under way."""

    def asked_for_less(self, reply: Reply) -> None:
        """The other server has said that it gets too much."""

    def settings_changed(self) -> None:
        """The configuration was reread."""

    def clock_set_back(self, seconds: float) -> None:
        """The wall clock was set back: what is remembered of its time lies in the future now."""

    def tick(self, now: float) -> None:
        """Once a second; `now` is monotonic."""

    def refill(self) -> bool:
        """Takes the next pages of the schedule, until something is ready; whether anything is."""
        if not self.book.more:
            return bool(self.ready)
        if not self.service.defers(self.transport):
            return self._take_page()
        while self.book.more and not self.service.is_stalled(self):
            ready, self.ready = self.ready, deque()
            self._take_page()
            taken, self.ready = self.ready, ready
            for job in taken:
                self._defer_unwished(job)
            if ready:
                break
        return bool(self.ready)

    def _defer_unwished(self, job: Job) -> None:
        """Postfix's defer_transports: only who was tried or put off before and made due by a command goes on."""
        wished = [row for row in job.rows if row.state == RecipientState.ACTIVE and row.last_reply]
        others = [row for row in job.rows if row not in wished]
        if wished:
            self.ready.append(Job.of(self, job.message, wished))
        if others:
            rest = Job.of(self, job.message, others)
            rest.decide(DEFERRED_TRANSPORT)
            self.service.recorder.finish(rest, counts=False)

    def _take_page(self) -> bool:
        book = self.book
        service = self.service
        limit = book.page_limit()
        found, loaded, damaged = service.queue.take(self.hop, service.now_ms(), limit, book.in_flight, service.withheld)
        # The damaged stay in flight: nobody can deliver them, nor may they be asked for all the time.
        book.took(damaged, found=found, limit=limit)
        self.retries = bool(loaded) and loaded[0][1][0].attempts > 0
        ready = self.ready
        forwarding = service.forwarding
        for message, rows in loaded:
            book.in_flight.update([(message.queue_id, row.n) for row in rows])
            for group in (rows,) if forwarding is None else forwarding.groups(self, rows):
                most = self.recipient_limit if len(group) > 1 else 1
                if len(group) <= most:
                    ready.append(Job.of(self, message, group))
                else:
                    for start in range(0, len(group), most):
                        ready.append(Job.of(self, message, group[start : start + most]))
        return bool(ready)

    def give_back(self, job: Job) -> None:
        """The job is not done and not recorded: its recipients are the schedule's again."""
        self.book.forget(job.message.queue_id, (row.n for row in job.rows))
        self.book.more = True

    def take_again(self, job: Job) -> None:
        """What the server did not take only because it was too much at once goes first."""
        if job.again:
            self.ready.appendleft(job.rest())

    def recorded(self, job: Job, unit: "Any") -> None:
        """The store has committed the job's unit, or has not."""
        service = self.service
        service.unrecorded -= job.results_recorded()
        status = unit.status
        if status == COMMITTED:
            service.recorder.notifications_committed(job, unit)
            service.recorder.tell(job)
            in_flight = self.book.in_flight
            queue_id = job.message.queue_id
            for row, reply in zip(job.rows, job.results, strict=True):
                if reply is not None:
                    in_flight.discard((queue_id, row.n))
        elif status == REFUSED:
            if service.recorder.still_wanted(job):
                service.recorder.submit(job)
            else:
                service.recorder.tell(job)
                self.forget_decided(job)
        elif unit.failure == "damaged":
            # Nor ever: they stay in flight, so that they are not delivered twice, and nothing else waits for them.
            service.log.error("delivery.not_recorded", queue_id=queue_id_text(job.message.queue_id), cause=unit.failure)
        else:
            # Nothing can be recorded now. The recipients stay in flight, so that they are not delivered twice, and the
            # service writes their results again later.
            service.log.error("delivery.not_recorded", queue_id=queue_id_text(job.message.queue_id), cause=unit.failure)
            service.unwritten.append(job)
        service.after_commit()

    def forget_decided(self, job: Job) -> None:
        """Nothing more is to be recorded of what the job has decided."""
        numbers = [row.n for row, reply in zip(job.rows, job.results, strict=True) if reply is not None]
        self.book.forget(job.message.queue_id, numbers)


class TaskHop(HopOwner):
    """A hop whose deliveries are coroutines, at most `at_once` of them at one time."""

    __slots__ = ("_tasks",)

    def __init__(self, service: "DeliveryService", hop: bytes, transport: str) -> None:
        super().__init__(service, hop, transport)
        self._tasks: dict[asyncio.Task[None], Job] = {}

    async def deliver(self, job: Job) -> Sequence[Reply]:
        """A reply for each of the job's recipients. What raises defers them; what is cancelled is due again."""
        raise AssertionError("a transport says how it delivers")

    @property
    def at_once(self) -> int:
        return 1

    @property
    def is_idle(self) -> bool:
        return super().is_idle and not self._tasks

    def abort(self) -> None:
        for task in list(self._tasks):
            task.cancel()

    def pump(self) -> None:
        service = self.service
        while len(self._tasks) < self.at_once and not service.is_stalled(self) and (self.ready or self.refill()):
            job = self.ready.popleft()
            task = service.services.tasks.spawn(f"delivery {self.transport}", self._finish(job))
            self._tasks[task] = job
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        job = self._tasks.pop(task)
        if task.cancelled():
            self.give_back(job)
        self.pump()

    async def _finish(self, job: Job) -> None:
        service = self.service
        job.began = service.clock.monotonic()
        try:
            replies = await self.deliver(job)
        except Exception as error:
            service.log.exception("delivery.failed", error, queue_id=queue_id_text(job.message.queue_id))
            service.cells[METRICS.internal_errors_total["delivery"]] += 1
            job.decide(Reply(451, "4.3.0", "internal error"))
        else:
            for n, reply in enumerate(replies):
                job.results[n] = reply
        service.pace.later(partial(service.recorder.finish, job))
