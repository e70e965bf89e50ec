"""The SMTP, submission and LMTP servers of one worker: `_session.Connection`s, and the effects that they need.

Connections are made by `SmtpServer.factory(service)`; the loop feeds them. What a session may not do itself is done
here: admission by address, tasks for password checks and TLS handshakes, counting, and the log. Rules are
smtp/session.py's, the hot path is `_session`'s, and sockets with implicit TLS are wrapped by whoever accepts.
"""

import asyncio
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

from fastmta._session import Connection, Service
from fastmta.auth.sasl import Credentials, Sasl
from fastmta.model.envelope import Resolution, Terms, told_terms
from fastmta.model.errors import TemporaryFailure
from fastmta.model.ids import queue_id_text
from fastmta.model.limited import What
from fastmta.model.limits import CLIENT_NAMES
from fastmta.model.open_session import OpenSession
from fastmta.model.reply import Reply
from fastmta.model.services import BY_NAME, Login
from fastmta.model.stages import COUNTED, RELAYS_AS_KNOWN, Stage, bit
from fastmta.model.verdict import Outcome
from fastmta.policy.client_names import UNKNOWN_NAME, ClientNames
from fastmta.policy.limits import Guests
from fastmta.policy.networks import Networks, is_loopback
from fastmta.policy.plan import Plan, plan_for
from fastmta.policy.uploads import Upload
from fastmta.runtime import crash
from fastmta.runtime.events import teller
from fastmta.runtime.log import Log
from fastmta.runtime.metrics import METRICS, Cells
from fastmta.runtime.turns import Share
from fastmta.smtp import burl, handshake
from fastmta.smtp.counters import COUNTERS, REASONS, SERVICES
from fastmta.smtp.greeting import PROTOCOL_ERROR, Greeting
from fastmta.smtp.paths import named_path, paths_of, safe_name
from fastmta.smtp.quarantine import make_quarantines, missing_quarantines, suspects_mailbox
from fastmta.smtp.screening import Screening
from fastmta.smtp.seams import Account, Services
from fastmta.smtp.session import AUTH_TEMPORARY, Rules
from fastmta.smtp.settings import settings_of
from fastmta.smtp.transitions import State, Verb, table_bytes
from fastmta.smtp.xclient import Attributes, shown
from fastmta.tls.upgrade import start_tls

_Admission = tuple[str, bool, bool, str | None, bool]  # IP, in mynetworks, loopback, name, may send bare newlines


_XFORWARD: Final = Verb.XFORWARD
_TRANSACTION: Final = frozenset({Verb.MAIL, Verb.RCPT, Verb.DATA, Verb.BDAT})


class ServiceHost:
    """The effects of one service: what its connections and its rules ask of the world."""

    def __init__(self, name: str, server: "SmtpServer") -> None:
        self.name = name
        self._server = server
        self.service = Service(name, server.services.store.engine, self)
        self.draining = False
        self._logs_in = BY_NAME[name].login is Login.REQUIRED
        self._clients: dict[str, _Admission] = {}
        self.plan = Plan()
        self.greeting = Greeting(name, server.services.config, server.services.limits)
        self.configure()

    def configure(self) -> None:
        services = self._server.services
        for session in self.service.sessions:
            if session.state >= State.MAIL and session.screening is None:
                session.screening = Screening(self, session)  # the open transaction goes on as it began
        self.plan = self._server.plan(self.name)
        early = self.greeting.early
        self.greeting = Greeting(self.name, services.config, services.limits)
        self.greeting.early |= early
        self._clients.clear()
        self._speakers, self._forwarders = bool(self._server.xclient_hosts), bool(self._server.xforward_hosts)
        for session in self.service.sessions:
            if session.state < State.MAIL:
                self.attend(session)
        settings = settings_of(services.config, self.name)
        self.service.configure(
            settings,
            Rules(settings, self),
            table_bytes(),
            directory=services.directory,
            clock=services.clock,
            teller=teller(services.log, services.clock, services.cells),
            cells=services.cells,
            counters=COUNTERS,
            storage_ok=services.storage_ok,
            crash=crash,
        )

    # --- what the rules ask (session.Effects) ---

    def now(self) -> float:
        return self._server.services.clock.now()

    def tls_offered(self) -> bool:
        return self._server.services.contexts.smtpd_context() is not None

    def mechanisms(self, tls: bool, loopback: bool, certified: str = "") -> tuple[str, ...]:
        return self._server.services.authenticator.mechanisms(tls, loopback, certified)

    def exchange(self, allowed: tuple[str, ...], certified: str = "") -> Sasl:
        return self._server.services.authenticator.exchange(allowed, certified)

    def sender_allowed(self, login: str, reverse_path: bytes) -> bool:
        return self._server.services.directory.sender_allowed(login, reverse_path)

    def resolve(self, forward_path: bytes, *, may_relay: bool) -> Resolution:
        return self._server.services.directory.resolve(forward_path, may_relay=may_relay)

    def authenticate(self, session: Connection, credentials: Credentials) -> str | None:
        services = self._server.services
        account = services.authenticator.try_now(credentials, self.name)
        if account is not None:
            self._logged_in(session, account, credentials)
            return account.address
        generation = session.wait()
        task = services.tasks.spawn(
            f"{self.name}.auth.{session.number}", self._authenticate(session, credentials, generation)
        )
        self._server.checks[session] = task
        return None

    async def _authenticate(self, session: Connection, credentials: Credentials, generation: int) -> None:
        try:
            account = await self._server.services.authenticator.authenticate(credentials, self.name, session.peer_ip)
        except TemporaryFailure:
            self._server.checks.pop(session, None)
            session.resume(generation, lambda: AUTH_TEMPORARY)
            return
        self._server.checks.pop(session, None)
        rules: Rules[Connection] = self.service.rules
        address = ""
        if account is not None:
            address = account.address
            self._logged_in(session, account, credentials)
        session.resume(generation, lambda: rules.authenticated(session, address))

    def _logged_in(self, session: Connection, account: Account, credentials: Credentials) -> None:
        session.account_id = account.id
        mark = self._server.services.authenticator.opened_by(credentials)
        if mark:
            self._server.opened_by[session] = mark
        self._server.guests.leave(session)
        self._server.services.store.last_logins.note(account.id, self.name, session.peer_ip)

    # --- what checks say (smtp/screening.py) ---

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._server.services.loop

    @property
    def log(self) -> Log:
        return self._server.services.log

    @property
    def cells(self) -> Cells:
        return self._server.services.cells

    @property
    def authserv_id(self) -> str:
        return self._server.services.config.authserv_id

    def attend(self, session: Connection) -> None:
        """Sets where somebody is asked about the session."""
        counted = COUNTED if self._server.services.limits.counts_events else 0
        session.stages = self.plan.stages(trusted=session.trusted) | counted
        if self.greeting.early and session in self.greeting.early:
            session.stages |= bit(Stage.RCPT)
        session.relays = RELAYS_AS_KNOWN

    def sender_known(self, session: Connection) -> None:
        """A transaction has begun, for those who look ahead. What goes wrong there does not concern the client."""
        if session.login:
            return
        helo, sender = session.helo.decode("utf-8", "replace"), session.reverse_path or b""
        for check in self.plan.ahead:
            try:
                check.ahead(session.number, session.peer_ip, helo, sender)
            except Exception as error:
                self.failed(session, error)

    def examine(self, session: Connection, stage: Stage, subject: bytes, go_on: Callable[[], Reply]) -> Reply | None:
        if stage is Stage.RCPT and session in self.greeting.early:
            return PROTOCOL_ERROR
        return self._screening(session).examine(stage, subject, go_on)

    def fetch(self, session: Connection, url: bytes, *, last: bool) -> Reply | None:
        services = self._server.services
        limit = self.service.settings.message_size_limit
        begun = burl.begin(services.store, session, url, services.clock.now(), limit, last=last)
        if isinstance(begun, Reply):
            return begun
        self._server.checks[session] = services.tasks.spawn(f"{self.name}.burl.{session.number}", begun)
        return None

    def message_came(self, session: Connection) -> Outcome | None:
        return self._screening(session).message_came()

    def connected(self, session: Connection) -> Reply | None:
        rules: Rules[Connection] = self.service.rules
        return rules.greet(session)

    def junk_mailbox(self, account_id: int) -> int:
        """The mailbox that suspected mail of an account goes to; 0: it has none."""
        services = self._server.services
        return suspects_mailbox(services.store.mailboxes, account_id, services.config.quarantine_mailbox)

    def quarantine_lacks(self, session: Connection) -> list[int]:
        """The accounts of the present recipients that have no quarantine yet, though there shall be one."""
        name = self._server.services.config.quarantine_mailbox
        return missing_quarantines(session, self._server.services.store.mailboxes, name) if name else []

    def make_quarantines(self, session: Connection, accounts: list[int], then: Callable[[], None]) -> None:
        services = self._server.services
        work = make_quarantines(services.store.mailboxes, accounts, services.config.quarantine_mailbox, then)
        self._server.checks[session] = services.tasks.spawn(f"{self.name}.quarantine.{session.number}", work)

    def _screening(self, session: Connection) -> Screening:
        screening: Screening | None = session.screening
        if screening is None:
            screening = session.screening = Screening(self, session)
        return screening

    # --- what connections ask ---

    def share(self) -> Share:
        return self._server.services.turns.share()

    def admit(self, session: Connection, peer: Any) -> _Admission:
        """What a new connection's client is; no name: `find_name`."""
        if not isinstance(peer, tuple):  # a unix socket: whoever may open it is of this machine
            return "127.0.0.1", True, True, "localhost", False
        known = self._clients.get(peer[0])
        if known is None:
            if len(self._clients) >= CLIENT_NAMES:
                self._clients.clear()
            known = self._clients[peer[0]] = self._admission(peer[0])
        ip, trusted, loopback, name, keeps_bare = known
        if self.greeting.is_tested and self.greeting.is_owed(ip, trusted=trusted):
            return ip, trusted, loopback, None, keeps_bare
        if name is not None:
            return known
        found = self._server.names.known(ip)
        return ip, trusted, loopback, found.name if found is not None else None, keeps_bare

    def _admission(self, ip: str) -> _Admission:
        # All that the configuration says of an address, so that it is asked once; a name from the DNS ages.
        if ip.startswith("::ffff:") and "." in ip:
            ip = ip[7:]
        services = self._server.services
        loopback = is_loopback(ip)
        name: str | None = UNKNOWN_NAME
        if services.config.smtpd_peername_lookup and self.name != "lmtp":
            found = self._server.names.known(ip) if loopback else None
            name = found.name if found is not None else None
        return ip, ip in services.networks, loopback, name, ip in self._server.bare_exclusions

    def find_name(self, session: Connection) -> None:
        """Looks up the client's name; the session, which has not been greeted, goes on when that has ended."""
        generation = session.wait()
        services = self._server.services
        if self.greeting.teaser and self.greeting.is_owed(session.peer_ip, trusted=session.trusted):
            session.transport.write(self.greeting.teaser)
        task = services.tasks.spawn(f"{self.name}.name.{session.number}", self._find_name(session, generation))
        self._server.checks[session] = task

    async def _find_name(self, session: Connection, generation: int) -> None:
        find = self._server.names.find(session.peer_ip)
        if self.greeting.is_owed(session.peer_ip, trusted=session.trusted):
            found, _ = await asyncio.gather(find, self.greeting.wait(session, session.peer_ip))
        else:
            found = await find
        self._server.checks.pop(session, None)

        def greet() -> Reply | None:
            session.call_client(found.name if self._server.services.config.smtpd_peername_lookup else UNKNOWN_NAME)
            return self.connected(session)

        session.resume(generation, greet)

    def spoke_early(self, session: Connection) -> Reply | None:
        """The client has spoken before its greeting: the reply that ends the session, or None."""
        self.log.info("smtp.pregreet", session=session.number, client=session.client, action=self.greeting.action)
        self._server.services.limits.offended(session.peer_ip, "spoke before the greeting")
        reply = self.greeting.spoke_early(session)
        if reply is None:
            self.attend(session)
        return reply

    def gave_up(self, session: Connection) -> None:
        """The session ends for too many errors."""
        self._server.services.limits.offended(session.peer_ip, "too many errors")

    def may_speak_for(self, session: Connection, verb: int) -> bool:
        if verb == _XFORWARD:
            return self._forwarders and session.peer_ip in self._server.xforward_hosts
        return session.speaks_for or (self._speakers and session.peer_ip in self._server.xclient_hosts)

    def speak_for(self, session: Connection, attributes: Attributes) -> Reply | None:
        services = self._server.services
        services.log.info("smtp.xclient", session=session.number, client=session.client, **shown(attributes))
        session.speaks_for = True
        if session.screening is not None:
            session.screening.cancel()
            session.screening = None
            session.denied = None
        services.limits.release(session.place)
        self._server.guests.leave(session)
        session.account_id = 0
        name = session.become(attributes.addr or session.peer_ip, attributes.port)
        if attributes.name is not None:
            name = attributes.name or UNKNOWN_NAME
            session.call_client(name)
        session.helo = safe_name((attributes.helo or "").encode())
        session.login = attributes.login or ""
        self.attend(session)
        refusal = self.refuse(session)
        if refusal is not None:
            session.close_after_reply()
            return refusal
        if name is None:
            self.find_name(session)
            return None
        return self.connected(session)

    def forwarded(self, session: Connection, attributes: Attributes) -> None:
        self._server.services.log.info(
            "smtp.xforward", session=session.number, client=session.client, **shown(attributes)
        )

    def reverse_name(self, ip: str) -> str:
        """What the client's address points to, whether it points back or not."""
        found = self._server.names.known(ip)
        return found.reverse if found is not None else UNKNOWN_NAME

    def refuse(self, session: Connection) -> Reply | None:
        """The reply to a connection that is one too many, or None."""
        services = self._server.services
        if self.draining:
            return self._goodbye("4.3.2", "Service is shutting down")
        if services.limits.is_banned(session.peer_ip):
            return Reply(554, "5.7.1", f"Client host [{session.peer_ip}] is banned")
        if not BY_NAME[self.name].is_screened and not session.trusted:
            return Reply(554, "5.7.1", f"Client host [{session.peer_ip}] rejected: Access denied")
        lacks = self.lacks_certificate(session)
        if lacks is not None:
            return lacks
        session.place = services.limits.connect(self.name, session.peer_ip)
        if not session.place:
            return self._goodbye("4.7.0", f"Error: too many connections from {session.peer_ip}")
        if self._logs_in and not session.login:
            crowd = self._goodbye("4.7.0", "Error: too many connections that have not logged in")
            seat = services.limits.seat(self.name, session.peer_ip)
            if not self._server.guests.take(session, seat, lambda: session.shut_down(crowd)):
                return crowd
        if session.tls and not self.may(session, What.TLS_RATE):
            return self._goodbye("4.7.0", f"Error: too many new TLS sessions from {session.peer_ip}")
        return None

    def _goodbye(self, enhanced: str, text: str) -> Reply:
        return Reply(421, enhanced, f"{self._server.services.config.myhostname} {text}")

    def may(self, session: Connection, what: What, n: int = 1) -> bool:
        """Whether the client may do this once more in Postfix's anvil_rate_time_unit."""
        return self._server.services.limits.take(what, self.name, session.peer_ip, n)

    def upload(self, session: Connection) -> Upload:
        """What the message that comes holds of the bounds of unfinished ones."""
        return self._server.services.limits.upload(session.peer_ip, session.account_id if session.login else 0)

    def gone(self, session: Connection) -> None:
        self.greeting.early.discard(session)
        check = self._server.checks.pop(session, None)
        if check is not None:
            check.cancel()
        if session.screening is not None:
            session.screening.cancel()
            session.screening = None
        if self._logs_in:
            self._server.guests.leave(session)
            self._server.opened_by.pop(session, None)
        if session.place > 0:
            self._server.services.limits.release(session.place)
            session.place = 0

    def start_tls(self, session: Connection, transport: asyncio.Transport) -> None:
        self._server.services.tasks.spawn(f"{self.name}.tls.{session.number}", self._start_tls(session, transport))

    async def _start_tls(self, session: Connection, transport: asyncio.Transport) -> None:
        services = self._server.services
        context = services.contexts.smtpd_context(logs_in=self._logs_in)
        if context is None:
            transport.abort()
            return
        try:
            await start_tls(services.loop, transport, session, context, adopt=session.tls_started)
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError; the session has been told
            services.log.debug("smtp.tls_failed", session=session.number, client=session.client, error=error)

    def tls_begun(self, session: Connection, tls: Any) -> bytes:
        """Notes what the handshake has shown; gives what Received says of it."""
        services = self._server.services
        services.cells[METRICS.tls_connections_total[self.name, tls.version() or "TLS"]] += 1
        settings = services.config.tls
        asks = settings.asks_submitters if self._logs_in else settings.asks_clients
        login = services.contexts.login_name(tls) if asks and self._logs_in else ""
        return handshake.begun(session, tls, settings, services.log, asks=asks, login=login)

    def lacks_certificate(self, session: Connection) -> Reply | None:
        """The reply that ends a session without the certificate that it needs, or None."""
        if not (self._logs_in and session.tls and self._server.services.config.tls.smtpd_tls_req_ccert):
            return None
        problem = handshake.problem_of(session.certificate)
        return self._goodbye("4.7.1", f"Error: {problem}") if problem else None

    def message_id(self, queue_id: int, at: float) -> bytes:
        """The Message-ID field of a message that was submitted without one."""
        host = self._server.services.config.myhostname
        return f"Message-ID: <{queue_id_text(queue_id)}.{int(at)}@{host}>\r\n".encode()

    # --- the log and the counters off the path ---

    def refused(self, session: Connection, verb: int, reply: Reply, recipient: bytes = b"") -> None:
        """A 4yz or 5yz has been said; at the end of a message to LMTP of this one recipient."""
        log = self._server.services.log
        if verb in _TRANSACTION:
            reason = REASONS.get(reply.enhanced)
            if session.screening is not None and session.screening.refused is reply:
                reason = "policy"
            if reason is None and reply.enhanced == "5.7.1":
                reason = "relay_denied" if verb == Verb.RCPT else "sender"
            if reason is None:
                reason = "syntax" if reply.enhanced.startswith("5.5.") else "other"
            self._server.services.cells[METRICS.messages_rejected_total[reason]] += 1
            if reason != "syntax":
                if verb == Verb.RCPT:
                    recipient = named_path(session.argument)
                to = [recipient] if recipient else paths_of(session.recipients)
                log.info(
                    "smtp.rejected",
                    session=session.number,
                    client=session.client,
                    helo=session.helo,
                    sender=named_path(session.argument) if verb == Verb.MAIL else session.reverse_path,
                    to=to,
                    verb=Verb(verb).name,
                    reply=str(reply),
                )
                return
        # Limits, shutting down and other decisions of ours; a failed login has its own line, with the name.
        ours = reply.enhanced[1:] in (".7.0", ".7.1", ".3.2") and reply.code != 535
        event = log.info if ours else log.debug
        event("smtp.refused", session=session.number, client=session.client, reply=str(reply))

    def failed(self, session: Connection, error: BaseException) -> None:
        """Something unexpected; the peer is told nothing of it."""
        services = self._server.services
        services.cells[METRICS.internal_errors_total[self.name]] += 1
        services.log.exception("smtp.failed", error, session=session.number, client=session.client)

    def demanded(self, session: Connection, terms: Terms) -> None:
        """What the MAIL of a message that has been committed demanded."""
        self._server.services.log.info(
            "smtp.terms",
            session=session.number,
            queue_id=queue_id_text(session.queue_id),
            **told_terms(terms),
        )

    def crash_soon(self, name: str) -> None:
        """The crash point behind a reply: passed once the loop has written it."""
        self._server.services.loop.call_soon(crash.crash_point, name)


class _Second:
    """The one timer of all sessions: an item of the worker's Sweep that is due each second."""

    def __init__(self, server: "SmtpServer") -> None:
        self._server = server
        self.deadline = 0.0

    def deadline_passed(self, now: float) -> None:
        self.deadline = now + 0.5
        self._server.sweep(int(now))


class SmtpServer:
    """All SMTP services of one worker."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.checks: dict[Connection, asyncio.Task[Any]] = {}
        self.guests = Guests()
        self.opened_by: dict[Connection, bytes] = {}  # the marks of app passwords
        self.bare_exclusions = Networks(services.config.smtpd_forbid_bare_newline_exclusions)
        self.xclient_hosts = Networks(services.config.smtpd_authorized_xclient_hosts)
        self.xforward_hosts = Networks(services.config.smtpd_authorized_xforward_hosts)
        self.names = ClientNames(services.resolver, services.clock.monotonic)
        self._hosts: dict[str, ServiceHost] = {}
        self._tick = 0
        self._directory_version = services.store.directory_version
        self._signs = services.store.dkim_keys.exist()
        self._second = _Second(self)
        services.sweep.add(self._second)

    def factory(self, service: str) -> Callable[[], Any]:
        """Makes a session for each connection of `service`; implicit TLS is the caller's to put around it."""
        if service not in SERVICES:
            raise ValueError(f"no SMTP service {service!r}")
        host = self._hosts.get(service)
        if host is None:
            host = self._hosts[service] = ServiceHost(service, self)
            host.service.sweep(self._tick)
        shared = host.service
        return lambda: Connection(shared)

    def plan(self, service: str) -> Plan:
        """What a service asks, by the present configuration."""
        return plan_for(service, self.services.config, self.services)

    @property
    def sessions(self) -> int:
        """Connections that are open."""
        return sum(len(host.service.sessions) for host in self._hosts.values())

    def sweep(self, tick: int) -> None:
        """Once a second: deadlines of all sessions. `tick` counts seconds and never goes back."""
        self._tick = tick
        for host in self._hosts.values():
            host.service.sweep(tick)
        store = self.services.store
        if store.directory_version != self._directory_version:  # the first signing key makes a check, the last ends it
            self._directory_version = store.directory_version
            signs = store.dkim_keys.exist()
            if signs != self._signs:
                self._signs = signs
                for host in self._hosts.values():
                    host.configure()

    def reload(self, services: Services) -> None:
        """New settings for every session, from its next command on; no connection is touched."""
        self.services = services
        self.bare_exclusions = Networks(services.config.smtpd_forbid_bare_newline_exclusions)
        self.xclient_hosts = Networks(services.config.smtpd_authorized_xclient_hosts)
        self.xforward_hosts = Networks(services.config.smtpd_authorized_xforward_hosts)
        for host in self._hosts.values():
            host.configure()

    def drain(self) -> None:
        """Sessions end at their next quiet moment: now, or when their transaction is over."""
        reply = Reply(421, "4.3.2", f"{self.services.config.myhostname} Service is shutting down")
        for host in self._hosts.values():
            host.draining = True
            host.service.drain(reply)

    def logged_in(self) -> list[tuple[int, bytes, Callable[[], object]]]:
        """(account, mark of the app password, what ends it with a word) of every session that such a one has opened."""
        reply = Reply(421, "4.7.0", f"{self.services.config.myhostname} The password was revoked")
        return [
            (session.account_id, mark, partial(session.shut_down, reply)) for session, mark in self.opened_by.items()
        ]

    def open_sessions(self) -> Iterator[OpenSession]:
        """Every session, for who asks about them."""
        reply = Reply(421, "4.3.2", f"{self.services.config.myhostname} Session ended by the administrator")
        for name, host in self._hosts.items():
            for session in host.service.sessions:
                yield OpenSession(
                    name,
                    session.number,
                    session.peer_ip,
                    session.login,
                    session.account_id,
                    0,
                    session.tls,
                    session.age_s,
                    session.transport,
                    partial(_end, session, reply),
                )

    def close_all(self, reason: str = "shutting down") -> None:
        """Ends every session with 421 now; one that waits for its commit is answered first."""
        self.drain()
        reply = Reply(421, "4.3.2", f"{self.services.config.myhostname} Service is {reason}")
        for host in self._hosts.values():
            for session in list(host.service.sessions):
                session.shut_down(reply)


def _end(session: Connection, reply: Reply, text: str) -> None:
    session.shut_down(reply)
