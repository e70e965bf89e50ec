"""POP3 connections: bytes to command lines, the session's actions done with the store, replies in one write a read.

A login that is not remembered, STLS and the update at QUIT run as one named task each; everything else happens in the
callback that brought the bytes, or in this session's turns of the loop (runtime/turns.py). A response longer than a
block is a generator, drawn from while the peer reads; commands behind it wait, and reading pauses when much of them
waits.

Invariants: the maildrop's lock is held from login to the end of the connection, or of the update if that is later;
nothing is deleted but by QUIT; input that came in plain text behind STLS is never looked at.

Left to others: which commands and replies (session.py), how a message is read (maildrop.py), the delay of a failed
login (auth), TLS on pop3s (the acceptor wraps the session).
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from typing import Any, Final, Protocol

from fastmta.auth.sasl import Credentials
from fastmta.model.actor import Actor
from fastmta.model.errors import Cold, StorageFailure, StoreDamaged, TemporaryFailure
from fastmta.model.limits import (
    LINE_SKIP_BYTES,
    POP3_BLOCK_BYTES,
    POP3_COMMAND_BYTES,
    POP3_IDLE_TIMEOUT_S,
    POP3_LOGIN_TIMEOUT_S,
    POP3_SASL_LINE_BYTES,
    POP3_TRANSFER_TIMEOUT_S,
    POP3_WAITING_BYTES,
)
from fastmta.model.open_session import OpenSession
from fastmta.policy.networks import is_loopback
from fastmta.pop3.admission import refused
from fastmta.pop3.keeping import deleted_keyword, promises
from fastmta.pop3.lock import MaildropLocks
from fastmta.pop3.maildrop import MaildropReader, MessageGone, Opening
from fastmta.pop3.seams import Account, Seat, Services
from fastmta.pop3.session import (
    AUTHENTICATION_FAILED,
    SASL,
    TRANSACTION,
    Close,
    Listing,
    LogIn,
    Maildrop,
    Retrieve,
    Session,
    StartTls,
    State,
    Update,
)
from fastmta.pop3.updating import update
from fastmta.runtime.metrics import METRICS
from fastmta.tls.upgrade import start_tls

_NEVER: Final = float("inf")
SHUTTING_DOWN: Final = b"-ERR [SYS/TEMP] Server shutting down\r\n"


class Server(Protocol):
    """The Pop3Server, as far as a connection uses it."""

    services: Services
    connections: "dict[Pop3Connection, tuple[int, float]]"
    draining: bool
    reader: MaildropReader

    @property
    def locks(self) -> MaildropLocks: ...
    def next_id(self) -> str: ...
    def opened(self, connection: "Pop3Connection", /) -> None: ...


class Pop3Connection(asyncio.Protocol):
    """One connection. `deadline` is the Sweep's."""

    __slots__ = (
        "_account_id",
        "_begins",
        "_blocks",
        "_client",
        "_closing",
        "_eof",
        "_id",
        "_input",
        "_login",
        "_loopback",
        "_out",
        "_out_bytes",
        "_paused",
        "_reading_paused",
        "_seat",
        "_server",
        "_service",
        "_session",
        "_share",
        "_skipped",
        "_task",
        "_tls",
        "_transport",
        "deadline",
        "opened_by",
        "told_peer",
    )

    def __init__(self, server: Server, service: str) -> None:
        self._server = server
        self._service = service
        self._id = ""
        self._client = ""
        self._login = ""
        self._loopback = False
        self._tls = False
        self._transport: asyncio.Transport | None = None
        self._session = Session(stls=False, mechanisms=(), login_allowed=False)
        self.opened_by = b""  # the mark of an app password
        self._account_id = 0  # whose maildrop is locked, 0: none
        self._input = bytearray()
        self._skipped = 0  # octets of a line that is too long, until its end
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._blocks: Iterator[bytes | Awaitable[None]] | None = None
        self._begins: Callable[[], None] | None = None  # a response whose first block was not in memory
        self._task: asyncio.Task[Any] | None = None
        self._seat: Seat | None = None
        self._paused = False  # the peer does not read
        self._share = server.services.turns.share()
        self._reading_paused = False
        self._eof = False
        self._closing = False
        self.told_peer: tuple[str, int] | None = None  # the client that a proxy speaks for
        self.deadline = _NEVER

    # --- what the loop calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        services = self._server.services
        self._transport = transport  # type: ignore[assignment]
        peer = self.told_peer or transport.get_extra_info("peername")
        self._client = peer[0] if isinstance(peer, tuple) and peer else ""
        self._loopback = is_loopback(self._client)
        self._id = self._server.next_id()
        self._server.opened(self)
        services.cells[METRICS.connections_total[self._service]] += 1
        services.cells[METRICS.connections[self._service]] += 1
        services.log.debug("pop3.connected", session=self._id, service=self._service, client=self._client)
        self._adopt(transport)  # type: ignore[arg-type]
        self.deadline = services.loop.time() + POP3_LOGIN_TIMEOUT_S
        services.sweep.add(self)
        if self._server.draining:
            self.close(SHUTTING_DOWN)
            return
        if services.limits.is_banned(self._client):
            self.close(b"-ERR [SYS/PERM] This address is banned\r\n")
            services.log.info("pop3.refused", client=self._client, reply="banned")
            return
        self._seat = services.limits.seat(self._service, self._client)
        if not self._seat.enter(self._make_way):
            self.close(b"-ERR [SYS/TEMP] Too many connections that have not logged in\r\n")
            services.log.info("pop3.refused", client=self._client, reply="too many connections that have not logged in")
        else:
            self._say(b"+OK FastMTA ready\r\n")
            self._flush()

    def _adopt(self, transport: asyncio.Transport) -> None:
        """Begins a new session on a transport, plain or encrypted."""
        services = self._server.services
        self._transport = transport
        self._reading_paused = False
        transport.set_write_buffer_limits(high=2 * POP3_BLOCK_BYTES)
        tls = transport.get_extra_info("ssl_object")
        self._tls = tls is not None
        certified = services.contexts.login_name(tls) if tls is not None else ""
        if tls is not None:
            services.cells[METRICS.tls_connections_total[self._service, tls.version() or "other"]] += 1
        self._session = Session(
            stls=not self._tls and services.contexts.server_context() is not None,
            mechanisms=services.authenticator.mechanisms(self._tls, self._loopback, certified),
            login_allowed=services.authenticator.login_allowed(self._tls, self._loopback),
            exchange=lambda allowed: services.authenticator.exchange(allowed, certified),
            promises=promises(services.config),
        )

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        self._input += data
        self._go_on(fresh=True)
        if len(self._input) > POP3_WAITING_BYTES and self._busy and not self._reading_paused and self._transport:
            self._transport.pause_reading()
            self._reading_paused = True

    def eof_received(self) -> bool | None:
        """A client may close its side behind its last command; the answer still goes out, unless TLS forbids it."""
        self._eof = True
        return self._busy and not self._tls

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._blocks is not None:
            self.deadline = self._server.services.loop.time() + POP3_TRANSFER_TIMEOUT_S
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        services = self._server.services
        if self not in self._server.connections:
            return
        self._server.connections.pop(self, None)
        services.sweep.discard(self)
        self._share.leave()
        services.cells[METRICS.connections[self._service]] -= 1
        if self._seat is not None:
            self._seat.leave()
        self._transport = None
        self._closing = True
        self._blocks = None
        self._input.clear()
        if self._task is not None and self._session.state is not State.UPDATE:
            self._task.cancel()
        if self._task is None:
            self._release()
        services.log.debug("pop3.disconnected", session=self._id, client=self._client)

    def deadline_passed(self, now: float) -> None:
        """Autologout (RFC 1939 §3): no update, the maildrop stays as it is."""
        if self._transport is not None and (self._closing or self._paused):
            self._transport.abort()
        elif self._task is not None:
            self.deadline = now + POP3_LOGIN_TIMEOUT_S
        elif self._blocks is not None:
            self.deadline = now + POP3_TRANSFER_TIMEOUT_S
        else:
            self.close(b"-ERR [SYS/TEMP] Idle for too long\r\n")

    # --- ending ---

    def drain(self) -> None:
        drop = self._session.maildrop
        if not self._busy and not (drop is not None and drop.has_deletions):
            self.close(SHUTTING_DOWN)

    def close(self, reply: bytes = b"") -> None:
        """Says `reply` and closes. A response that is under way ends cut; an update gives its answer itself."""
        transport = self._transport
        if transport is None or self._closing:
            return
        if self._blocks is not None:
            self._blocks = None
        elif reply and not (self._task is not None and self._session.state is State.UPDATE):
            self._say(reply)
        self._closing = True
        self._flush()
        self._input.clear()
        # A peer that does not read is not waited for longer than this: then deadline_passed aborts.
        self.deadline = self._server.services.loop.time() + POP3_LOGIN_TIMEOUT_S
        transport.close()

    def _make_way(self) -> None:
        """Ends a connection that has not logged in for a newcomer, where there are too many of them."""
        self._server.services.log.info("pop3.refused", client=self._client, reply="made way for a newcomer")
        self.close(b"-ERR [SYS/TEMP] No login yet, and too many connections that have not logged in\r\n")

    @property
    def account_id(self) -> int:
        """Whose maildrop is open, 0: nobody's."""
        return self._account_id

    def told(self, number: int, age_s: float) -> OpenSession:
        """The session, for who asks about the open ones."""
        return OpenSession(
            self._service,
            number,
            self._client,
            self._login if self._account_id else "",
            self._account_id,
            "INBOX" if self._account_id else "",
            self._tls,
            age_s,
            self._transport,
            lambda text: self.close(b"-ERR [SYS/PERM] Session " + text.encode("ascii", "replace") + b"\r\n"),
        )

    def _release(self) -> None:
        if self._account_id:
            self._server.locks.release(self._account_id)
            self._account_id = 0

    # --- output ---

    def _say(self, reply: bytes) -> None:
        self._out.append(reply)
        self._out_bytes += len(reply)

    def _flush(self) -> None:
        if self._out and self._transport is not None:
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            self._out.clear()
            self._out_bytes = 0
            self._transport.write(data)

    @property
    def _busy(self) -> bool:
        """Whether commands have to wait."""
        return self._blocks is not None or self._stopped

    @property
    def _stopped(self) -> bool:
        """Whether nothing at all is done now."""
        return self._task is not None or self._closing or self._paused or self._share.waiting

    # --- input ---

    def _go_on(self, *, fresh: bool = False) -> None:
        """Sends more of the response that is under way, then obeys the commands that have come; now or in its turn."""
        if not self._stopped and self._share.enter(self._turn_came, fresh=fresh):
            self._work()

    def _turn_came(self) -> None:
        if not self._stopped:
            self._work()

    def _work(self) -> None:
        try:
            if self._begins is not None:
                begins, self._begins = self._begins, None
                begins()
            if self._blocks is not None and self._task is None:
                self._draw()
            self._process()
        except Exception as error:  # the one place where a fault of ours ends one connection and no more
            self._server.services.cells[METRICS.internal_errors_total[self._service]] += 1
            self._server.services.log.exception("pop3.failed", error, session=self._id)
            self.close(b"-ERR [SYS/TEMP] Internal error\r\n")

    def _process(self) -> None:
        lines = 0
        while self._input and not self._busy:
            line = self._next_line()
            if line is None:
                break
            lines += 1
            self._act(self._session.command(line) if line is not _TOO_LONG else self._session.too_long())
            if self._out_bytes >= POP3_BLOCK_BYTES:
                self._flush()
            if self._share.over() and self._input and not self._busy:
                self._share.later(self._turn_came)
        if lines and self._session.state is TRANSACTION and not self._closing:
            timeout = POP3_IDLE_TIMEOUT_S if self._blocks is None else POP3_TRANSFER_TIMEOUT_S
            self.deadline = self._server.services.loop.time() + timeout
        self._flush()
        if self._busy:
            return
        if self._eof:
            self.close()
        elif self._server.draining:
            self.drain()
        elif self._reading_paused and self._transport is not None:
            self._reading_paused = False
            self._transport.resume_reading()

    def _next_line(self) -> bytes | None:
        """The next line without its end, `_TOO_LONG` for one that passed its bound, None where there is none yet."""
        limit = POP3_SASL_LINE_BYTES if self._session.state is SASL else POP3_COMMAND_BYTES
        end = self._input.find(b"\n")
        if end < 0:
            if self._skipped or len(self._input) > limit:
                self._skipped += len(self._input)
                self._input.clear()
                if self._skipped > LINE_SKIP_BYTES:
                    self.close(b"-ERR [SYS/PERM] The line does not end\r\n")
            return None
        if self._skipped or end >= limit:
            del self._input[: end + 1]
            self._skipped = 0
            return _TOO_LONG
        line = bytes(self._input[:end])
        del self._input[: end + 1]
        return line[:-1] if line.endswith(b"\r") else line

    def _act(self, action: object) -> None:
        if isinstance(action, bytes):
            if action.startswith(b"-"):
                self._server.services.log.debug(
                    "pop3.refused", session=self._id, client=self._client, reply=action.rstrip()
                )
            self._say(action)
        elif isinstance(action, Retrieve):
            self._retrieve(action)
        elif isinstance(action, Listing):
            self._send(action.blocks)
        elif isinstance(action, LogIn):
            self._log_in(action.credentials)
        elif isinstance(action, Update):
            self._spawn("update", self._update())
        elif isinstance(action, StartTls):
            self._start_tls(action.reply)
        elif isinstance(action, Close):
            self.close(action.reply)

    # --- responses of many blocks ---

    def _retrieve(self, action: Retrieve) -> None:
        drop = self._session.maildrop
        if drop is None:
            return
        self._draw_first(action, drop, None)

    def _draw_first(self, action: Retrieve, drop: Maildrop, blocks: "Iterator[bytes | Awaitable[None]] | None") -> None:
        """Until its first block is there, a response may be another one. `blocks`: the response, once it is begun."""
        try:
            if blocks is None:
                blocks = self._server.reader.blocks(drop, action.index, action.body_lines)
            first = next(blocks)
        except MessageGone:
            self._say(b"-ERR Message is no longer there\r\n")
            return
        except StorageFailure as error:
            self._say(b"-ERR [SYS/TEMP] %b\r\n" % self._storage_failed(error))
            return
        if not isinstance(first, bytes):
            self._begins = partial(self._draw_first, action, drop, blocks)
            self._spawn("cold", _awaited(first))
            return
        if action.body_lines is None:
            drop.retrieved(action.index)
        self._say(first)
        self._send(blocks)

    def _send(self, blocks: "Iterator[bytes | Awaitable[None]]") -> None:
        """Begins a response; the part of it that fits goes out with the replies before it."""
        self._blocks = blocks
        self._draw()

    def _draw(self) -> None:
        """Takes of the current response as much as the peer reads and this turn allows."""
        try:
            while self._blocks is not None and not self._paused:
                if self._share.over():
                    self._share.later(self._turn_came)
                    break
                block = next(self._blocks, None)
                if block is None:
                    self._blocks = None
                    break
                if not isinstance(block, bytes):
                    self._spawn("cold", _awaited(block))
                    break
                self._say(block)
                if self._out_bytes >= POP3_BLOCK_BYTES:
                    self._flush()
        except StorageFailure as error:
            self._storage_failed(error)
            self.close()
        except MessageGone:
            # The response can't be ended truly; without its final "." the client knows that it is cut.
            self._server.services.log.info("pop3.message_gone", session=self._id)
            self.close()

    # --- what has to wait ---

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._flush()
        self._task = self._server.services.tasks.spawn(f"pop3.{name} {self._id}", work)
        self._task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        """The task has ended, however: on with the input, or out if the peer has left."""
        self._task = None
        if self._transport is None:
            self._release()
        elif task.cancelled() or task.exception() is not None:
            self.close(b"-ERR [SYS/TEMP] Internal error\r\n")
        else:
            self._go_on()

    def _storage_failed(self, error: StorageFailure) -> bytes:
        """The words of a SYS/TEMP reply (RFC 3206 §4); damage has been logged already, once for each place."""
        if isinstance(error, StoreDamaged):
            return b"Not all of this maildrop can be read, the administrator has been told"
        self._server.services.log.error("pop3.storage", session=self._id, error=error)
        return b"Storage is not available now, try again later"

    def _log_in(self, credentials: Credentials) -> None:
        self.opened_by = b""
        account = self._server.services.authenticator.try_now(credentials, self._service)
        if account is None:
            self._spawn("login", self._authenticate(credentials))
        elif self._lock(account):
            self.opened_by = self._server.services.authenticator.opened_by(credentials)
            opening = self._opening(account)
            step = self._open(account, opening)
            if step is not True:
                self._spawn("open", self._open_slowly(account, opening, step))

    async def _authenticate(self, credentials: Credentials) -> None:
        try:
            account = await self._server.services.authenticator.authenticate(credentials, self._service, self._client)
        except TemporaryFailure:
            self._act(self._session.refused(b"SYS/TEMP", b"Try again later"))
            return
        if account is None:
            self._act(self._session.refused(b"AUTH", AUTHENTICATION_FAILED))
        elif self._lock(account):
            self.opened_by = self._server.services.authenticator.opened_by(credentials)
            await self._open_slowly(account, self._opening(account))

    def _opening(self, account: Account) -> Opening:
        return self._server.reader.open(Actor(account.id), deleted_keyword(self._server.services.config))

    def _open(self, account: Account, opening: Opening) -> Cold | bool:
        """Goes on with opening the maildrop; False where that takes another turn, or what is to be in memory then."""
        drop: Maildrop | Cold | Account | None
        try:
            drop = next(opening, account)
        except StorageFailure as error:
            self._release()
            self._act(self._session.refused(b"SYS/TEMP", self._storage_failed(error)))
            return True
        if drop is None or isinstance(drop, Cold):
            return drop or False
        if isinstance(drop, Maildrop):
            self._server.services.store.last_logins.note(account.id, self._service, self._client)
            self._server.services.limits.mail_checked(account.id)
            self._server.services.log.info(
                "pop3.login", session=self._id, login=account.address, client=self._client, messages=drop.live
            )
            self._say(self._session.opened(drop))
        else:  # the account has just been deleted
            self._release()
            self._act(self._session.refused(b"AUTH", AUTHENTICATION_FAILED))
        return True

    async def _open_slowly(self, account: Account, opening: Opening, step: Cold | bool = False) -> None:
        self._share.begin()
        while step is not True:
            await (self._server.reader.bring(step) if isinstance(step, Cold) else self._share.pause())
            step = self._open(account, opening)

    def _lock(self, account: Account) -> bool:
        if not self._server.locks.acquire(account.id):
            self._act(self._session.refused(b"IN-USE", b"Maildrop is in use by another session"))
            return False
        self._account_id, self._login = account.id, account.address
        services = self._server.services
        refusal = refused(services, self._seat, account.id)
        if refusal is None:
            return True
        code, why = refusal
        self._release()
        services.log.info("pop3.refused", session=self._id, account=account.address, client=self._client, reply=why)
        self._act(self._session.refused(code, why.encode()))
        return False

    async def _update(self) -> None:
        """UPDATE (RFC 1939 §6). The lock is released before the answer, so that a client may come again at once."""
        services, drop = self._server.services, self._session.maildrop
        self._share.begin()
        reply, deleted = b"+OK Bye\r\n", 0
        if drop is not None:
            reply, deleted = await update(services.store.mailboxes, drop, self._share.pause, services.log, self._id)
        self._release()
        self._say(reply)  # as an answer in its own right, also if the connection is being closed
        self.close()
        services.log.info("pop3.quit", session=self._id, client=self._client, deleted=deleted)

    def _start_tls(self, reply: bytes) -> None:
        """RFC 2595 §4; CVE-2011-0411: what the client sent behind the command in plain text is dropped unread."""
        transport = self._transport
        if transport is None:
            return
        transport.pause_reading()
        self._input.clear()
        self._say(reply)
        self._spawn("stls", self._shake_hands(transport))

    async def _shake_hands(self, transport: asyncio.Transport) -> None:
        services = self._server.services
        context = services.contexts.server_context()
        try:
            if context is None:
                transport.abort()
                return
            self._input.clear()
            await start_tls(services.loop, transport, self, context, adopt=self._adopt)
        except OSError as error:  # ssl.SSLError and TimeoutError are such; the connection is closed by then
            services.log.debug("pop3.tls_failed", session=self._id, client=self._client, error=error)


_TOO_LONG: Final = b"(too long)"


async def _awaited(waiting: "Awaitable[None]") -> None:
    await waiting
