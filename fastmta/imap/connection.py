"""IMAP's sockets: bytes to commands, responses to bytes, with back-pressure in both directions.

Invariants: one write a turn of input; a command that waits stops the connection's parsing; at most IMAP_CHUNK_BYTES of
responses are gathered before the peer must have taken them; an idle session owns no task, no timer, no buffer. What a
command means is imap/session.py's and imap/commands'.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from fastmta import _imap
from fastmta._imap import APPEND, APPEND_END, COMMAND, DATA, FATAL, LINE, LITERAL, NEED_MORE
from fastmta.imap import upload
from fastmta.imap.commands import COMMANDS
from fastmta.imap.commands.capability import capabilities
from fastmta.imap.compression import BadStream, Compression
from fastmta.imap.session import LOGGED_IN, SERVER_BUG, Session, SessionEnded, State
from fastmta.imap.upload import Verdict
from fastmta.model.limits import (
    IMAP_CHUNK_BYTES,
    IMAP_COMMAND_BYTES,
    IMAP_ID_BYTES,
    IMAP_IDLE_TIMEOUT_S,
    IMAP_LITERAL_BYTES,
    IMAP_LOGIN_COMMAND_BYTES,
    IMAP_LOGIN_LITERAL_BYTES,
    IMAP_LOGIN_SKIP_BYTES,
    IMAP_LOGIN_TIMEOUT_S,
    IMAP_TRANSFER_TIMEOUT_S,
    LINE_SKIP_BYTES,
)
from fastmta.policy.networks import is_loopback
from fastmta.runtime.metrics import METRICS
from fastmta.tls.upgrade import start_tls

if TYPE_CHECKING:
    from fastmta._unit import Blob
    from fastmta.imap.seams import Services
    from fastmta.runtime.turns import Course

WRITE_HIGH_BYTES: Final = 65_536  # in the transport before it says pause; more only fills memory for slow readers
CLOSE_TIMEOUT_S: Final = 30.0  # for the last responses to leave


class Server(Protocol):
    """The ImapServer, as far as a connection uses it."""

    services: Services
    draining: bool

    def opened(self, connection: ImapConnection, /) -> None: ...
    def closed(self, connection: ImapConnection, /) -> None: ...


class ImapConnection(asyncio.Protocol):
    """One connection. It is its session's Wire."""

    __slots__ = (
        "_busy",
        "_changed",
        "_closing",
        "_compression",
        "_course",
        "_farewell",
        "_idle_ends_at",
        "_lost",
        "_out",
        "_out_bytes",
        "_parser",
        "_paused",
        "_reading",
        "_resumed",
        "_share",
        "_timer",
        "_transport",
        "_upload_ends_at",
        "deadline",
        "server",
        "service",
        "session",
        "told_peer",
    )

    def __init__(self, server: Server, service: str) -> None:
        self.server = server
        self.service = service
        self._transport: Any = None
        self._parser = _imap.CommandParser(
            IMAP_LOGIN_COMMAND_BYTES, IMAP_LOGIN_LITERAL_BYTES, IMAP_LOGIN_SKIP_BYTES, LINE_SKIP_BYTES
        )
        self._parser.id_bytes = IMAP_ID_BYTES
        self._compression: Compression | None = None
        self._out: list[bytes] | None = None
        self._out_bytes = 0
        self._busy = False  # a command waits: nothing further is parsed
        self._paused = False  # the peer does not read
        self._reading = True
        self._closing = False
        self._lost = False
        self._farewell = b""  # said when the command that is under way has ended: never inside a literal
        self._changed = False  # in IDLE, with something to tell as soon as it can be
        self._resumed: asyncio.Future[None] | None = None
        self._course: Course | None = None  # of the command that waits
        self._timer: asyncio.TimerHandle | None = None
        self._share = server.services.turns.share()
        self.told_peer: tuple[str, int] | None = None  # the client that a proxy speaks for
        self.deadline = 0.0
        self._upload_ends_at = 0.0
        self._idle_ends_at = 0.0  # of an IDLE that is told from time to time that the server is still there
        self.session: Session = None  # type: ignore[assignment]  # set by connection_made, before anything uses it

    # --- asyncio.Protocol ---

    def connection_made(self, transport: Any) -> None:
        server, services = self.server, self.server.services
        if self._transport is not None:  # TLS has taken the connection over
            self._transport = transport
            return
        self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        peer = self.told_peer or transport.get_extra_info("peername")
        peer_ip = peer[0] if isinstance(peer, tuple) else ""
        tls = transport.get_extra_info("ssl_object") is not None
        self.session = Session(
            services,
            self,
            COMMANDS,
            service=self.service,
            tls=tls,
            peer_ip=peer_ip,
            loopback=is_loopback(peer_ip),
        )
        services.cells[METRICS.connections_total[self.service]] += 1
        services.cells[METRICS.connections[self.service]] += 1
        if tls:
            self._count_tls(transport)
        self.deadline = services.loop.time() + IMAP_LOGIN_TIMEOUT_S
        server.opened(self)
        if server.draining:
            self.write(b"* BYE Shutting down\r\n")
            self.close()
        elif services.limits.is_banned(peer_ip):
            self.write(b"* BYE This address is banned\r\n")
            services.log.info("imap.refused", client=peer_ip, reply="banned")
            self.close()
        elif not self.session.seat.enter(self.make_way):
            self.write(b"* BYE Too many connections that have not logged in\r\n")
            services.log.info("imap.refused", client=peer_ip, reply="too many connections that have not logged in")
            self.close()
        else:
            self.write(b"* OK [CAPABILITY %b] FastMTA ready\r\n" % capabilities(self.session))
        self._hand_over()

    def _count_tls(self, transport: Any) -> None:
        tls, services = transport.get_extra_info("ssl_object"), self.server.services
        self.session.certified = services.contexts.login_name(tls)
        services.cells[METRICS.tls_connections_total[self.service, tls.version() or "other"]] += 1

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if type(data) is not bytes:
            data = bytes(data)
        if self._compression is not None:
            self._compression.feed(data)
        else:
            self._parser.feed(data)
        if not (self._busy or self._paused or self._share.waiting) and self._share.enter(self._turn_came):
            self._work()
        else:
            self._stop_reading()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self._lost:  # a handshake that fails ends both layers, and each says so
            return
        self._lost = True
        self._closing = True
        if self._course is not None and self.session.state == State.NOT_AUTHENTICATED:
            self._course.cancel()  # a login that nobody waits for
        self._course = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._release_writer()
        self._share.leave()
        self._compression = None
        self._out = None
        self._out_bytes = 0
        if self.session is not None:
            self.server.closed(self)
            self.session.seat.leave()
            self.session.ended()
            self.server.services.cells[METRICS.connections[self.service]] -= 1

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._touch()
        if self.session.idle_tag is not None:
            self._say_something_later(self.server.services.loop.time())
        self._release_writer()
        self._go_on()

    # --- the session's Wire ---

    def write(self, data: bytes) -> None:
        if self._out is None:
            self._out = [data]
        else:
            self._out.append(data)
        self._out_bytes += len(data)

    def written(self) -> int:
        return self._out_bytes

    async def flush(self) -> None:
        while True:
            self._hand_over()
            if self._paused and not self._closing:
                self._resumed = self.server.services.loop.create_future()
                await self._resumed
                self._resumed = None
            await self.pause()
            if self._compression is None or not self._compression.pending or self._closing:
                return

    @property
    def transport(self) -> Any:
        return self._transport

    def turn_is_over(self) -> bool:
        return bool(self._share.over())

    async def pause(self) -> None:
        await self._share.pause()
        if self._closing:
            self.session.state = State.LOGOUT

    def expect_line(self) -> None:
        self._parser.expect_line()

    def idles(self) -> None:
        self._idle_ends_at = self.deadline
        self._say_something_later(self.server.services.loop.time())

    def _say_something_later(self, now: float) -> None:
        interval = self.server.services.config.imap_idle_notify_interval
        self.deadline = min(now + interval, self._idle_ends_at) if interval else self._idle_ends_at

    def logged_in(self) -> None:
        self._parser.command_bytes = IMAP_COMMAND_BYTES
        self._parser.literal_bytes = IMAP_LITERAL_BYTES
        self._parser.skip_bytes = 2 * (self.server.services.config.message_size_limit or 2**31)

    def logged_out(self) -> None:
        self._parser.command_bytes = IMAP_LOGIN_COMMAND_BYTES
        self._parser.literal_bytes = IMAP_LOGIN_LITERAL_BYTES
        self._parser.skip_bytes = IMAP_LOGIN_SKIP_BYTES
        self.deadline = self.server.services.loop.time() + IMAP_LOGIN_TIMEOUT_S

    def changed(self) -> None:
        """Called on the loop by the notifier, perhaps many times in one turn: only the first counts."""
        if self._changed:
            return
        self._changed = True
        if not self._busy and not self._paused:
            self.server.services.loop.call_soon(self._tell_in_turn)

    def delay(self, seconds: float, then: Callable[[], None]) -> None:
        self._busy = True
        self._stop_reading()
        self._timer = self.server.services.loop.call_later(seconds, self._delay_over, then)

    def _delay_over(self, then: Callable[[], None]) -> None:
        self._timer = None
        self._busy = False
        then()
        self._go_on()

    def close(self) -> None:
        self._closing = True
        self.deadline = self.server.services.loop.time() + CLOSE_TIMEOUT_S

    def abort(self) -> None:
        self.session.log_out()
        self._out = None
        self._out_bytes = 0
        self._transport.abort()

    @property
    def compressed(self) -> bool:
        return self._compression is not None

    def compress(self) -> None:
        self._hand_over()
        self._compression = Compression()
        self._compression.feed(self._parser.take_rest())  # what is pipelined is compressed already

    def start_tls(self) -> None:
        self._parser.clear()  # whatever came behind STARTTLS in plain text is dropped (RFC 3501 §11.1)
        self._busy = True
        self._hand_over()
        self._transport.pause_reading()
        self._reading = False
        self.server.services.tasks.spawn("imap.starttls", self._start_tls())

    async def _start_tls(self) -> None:
        context = self.server.services.contexts.server_context()
        if context is None:  # the certificate was taken away since STARTTLS was offered
            self._transport.abort()
            return
        try:
            await start_tls(self.server.services.loop, self._transport, self, context, adopt=self._adopt)
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError; connection_lost has been called
            self.server.services.log.debug("imap.tls_failed", error=error)

    def _adopt(self, transport: Any) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        self._parser.clear()
        self.session.tls = True
        self._count_tls(transport)
        self._busy = False
        self._reading = True

    @property
    def waiting(self) -> bool:
        """Whether a command is under way or has to wait for its turn, so that nothing further is read."""
        return self._busy or self._share.waiting

    # --- input ---

    def _go_on(self) -> None:
        """Takes up the input again, now or when the session's turn comes."""
        if self._busy or self._paused or self._share.waiting:
            return
        if not self._has_input:
            self._rest()
        elif self._share.enter(self._turn_came, fresh=False):
            self._work()

    def _turn_came(self) -> None:
        if not self._busy and not self._paused and not self._closing:
            self._work()

    def _work(self) -> None:
        """Runs what has come, until a command waits, the peer stops reading, the turn is over, or all of it is done."""
        try:
            while not self._busy and not self._closing:
                if self._out_bytes >= IMAP_CHUNK_BYTES:
                    self._hand_over()
                if self._paused:
                    break
                event = self._parser.next()
                if event != NEED_MORE:
                    self._event(event)
                elif not self._inflate():
                    break
                if self._share.over() and not self._busy and self._has_input:
                    self._share.later(self._turn_came)
                    break
        except SessionEnded:
            pass  # the peer has left; connection_lost does the rest
        except Exception as error:  # the one net of a connection: our fault is logged, and ends this session alone
            self._failed(error)
        self._rest()

    def _rest(self) -> None:
        """The end of a stretch of work: what it has written leaves."""
        self._parser.forget()
        self._hand_over()
        self._tell_changes()
        if self._busy or self._paused or self._share.waiting:
            self._stop_reading()
        elif not self._reading and not self._closing:
            self._reading = True
            self._transport.resume_reading()

    @property
    def _has_input(self) -> bool:
        return not self._parser.empty or (self._compression is not None and self._compression.has_input)

    def _inflate(self) -> bool:
        """The next piece of a compressed stream, if there is one, for a parser that has read all before it."""
        if self._compression is None or not self._compression.has_input:
            return False
        try:
            piece = self._compression.inflate()
        except BadStream as error:
            self.server.services.log.debug("imap.bad_stream", error=error)
            self.bye(b"What came is not compressed as it should be")
            return False
        if piece:
            self._parser.feed(piece)
        return True

    def _event(self, event: int) -> None:
        parser, session = self._parser, self.session
        if event == COMMAND:
            self._touch()
            self._run(session.command(parser.command))
        elif event == DATA:
            self._touch_upload()
            if not upload.feed(session, parser.data):
                parser.abandon()
            elif session.upload is not None and (blob := session.upload.blob) is not None and blob.congested:
                self._wait_for_store(blob)
        elif event == LINE:
            self._touch()
            self._run(session.line(parser.command))
        elif event == LITERAL:
            self.write(b"+ OK\r\n")
        elif event == APPEND:
            self._touch()
            verdict = upload.announced(session, parser.command, parser.literal_size)
            if isinstance(verdict, int):
                self._literal_decided(verdict)
            else:
                self._run(self._literal_decided_later(verdict))
        elif event == APPEND_END:
            self._touch()
            self._run(upload.ended(session, parser.command))
        else:
            self._run(session.too_big(event, parser.command))

    def _literal_decided(self, verdict: int) -> None:
        """What becomes of a literal that an upload has announced."""
        parser, session = self._parser, self.session
        if verdict == Verdict.ACCEPTED:
            parser.accept()
            if session.upload is not None:
                self._upload_ends_at = session.upload.ends_at
                self._touch_upload()
            if parser.literal_sync:
                self.write(b"+ OK\r\n")
        elif verdict == Verdict.ARGUMENT:
            event = parser.inline()
            if event != NEED_MORE:
                self._event(event)
        elif not parser.literal_sync and parser.literal_size > parser.skip_bytes:
            self._run(session.too_big(FATAL, parser.command))  # refused, and not worth reading to its end
        else:
            parser.refuse()

    async def _literal_decided_later(self, waiting: Awaitable[int]) -> None:
        self._literal_decided(await waiting)

    def _wait_for_store(self, blob: Blob) -> None:
        """The store has enough of this message for now: reading stops until it has written some."""
        self._busy = True
        blob.on_drain = self._drained

    def _drained(self) -> None:
        if self.session.upload is not None and self.session.upload.blob is not None:
            self.session.upload.blob.on_drain = None
            self._busy = False
            self.server.services.loop.call_soon(self._go_on)

    def _run(self, waiting: Awaitable[None] | None) -> None:
        """Carries on a command that may have to wait; nothing further is parsed until it has ended."""
        if waiting is None:
            return
        self._busy = True
        self._course = None
        try:
            self._course = self._share.run(waiting, self._ended)
        except SessionEnded:
            pass
        except Exception as error:  # as in _work
            self._failed(error)
        if self._course is None:
            self._over()

    def _ended(self, failure: BaseException | None) -> None:
        """A command that had to wait has ended."""
        self._course = None
        if isinstance(failure, Exception) and not isinstance(failure, SessionEnded):
            self._failed(failure)
        self._over()
        if self._closing:
            self._hand_over()
        else:
            self._go_on()

    def _over(self) -> None:
        self._busy = False
        if self._farewell and not self._closing:
            self.bye(self._farewell)

    def _failed(self, error: Exception) -> None:
        services = self.server.services
        services.cells[METRICS.internal_errors_total[self.service]] += 1
        services.log.exception("imap.failed", error, account=self.session.address)
        self.write(b"* BYE " + SERVER_BUG[3:] + b"\r\n")
        self.session.log_out()

    def _tell_in_turn(self) -> None:
        """A change may be told to a thousand sessions: it waits for a turn as input does."""
        if not self.waiting and self._share.enter(self._turn_came, fresh=False):
            self._tell_changes()

    def _tell_changes(self) -> None:
        """What the watched mailboxes have become. Where it can't be told now, _rest comes by later."""
        if self._changed and not (self.waiting or self._paused or self._closing or self.session.upload):
            self._changed = False
            self._run(self.session.tell_idle())
            self._hand_over()
            if not self._busy:
                self._share.over()  # it is charged with it

    # --- output ---

    def _hand_over(self) -> None:
        out = self._out
        if self._compression is not None:
            self._hand_over_compressed(self._compression)
        elif out is not None and self._transport is not None:
            self._out = None
            self._out_bytes = 0
            if not self._transport.is_closing():
                self._transport.write(out[0] if len(out) == 1 else b"".join(out))
        if self._closing and not self._busy and self._transport is not None:
            self._transport.close()

    def _hand_over_compressed(self, compression: Compression) -> None:
        if self._out is not None or compression.pending:
            data = compression.deflate(b"".join(self._out or ()), all_of_it=self._closing)
            self._out = None
            self._out_bytes = 0
            if not self._transport.is_closing():
                self._transport.write(data)
        if compression.pending and not self._busy:
            self._run(self.flush())  # no command is read before all of it has left

    def _release_writer(self) -> None:
        if self._resumed is not None and not self._resumed.done():
            self._resumed.set_result(None)

    def _stop_reading(self) -> None:
        if self._reading and not self._closing:
            self._reading = False
            self._transport.pause_reading()

    # --- time ---

    def _touch(self) -> None:
        """Something happened: the next deadline. Before login there is one for all of it."""
        if self.session.state & LOGGED_IN:
            self.deadline = self.server.services.loop.time() + IMAP_IDLE_TIMEOUT_S

    def _touch_upload(self) -> None:
        """A piece of a message came: the next one is due soon, and all of it in time."""
        now = self.server.services.loop.time()
        self.deadline = min(now + IMAP_TRANSFER_TIMEOUT_S, self._upload_ends_at)

    def deadline_passed(self, now: float) -> None:
        """Called by the sweep."""
        if self._closing:
            self._transport.abort()
            return
        if self._paused:
            self.abort()  # nothing more can be said to a peer that does not read
            return
        if self._busy:
            self.deadline = now + IMAP_TRANSFER_TIMEOUT_S
            return
        if self.session.idle_tag is not None and now < self._idle_ends_at:
            self.write(b"* OK Still here\r\n")  # as Dovecot says it
            self._hand_over()
            self._say_something_later(now)
            return
        self.bye(b"Autologout; idle for too long" if self.session.account_id else b"No login in time")
        self.deadline = now + IMAP_LOGIN_TIMEOUT_S

    def make_way(self) -> None:
        """Ends a connection that has not logged in for a newcomer, where there are too many of them."""
        self.server.services.log.info("imap.refused", client=self.session.peer_ip, reply="made way for a newcomer")
        self.bye(b"No login yet, and too many connections that have not logged in", now=True)

    def bye(self, text: bytes, *, now: bool = False) -> None:
        """Ends the session with a word (RFC 3501 §7.1.5), after the command that is under way, or `now`."""
        if self._busy and now:
            self.session.log_out()
            self._transport.close()
            return
        if self._busy:
            self._farewell = text
            return
        if not self._closing:
            self.write(b"* BYE %b\r\n" % text)
            self.session.log_out()
        self._hand_over()
