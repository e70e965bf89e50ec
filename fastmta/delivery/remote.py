"""Hops behind SMTP or LMTP: connections, kept and reused; addresses, tried in turn.

The common path, a message over a connection that is there, runs in callbacks of the transport and the store alone. A
task exists only while a connection is being made.
"""

import ssl
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from fastmta.delivery import bodies
from fastmta.delivery.bodies import asks_no_tls, convert, header_of, look_through, read_body, seal, tell_folded
from fastmta.delivery.destination import Destination
from fastmta.delivery.dialing import connection_to, dial, reason, session_key, tell_failure, tell_tls
from fastmta.delivery.finding import Finder
from fastmta.delivery.hang_ups import HangUps
from fastmta.delivery.job import Job
from fastmta.delivery.logins import HopLogins
from fastmta.delivery.terms import count_down, fits, refused
from fastmta.delivery.tls_policy import Refused, TlsPolicy
from fastmta.dns.mx import unusable
from fastmta.model.envelope import Terms
from fastmta.model.errors import PermanentFailure, TemporaryFailure
from fastmta.model.ids import queue_id_text
from fastmta.model.reply import Reply
from fastmta.runtime.metrics import METRICS
from fastmta.smtp.client_connection import Connection
from fastmta.smtp.transaction import Transaction
from fastmta.tls.sessions import Kept

if TYPE_CHECKING:
    from fastmta.delivery.service import DeliveryService

_FRESH_MS: Final = 10_000  # after it came a message is in memory as it was written, and nobody asks
Then = Callable[[Connection, Job], None]
UNREADABLE: Final = Reply(451, "4.3.0", "The message cannot be read from the store")


class Postponed(Exception):
    """Traffic rules let nobody connect now."""


class RemoteHop(Destination):
    """One SMTP or LMTP destination, with all its connections."""

    __slots__ = ("_finder", "_hang_ups", "_idle", "_logins", "_open")

    def __init__(self, service: "DeliveryService", hop: bytes, transport: str) -> None:
        super().__init__(service, hop, transport)
        self._idle: list[Connection] = []  # the last one in is the first one out, so the others may time out
        self._open: dict[Connection, Job | None] = {}  # with the job that waits for the end of the handshake
        self._finder = Finder(service, hop)
        self._logins = HopLogins(service, hop)
        self._hang_ups = HangUps()

    # --- what the service calls ---

    def pump(self) -> None:
        service = self.service
        if self._closing:
            return
        if self._dead_reason is not None and not self._revive():
            self._suspend()
            return
        ready = self.ready
        by_sender = service.logins.by_sender
        book = self.book
        shaper = self._shaper
        while (ready or book.more) and not service.is_stalled(self) and (ready or self.refill()):
            if self._next_at and self._holds_back():
                return
            if by_sender and not self._logins.may_begin(ready[0]):
                self._put_off(ready.popleft())
                continue
            connection = self._at_rest(ready[0]) if self._idle else None
            if connection is not None:
                if not connection.is_reusable:
                    connection.close()
                elif shaper is not None and not shaper.may_begin(connection.grant):
                    self._idle.append(connection)
                    return
                else:
                    self.busy += 1
                    self._begun()
                    self._start(connection, ready.popleft())
            elif self.busy < self.window.size and service.may_connect(self):
                if not self._connect_for(ready.popleft()):
                    return
                self._begun()
            else:
                return

    @property
    def is_idle(self) -> bool:
        return super().is_idle and not self._open

    def state(self) -> dict[str, object]:
        state = super().state()
        state["connections"] = len(self._open)
        return state

    def close_idle(self) -> bool:
        """Closes one connection that is at rest, to make room for another hop's; whether there was one."""
        while self._idle:
            connection = self._idle.pop(0)
            if connection.is_reusable:
                connection.close()
                if self._idle:
                    self.service.resting[self] = None
                return True
            connection.close()
        return False

    def close(self) -> None:
        super().close()
        self.service.resting.pop(self, None)
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    def settings_changed(self) -> None:
        self._finder.forget()
        super().settings_changed()
        while self.close_idle():
            pass

    def abort(self) -> None:
        """Ends what is under way; its recipients are due again, for whoever owns the hop next."""
        for connection in list(self._open):
            connection.abort()

    # --- what connections call ---

    def session_ready(self, connection: Connection) -> None:
        job = self._open[connection]
        self._open[connection] = None
        reporting = self.service.tls_reporting
        if reporting is not None and self.transport == "smtp" and not (job and reporting.is_report(job.sender)):
            reporting.ready(connection)
        if connection.client.tls:
            tell_tls(self.service, self.hop_text, connection)
        if connection.client.login is not None:
            self._logins.succeeded(connection)
        if job is None:
            self._rest(connection)
        else:
            self._start(connection, job)

    def transaction_done(self, connection: Connection) -> None:
        self.service.pace.later(partial(self._transaction_done, connection))

    def _transaction_done(self, connection: Connection) -> None:
        job = connection.transaction
        if not isinstance(job, Job):
            return  # the connection ended before its turn came, and `session_over` saw to the job
        service = self.service
        self.window.succeeded(self.busy)
        self._ended()
        job.relay = "" if job.kept_back else connection.client.peer
        job.tls = connection.tls_shown
        elsewhere = self._for_fallback(job) if service.fallback and not job.kept else None
        if self._pace.per_second and any(reply is not None and reply.code < 300 for reply in job.results):
            self._taken()
        service.recorder.finish(job)
        ready = self.ready
        if job.again:
            ready.appendleft(job.rest())
        reusable = connection.is_reusable
        if (
            reusable
            and not self._closing
            and self._dead_reason is None
            and connection.login is None
            and elsewhere is None
            and not job.kept
            and not service.is_stalled(self)
            and (ready or self.refill())
            and not (self._next_at and self._holds_back())
            and (self._shaper is None or self._shaper.may_begin(connection.grant))
        ):
            self._begun()
            self._start(connection, ready.popleft())
            if ready and self.busy < self.window.size:
                self.pump()
            return
        self.busy -= 1
        connection.transaction = None
        others_wait = self._shaper is not None and self._shaper.others_wait
        if reusable and not self._closing and not job.kept and not others_wait:
            self._rest(connection)
        else:
            connection.close()
        if elsewhere is not None:
            self._connect_for(elsewhere)
        self.pump()

    def _for_fallback(self, job: Job) -> Job | None:
        """A job for whom the destination has put off and the fallback relay may take, as Postfix has it: recipients
        with a 4yz, to whichever command. They have no result yet then; `kept` is what they get if nobody takes them.
        """
        numbers = [n for n, reply in enumerate(job.results) if reply is not None and 400 <= reply.code < 500]
        if self.transport != "smtp" or self._closing or not numbers or not self.service.may_connect(self):
            return None
        made = job.part(numbers)
        for n in numbers:
            reply = job.results[n]
            assert reply is not None
            tell_failure(self.service, self.hop_text, job, job.relay, reply)
            made.kept.append(reply)
            job.results[n] = None
        made.relay = job.relay
        made.began = job.began
        return made

    def session_over(self, connection: Connection) -> None:
        waiting = self._open.pop(connection, None)
        reporting = self.service.tls_reporting
        if reporting is not None and waiting is not None and connection.resumes is None and self.transport == "smtp":
            reporting.failed(connection)
        if connection.grant is not None:
            connection.grant.release()
        self.service.connection_over(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        job = waiting if waiting is not None else connection.transaction
        connection.transaction = None
        if not isinstance(job, Job):
            self.pump()
        elif not job.in_making:
            self.service.pace.later(partial(self._session_failed, connection, job))

    def read_body(self, transaction: Transaction, offset: int, length: int) -> bytes | None:
        return read_body(self.service, transaction, offset, length)

    def need_body(self, transaction: Transaction, offset: int, length: int) -> Awaitable[None] | None:
        assert isinstance(transaction, Job)
        service = self.service
        transaction.fresh = service.latest_s * 1000 - transaction.envelope.received_at_ms < _FRESH_MS
        if transaction.fresh:
            return None
        return bodies.need_body(service, transaction, offset, length)

    def folded(self, connection: Connection, lines: int) -> None:
        tell_folded(self.service, connection, lines)

    def tls_context(self, connection: Connection) -> ssl.SSLContext | None:
        policy = connection.policy
        contexts = self.service.services.contexts
        return contexts.client_context(policy.trust, policy.protocols, policy.grade)

    def tls_session(self, connection: Connection, context: ssl.SSLContext) -> Kept | None:
        return self.service.tls_sessions.find(session_key(connection), context)

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self.service.services.tasks.spawn(name, work)

    # --- transactions ---

    def _start(self, connection: Connection, job: Job) -> None:
        address = connection.address
        if job.began < 0:
            job.began = self.service.clock.monotonic()
        if job.envelope.terms is not None and not self._keeps_terms(connection, job, job.envelope.terms):
            return
        if address.private and not job.envelope.reverse_path:  # a connection that other mail has opened
            self.busy -= 1
            self._rest(connection)
            self._unreachable(job, unusable(address.domain, address.ip))
            return
        checks = self.service.outgoing_checks.get(self.transport)
        if checks is not None and not job.checked:
            self._prepare(connection, job, look_through(self.service, connection, job, checks), self._start)
            return
        if job.wants_front:
            self._prepare(connection, job, seal(self.service, connection, job), self._start)
            return
        client = connection.client
        if client.lacks_smtputf8(job):
            job.utf8_header = not header_of(self.service, job).isascii()
        if client.needs_conversion(job) and job.conversion is None:
            if not self.service.config.delivery.disable_mime_output_conversion:
                self._prepare(connection, job, convert(self.service, connection, job), Connection.start)
                return
            job.unconverted = True
        connection.start(job)

    def _keeps_terms(self, connection: Connection, job: Job, terms: Terms) -> bool:
        """Whether the job goes on over this connection; else it gets one of its own."""
        count_down(job, terms, self.service.clock.now())
        if fits(connection, job):
            return True
        self.busy -= 1
        self._rest(connection)
        self._connect_for(job)
        return False

    def _prepare(self, connection: Connection, job: Job, work: Coroutine[Any, Any, bool], then: Then) -> None:
        """Has the job made ready for a connection that is kept for it."""
        connection.reserve(job)
        job.in_making = True
        self.spawn("delivery prepares a message", self._prepared(connection, job, work, then))

    async def _prepared(self, connection: Connection, job: Job, work: Coroutine[Any, Any, bool], then: Then) -> None:
        """Where the connection has ended meanwhile, the job goes its way only now: one at a time makes it ready."""
        is_ready = False
        try:
            is_ready = await work
        finally:
            job.in_making = False
            if connection.transaction is not job:
                self.service.pace.later(partial(self._session_failed, connection, job))
        if is_ready and connection.transaction is job:
            then(connection, job)

    def _at_rest(self, job: Job) -> Connection | None:
        """Takes a connection that fits the job from those at rest."""
        idle = self._idle
        if fits(idle[-1], job):
            return idle.pop()
        for connection in reversed(idle):
            if fits(connection, job):
                idle.remove(connection)
                return connection
        return None

    def _put_off(self, job: Job) -> None:
        """The job's login was refused a moment ago, or cannot be looked up: `failure` says it."""
        assert job.failure is not None
        job.decide(job.failure)
        until = self._logins.paused_until(job)
        self.service.recorder.finish(job, counts=not until, not_before_s=until)

    def _rest(self, connection: Connection) -> None:
        connection.rest()
        if not self._idle:
            self.service.resting.pop(self, None)
            self.service.resting[self] = None
        self._idle.append(connection)

    def _session_failed(self, connection: Connection, job: Job) -> None:
        """A connection ended with a job on it."""
        self._job_failed(connection, job)
        self.pump()

    def _job_failed(self, connection: Connection, job: Job) -> None:
        client = connection.client
        failure = client.failure or Reply(450, "4.4.2", f"lost connection with {client.peer}")
        self._ended()
        self.busy -= 1
        if self._closing:
            self._record_decided(job)
            return
        if job.unreadable:
            job.decide(UNREADABLE)
            self.service.recorder.finish(job)
        elif job.gone:
            self._record_decided(job)
        elif not job.undecided():  # the server said all that matters, and then went
            job.relay = client.peer
            job.tls = connection.tls_shown
            self.service.recorder.finish(job)
            self.take_again(job)
        elif client.unanswered and client.was_used:
            # The server had closed a connection that was kept, and has not begun with this message.
            job.addresses = None
            self.ready.appendleft(job)
            if client.messages and not connection.was_at_rest:
                self._hang_ups.saw(client.messages)
        elif connection.tls_failed and (
            connection.resumes is not None or (connection.policy.level == "may" and not job.plain_text)
        ):
            if connection.resumes is not None:  # a whole handshake may do
                self.service.tls_sessions.forget(session_key(connection))
            else:
                job.plain_text = True
            job.sessions -= 1
            assert job.addresses is not None
            job.addresses.insert(0, connection.address)
            self._connect_for(job)
        elif job.addresses is not None and (
            (connection.tls_failed or failure.enhanced == "4.7.4")
            and (self._was_trial(connection) or self._relaxes(job))
        ):
            job.sessions -= 1
            job.addresses.insert(0, connection.address)
            self._connect_for(job)
        elif client.login_refused:
            job.relay = ""
            self._login_refused(connection, job, failure)
        else:
            self.service.recorder.partly_answered(job)
            failure = refused(connection, job, failure)
            job.failure = failure
            job.tls = connection.tls_shown
            job.relay = client.peer if failure.code == 421 or failure.is_permanent else ""
            if job.addresses is None:
                job.spent = connection.address
                self._connect_for(job)
            elif self._another_address(job):
                tell_failure(self.service, self.hop_text, job, client.peer, failure)
                self._connect_for(job)
            else:
                self._unreachable(job, failure)

    def _relaxes(self, job: Job) -> bool:
        """Whether the job goes on without the TLS policy of its domain, which failed: by the field TLS-Required: No."""
        if job.relaxed or job.requires_tls or not asks_no_tls(header_of(self.service, job)):
            return False
        job.relaxed = True
        return True

    def _was_trial(self, connection: Connection) -> bool:
        """Whether a policy in mode testing alone was not kept."""
        assert isinstance(connection.policy, TlsPolicy)
        if not connection.policy.is_trial:
            return False
        self.service.tls.trial_failed(connection.address, connection.tls_problem or "starttls-not-supported")
        return True

    def _another_address(self, job: Job) -> bool:
        """Whether another address is to be tried. Each place of the route has its own smtp_mx_session_limit."""
        assert job.addresses is not None
        if job.sessions >= self.service.config.delivery.smtp_mx_session_limit:
            job.addresses = [address for address in job.addresses if address.next_hop != job.site]
        return bool(job.addresses)

    def _record_decided(self, job: Job) -> None:
        """We are leaving, or the message has gone: what the server decided is recorded, the rest left as it is."""
        if any(result is not None for result in job.results):
            self.service.recorder.finish(job)
        undecided = [row.n for row, result in zip(job.rows, job.results, strict=True) if result is None]
        self.book.forget(job.message.queue_id, undecided)

    def _unreachable(self, job: Job, reply: Reply) -> None:
        """Every address was tried, or there is none: the job's recipients get `reply`, or what is `kept` for them."""
        if job.kept:
            job.results = [kept if known is None else known for known, kept in zip(job.results, job.kept, strict=True)]
            self.service.recorder.finish(job)
            return
        if reply.is_temporary and self._dead_reason is None and self.window.failed():
            self._die(reply)
        job.decide(reply)
        self.service.recorder.finish(job)
        self.take_again(job)

    def _login_refused(self, connection: Connection, job: Job, reply: Reply) -> None:
        """Another address of the same host would refuse the login too: all mail that needs it waits."""
        self._logins.refused(connection, job, reply)
        if not job.login and self._dead_reason is None:
            self._die(reply)
        job.decide(reply)
        self.service.recorder.finish(job)

    # --- connections ---

    def _connect_for(self, job: Job) -> bool:
        """Has a job connect; where traffic rules have no place for it, it waits, and nobody of the hop goes on."""
        if self._shaper is not None and job.grant is None:
            job.grant = self._shaper.may_connect()
            if job.grant is None:
                self.ready.appendleft(job)
                return False
        self.busy += 1
        if job.began < 0:
            job.began = self.service.clock.monotonic()
        self.service.connections += 1
        self.service.pace.spawned()
        self.spawn("delivery connects", self._connect(job))
        return True

    async def _connect(self, job: Job) -> None:
        """Finds an address that answers; from then on the connection's callbacks go on."""
        try:
            connected = await self._try_addresses(job)
            failure = job.failure or Reply(450, "4.4.1", "no address answered")
        except Postponed:
            self.service.pace.later(partial(self._postponed, job))
            return
        except (PermanentFailure, TemporaryFailure) as error:
            connected, failure = False, error.reply
        except Exception as error:
            self.service.log.exception("delivery.failed", error, queue_id=queue_id_text(job.message.queue_id))
            self.service.cells[METRICS.internal_errors_total["delivery"]] += 1
            connected, failure = False, Reply(451, "4.3.0", "internal error")
        if not connected:
            self.service.pace.later(partial(self._not_connected, job, failure))

    def _postponed(self, job: Job) -> None:
        """No connection for now, by traffic rules that name its exchanger: the job waits for its turn."""
        self._let_grant_go(job)
        self.busy -= 1
        self.service.connection_over(None)
        if self._closing:
            self._record_decided(job)
        else:
            self.ready.appendleft(job)

    def _let_grant_go(self, job: Job) -> None:
        grant, job.grant = job.grant, None
        if grant is not None:
            grant.release()

    def _not_connected(self, job: Job, failure: Reply) -> None:
        self._let_grant_go(job)
        self._ended()
        self.busy -= 1
        self.service.connection_over(None)
        if self._closing:
            self._record_decided(job)
        else:
            self._unreachable(job, failure)
        self.pump()

    def _leave_out_spent(self, job: Job) -> None:
        """Counts the kept connection that failed as the first of the job's sessions, as Postfix does."""
        spent, job.spent = job.spent, None
        if spent is None or job.addresses is None or job.failure is None:
            return
        job.site, job.sessions = spent.next_hop, 1
        place = spent.ip, spent.port
        job.addresses = [address for address in job.addresses if (address.ip, address.port) != place]
        if self._another_address(job):
            tell_failure(self.service, self.hop_text, job, f"{spent.host}[{spent.ip}]:{spent.port}", job.failure)

    async def _try_addresses(self, job: Job) -> bool:
        if job.addresses is None:
            find = self._finder.fallback if job.kept else self._finder.addresses
            job.addresses = await find(job.recipients[0].forward_path, null_sender=not job.envelope.reverse_path)
            self._leave_out_spent(job)
        while job.addresses and not self._closing:
            address = job.addresses.pop(0)
            if address.next_hop != job.site:
                job.site = address.next_hop
                job.sessions = 0
            try:
                policy = await self.service.tls.of(
                    address,
                    lmtp=self.transport == "lmtp",
                    plain_text=job.plain_text,
                    relaxed=job.relaxed,
                    required=job.requires_tls,
                )
            except TemporaryFailure as error:  # of this host; another one may do
                if isinstance(error, Refused):
                    if self.service.tls_reporting is not None:
                        self.service.tls_reporting.refused(address, error.reported, error.result, error.reply.text)
                    if self._relaxes(job):
                        job.addresses.insert(0, address)
                        continue
                job.relay = ""
                job.failure = error.reply
                continue
            grant = job.grant
            if self._shaper is not None and grant is not None and not self._shaper.may_dial(grant, address):
                job.addresses.insert(0, address)
                raise Postponed
            source = grant.source if grant is not None else None
            credentials = None
            if self.service.logins.is_enabled and self.transport == "smtp":
                credentials = await self._logins.credentials(job.login, address)
            connection = connection_to(
                self.service,
                self,
                address,
                policy,
                credentials,
                is_lmtp=self.transport == "lmtp",
                is_ours=self._finder.is_ours(job.recipients[0].forward_path),
                helo_name=source.helo if source is not None else "",
            )
            connection.login = job.login
            self._open[connection] = job
            try:
                await dial(self.service, connection, address, source.ip if source is not None else "")
            except OSError as error:  # TimeoutError is one
                del self._open[connection]
                job.relay = ""
                job.failure = Reply(450, "4.4.1", f"connect to {connection.client.peer}: {reason(error)}")
                tell_failure(self.service, self.hop_text, job, connection.client.peer, job.failure)
                continue
            except BaseException:
                self._open.pop(connection, None)
                raise
            job.sessions += 1
            connection.grant, job.grant = grant, None
            if self._shaper is not None:
                connection.most_messages = self._shaper.messages_per_connection or connection.most_messages
            connection.most_messages = self._hang_ups.limit(connection.most_messages)
            if connection not in self._open and grant is not None:  # it ended at once
                grant.release()
            if connection in self._open:
                self.service.services.sweep.add(connection)
            return True
        return False
