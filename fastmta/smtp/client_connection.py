"""The socket of an SMTP or LMTP client: one connection to one next hop, which carries one message after the other.

It moves bytes between the transport and the rules of smtp/client.py, sends bodies, and keeps one deadline, which the
service's sweep looks at once a second; so a delivery costs no timer, task or future. A small message leaves in one
write: with its final dot, or as one chunk behind the envelope where the server takes BDAT. A big one leaves in slices,
each read from the store only when the socket has room, and each a chunk of its own there.

Nothing that leaves has a bare CR or LF, a line over smtp_line_length_limit, a last line without CRLF, or, behind DATA,
an unstuffed dot, whatever the store holds.
"""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from typing import Any, Final, Protocol

from fastmta._parser import normalize, stuff
from fastmta.auth.sasl_client import LoginError
from fastmta.dns.mx import Address
from fastmta.model.envelope import HAS_BARE_NEWLINE, HAS_DOT_LINE, HAS_LONG_LINE, NO_FINAL_CRLF
from fastmta.model.limits import LINE_BYTES
from fastmta.smtp.client import Client
from fastmta.smtp.client_seams import Policy, Settings
from fastmta.smtp.client_states import Event, State
from fastmta.smtp.conversion import Gone
from fastmta.smtp.folding import Folder
from fastmta.smtp.transaction import Transaction
from fastmta.tls.problems import result_type
from fastmta.tls.sessions import Kept
from fastmta.tls.upgrade import start_tls

SLICE_BYTES: Final = 131_072  # read from the store and written at once; the high-water mark lets one wait behind it
AHEAD_BYTES: Final = 65_536  # the most that is sent in vain to a server that then refuses every recipient
IDLE_S: Final = 10.0  # how long an idle connection is kept
LIFETIME_S: Final = 300.0  # Postfix's smtp_connection_reuse_time_limit
MESSAGES: Final = 100
PROBE_AFTER_S: Final = 1.0  # an idle connection may have been closed by the server: RSET asks first

_DOT: Final = b".\r\n"  # written beside the body: together they would be a copy of it
_UNUSUAL_CHUNK: Final = HAS_BARE_NEWLINE | NO_FINAL_CRLF
_UNUSUAL: Final = _UNUSUAL_CHUNK | HAS_DOT_LINE
# For the hot path: module constants are cheaper than attributes of an enum.
_NOTHING, _BODY, _DONE, _RESET = Event.NOTHING, Event.BODY, Event.DONE, State.RESET
_ENVELOPE, _FINAL, _HANDSHAKE = State.ENVELOPE, State.FINAL, State.HANDSHAKE

# The timeout that a stage of the transaction has, by its name; each reply of the server has one of its own.
_TIMEOUTS: Final = {
    "sending RCPT TO": "smtp_rcpt_timeout",
    "sending DATA command": "smtp_data_init_timeout",
    "sending RSET": "smtp_rset_timeout",
    "sending message body": "smtp_data_xfer_timeout",
    "sending end of data": "smtp_data_done_timeout",
    "sending end of data -- message may be sent more than once": "smtp_data_done_timeout",
}


class ConnectionOwner(Protocol):
    """Who uses the connection: told of the end of the handshake, of each transaction, and of the connection."""

    def session_ready(self, connection: "Connection") -> None: ...
    def transaction_done(self, connection: "Connection") -> None: ...
    def session_over(self, connection: "Connection") -> None:
        """Called exactly once. `client.failure` says why; the transaction, if any, may have undecided recipients."""
        ...

    def partly_answered(self, connection: "Connection") -> None:
        """A server that answers for each recipient (RFC 2033 §4.2) owes some of its answers still."""
        ...

    def read_body(self, transaction: Transaction, offset: int, length: int) -> bytes | None:
        """The message's bytes, the transaction's front before what is stored; None: it has been deleted meanwhile."""
        ...

    def need_body(self, transaction: Transaction, offset: int, length: int) -> Awaitable[None] | None:
        """None where `read_body` will not wait for the disk; else to be awaited before it."""
        ...

    def folded(self, connection: "Connection", lines: int) -> None:
        """So many lines of the connection's transaction were too long."""
        ...

    def tls_context(self, connection: "Connection") -> ssl.SSLContext | None: ...
    def tls_session(self, connection: "Connection", context: ssl.SSLContext) -> Kept | None:
        """A session of before that this connection may resume."""
        ...

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None: ...


class Connection(asyncio.Protocol):
    """One connection to `address`. `deadline` is in the loop's seconds.

    `tls_failed`: the TLS handshake has begun and not ended well, so that the owner may try again without.
    `tls_problem`: what it failed by, in RFC 8460 §4.3's words.
    `resumes`: the session of before that it was to go on with.
    `verified`: by what, and as which name, the server was verified.
    """

    __slots__ = (
        "_after_cr",
        "_assumed",
        "_at_line_start",
        "_ended",
        "_folder",
        "_held",
        "_is_cold",
        "_long",
        "_loop",
        "_offset",
        "_owner",
        "_paused",
        "_pieces",
        "_replies",
        "_size",
        "_timeouts",
        "_transport",
        "address",
        "client",
        "deadline",
        "grant",
        "idle_since",
        "login",
        "most_messages",
        "opened_at",
        "policy",
        "resumes",
        "tls_failed",
        "tls_problem",
        "tls_shown",
        "transaction",
        "verified",
        "was_at_rest",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        owner: ConnectionOwner,
        client: Client,
        address: Address,
        settings: Settings,
        policy: Policy,
    ) -> None:
        """`policy`: the TLS that this server is to get."""
        self._loop = loop
        self._owner = owner
        self._timeouts = settings
        limit = settings.smtp_line_length_limit
        self._folder: Folder | None = None
        # The bits of a message that must not leave as it lies; where lines are to be shorter than what arrival looks
        # for, any message may have one that is too long.
        self._long = HAS_LONG_LINE if limit else 0
        self._assumed = HAS_LONG_LINE if 0 < limit < LINE_BYTES else 0
        self._transport: asyncio.Transport | None = None
        self._ended = self._paused = self._is_cold = False
        self._offset = self._size = self._replies = 0
        self._at_line_start, self._after_cr = True, False
        self._pieces: Iterator[bytes] | None = None  # of a message that is made 7-bit
        self._held = b""
        self.client = client
        self.address = address
        self.policy = policy
        self.login: str | None = None  # the owner's: connections are shared only by those of one login
        self.grant: Any = None  # the owner's: what traffic rules have given the connection
        self.most_messages = MESSAGES
        self.verified: tuple[str, str] | None = None
        self.opened_at = self.idle_since = loop.time()
        self.deadline = self.opened_at + settings.smtp_helo_timeout
        self.tls_shown = self.tls_problem = ""  # of the session, for the log
        self.tls_failed = self.was_at_rest = False
        self.resumes: Kept | None = None
        self.transaction: Transaction | None = None

    # --- what the owner calls ---

    def start(self, transaction: Transaction) -> None:
        """Sends a transaction over a ready connection; after a longer idle time the server is asked first."""
        now = self._loop.time()
        self.transaction = transaction
        client = self.client
        self._replies = client.replies
        event = client.start(transaction, probe=client.messages > 0 and now - self.idle_since > PROBE_AFTER_S)
        timeouts = self._timeouts
        self.deadline = now + (timeouts.smtp_rset_timeout if client.state is _RESET else timeouts.smtp_mail_timeout)
        if (
            client.chunked
            and client.state is _ENVELOPE
            and not transaction.only_asks
            and transaction.size_bytes <= AHEAD_BYTES
        ):
            self._begin_body()
            return
        if client.output:
            self._transport.write(client.output)  # type: ignore[union-attr]
            client.output = b""
        if event is _DONE:
            # Decided without asking: told in a turn of its own, so that many of these do not recurse.
            self._loop.call_soon(self._owner.transaction_done, self)

    def reserve(self, transaction: Transaction) -> None:
        """The connection is kept for a transaction that is being prepared; `start` follows, or `session_over`."""
        self.transaction = transaction
        self.deadline = self._loop.time() + self._timeouts.smtp_mail_timeout

    def rest(self) -> None:
        """No transaction for now: the connection waits for the next one for a while."""
        self.transaction = None
        self.was_at_rest = True
        self.idle_since = self._loop.time()
        self.deadline = self.idle_since + IDLE_S

    @property
    def is_reusable(self) -> bool:
        """Whether another transaction may be started."""
        client = self.client
        return (
            client.is_usable
            and not self._ended
            and client.messages < self.most_messages
            and self._loop.time() - self.opened_at < LIFETIME_S
        )

    @property
    def tls_version(self) -> str:
        """The version of TLS in use, "" in plain text."""
        tls = self.tls()
        return tls.version() or "" if tls is not None else ""

    @property
    def cipher(self) -> str:
        """The name of the cipher suite in use, "" in plain text."""
        tls = self.tls()
        return (tls.cipher() or ("",))[0] if tls is not None else ""

    @property
    def own_ip(self) -> str:
        """Our address on this connection; "" where it has none."""
        name = self._transport.get_extra_info("sockname") if self._transport is not None else None
        return str(name[0]) if isinstance(name, tuple) else ""

    @property
    def is_resumed(self) -> bool:
        """Whether the server went on with a session of before."""
        tls = self.tls()
        return tls is not None and bool(tls.session_reused)

    def tls(self) -> ssl.SSLObject | None:
        """The TLS object in use, None in plain text."""
        return self._transport.get_extra_info("ssl_object") if self._transport is not None else None

    def close(self) -> None:
        """Says QUIT and closes behind it, without waiting for an answer."""
        if self._transport is not None and not self._transport.is_closing():
            if self.client.state is State.READY:
                self.client.quit()
                self._transport.write(self.client.output)
                self.client.output = b""
            self._transport.close()

    def abort(self) -> None:
        """Closes at once, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()
        self._end()

    def deadline_passed(self, now: float) -> None:
        """For the sweep: a connection at rest leaves politely, one that waits for the server has failed."""
        if self.transaction is None and self.client.state is State.READY:
            self.deadline = now + IDLE_S
            self.close()
            return
        self.client.lost("conversation timed out")
        self.abort()

    # --- what the transport calls ---

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=SLICE_BYTES)
        if self.client.state is _HANDSHAKE:
            self._owner.spawn("delivery TLS handshake", self._start_tls())

    def data_received(self, data: bytes) -> None:
        client = self.client
        event = client.receive(data)
        if event is _NOTHING:
            if client.output:
                self._write_output()
            elif client.replies != self._replies and self.transaction is not None:
                # Each reply has a timeout of its own; bytes that complete none do not prolong it.
                self._replies = client.replies
                if client.state is _FINAL:
                    self._owner.partly_answered(self)
                self.deadline = self._loop.time() + self._time_for_reply()
        elif event is _BODY:
            self._begin_body()
        elif event is _DONE:
            if client.output:
                self._write_output()
            self._owner.transaction_done(self)
        elif event is Event.READY:
            self._owner.session_ready(self)
        elif event is Event.HANDSHAKE:
            self._owner.spawn("delivery TLS handshake", self._start_tls())
        elif event is Event.LOGIN:
            self._owner.spawn("delivery login", self._answer())
        else:
            self.abort()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if self.tls_failed and exc is not None:
            self.tls_problem = result_type(exc)
            self.client.tls_failed(str(exc) or type(exc).__name__)
        else:
            self.client.lost()
        self._end()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self.client.state is State.BODY and not self._ended and not self._is_cold:
            self._continue_body()

    # --- the message ---

    def _write_output(self) -> None:
        client = self.client
        timeouts = self._timeouts
        if self.transaction is not None:
            timeout_s = self._time_for_reply()
        elif client.state is State.STARTTLS:
            timeout_s = timeouts.smtp_starttls_timeout
        else:
            timeout_s = timeouts.smtp_helo_timeout
        self.deadline = self._loop.time() + timeout_s
        if self._transport is not None and client.output:  # behind a handshake the greeting may be next
            self._transport.write(client.output)
        client.output = b""

    def _time_for_reply(self) -> float:
        """Seconds for the reply that the server owes to the transaction."""
        timeout_s: float = getattr(self._timeouts, _TIMEOUTS.get(self.client.stage, "smtp_mail_timeout"))
        return timeout_s

    def _wait(self, waiting: Awaitable[None], transaction: Transaction, then: Callable[[], None]) -> None:
        """A piece of the body is not in memory; `then` is called when it is, unless the session has ended."""
        self._is_cold = True
        self._owner.spawn("delivery of a cold body", self._brought(waiting, transaction, then))

    async def _brought(self, waiting: Awaitable[None], transaction: Transaction, then: Callable[[], None]) -> None:
        await waiting
        self._is_cold = False
        state = self.client.state  # the envelope waits too, where the message is to leave with it
        is_next = state is State.BODY or (state is _ENVELOPE and self.client.output)
        if self.transaction is transaction and is_next and not self._ended:
            then()

    def _begin_body(self) -> None:
        transaction = self.transaction
        assert transaction is not None
        waiting = self._owner.need_body(transaction, 0, SLICE_BYTES)
        if waiting is None:
            self._send_body()
        else:
            self._wait(waiting, transaction, self._send_body)

    def _send_body(self) -> None:
        transaction = self.transaction
        assert transaction is not None
        size = transaction.size_bytes
        self._pieces = None
        self._at_line_start, self._after_cr = True, False
        limit = self._timeouts.smtp_line_length_limit
        self._folder = Folder(limit) if (transaction.bits | self._assumed) & self._long else None
        if transaction.conversion is not None and self.client.needs_conversion(transaction):
            self._pieces = transaction.conversion.pieces(partial(self._owner.read_body, transaction))
            self._held = b""
            self._continue_body()
            return
        if size <= SLICE_BYTES:
            body = self._owner.read_body(transaction, 0, size)
            if body is None or len(body) != size:
                self._gone()
            else:
                self._write_piece(transaction, body, last=True)
            return
        self._offset, self._size = 0, size
        self._continue_body()

    def _mends(self, transaction: Transaction) -> int:
        """The bits of a message that must not leave as it lies."""
        unusual = self._long | (_UNUSUAL_CHUNK if self.client.chunked else _UNUSUAL)
        return (transaction.bits | self._assumed) & unusual

    def _write_piece(self, transaction: Transaction, piece: bytes, *, last: bool) -> None:
        """Writes the next octets of the message, with what stands before or behind them."""
        if self._mends(transaction):
            piece = self._encoded(piece, last=last)
        client = self.client
        transport = self._transport
        assert transport is not None
        timeouts = self._timeouts
        if client.chunked:
            if not (piece or last):
                return
            before, client.output = client.output, b""
            transport.writelines((before + client.chunk(len(piece), last=last), piece))
            if before:
                return  # the answers to the envelope come first, and have their time already
        elif last:
            client.body_sent()
            transport.writelines((piece, _DOT))
        else:
            transport.write(piece)
        timeout_s = timeouts.smtp_data_done_timeout if last else timeouts.smtp_data_xfer_timeout
        self.deadline = self._loop.time() + timeout_s

    def _continue_body(self, is_warm: bool = False) -> None:
        """Writes slices until the socket has enough or the message is whole. `is_warm`: the next one is in memory."""
        transaction = self.transaction
        assert transaction is not None and self._transport is not None
        if self._pieces is not None:
            self._continue_converted(self._pieces)
            return
        while not self._paused and not self._transport.is_closing() and self._offset < self._size:
            length = min(SLICE_BYTES, self._size - self._offset)
            if not is_warm and self._offset:
                waiting = self._owner.need_body(transaction, self._offset, length)
                if waiting is not None:
                    self._wait(waiting, transaction, partial(self._continue_body, True))
                    return
            is_warm = False
            piece = self._owner.read_body(transaction, self._offset, length)
            if piece is None or len(piece) != length:
                self._gone()
                return
            self._offset += length
            self._write_piece(transaction, piece, last=self._offset >= self._size)

    def _continue_converted(self, pieces: Iterator[bytes]) -> None:
        """Writes the next piece of a message that is made 7-bit on its way; others get their turn between two."""
        if self._paused or self._ended or self.client.state is not State.BODY or pieces is not self._pieces:
            return
        assert self._transport is not None
        try:
            following = next(pieces, None)
        except Gone:
            self._gone()
            return
        piece, self._held = self._held, following or b""  # the last piece is known for it by what follows
        out = self._encoded(piece, last=following is None)
        if following is None:
            self._pieces = None
            self.client.body_sent()
            self.deadline = self._loop.time() + self._timeouts.smtp_data_done_timeout
            self._transport.writelines((out, _DOT))
            return
        self.deadline = self._loop.time() + self._timeouts.smtp_data_xfer_timeout
        if out:
            self._transport.write(out)
        self._loop.call_soon(self._continue_converted, pieces)

    def _encoded(self, piece: bytes, *, last: bool) -> bytes:
        """The piece as it goes over the wire: no bare CR or LF, no line too long, dots doubled (but in chunks), and
        CRLF at the end of the last one.
        """
        if self.transaction is not None and self.transaction.bits & HAS_BARE_NEWLINE:
            piece, self._after_cr = normalize(piece, self._after_cr)
            if last and self._after_cr:
                piece += b" "  # what a bare CR becomes
        folder = self._folder
        if folder is not None:
            piece = folder.fold(piece)
            if last:
                self._folder = None
                if folder.folded:
                    self._owner.folded(self, folder.folded)
        if self.client.chunked:
            self._at_line_start = piece.endswith(b"\n") if piece else self._at_line_start
        else:
            piece, self._at_line_start = stuff(piece, self._at_line_start)
        if last and not self._at_line_start:
            piece += b"\r\n"
        return piece

    def _gone(self) -> None:
        """The message was deleted while it was under way: the server must not take half of it."""
        self.client.lost("message deleted")
        self.abort()

    # --- the ends ---

    async def _start_tls(self) -> None:
        context = self._owner.tls_context(self)
        transport = self._transport
        if context is None or transport is None:
            self.abort()
            return
        timeout_s = self._timeouts.smtp_starttls_timeout
        self.deadline = self._loop.time() + timeout_s + 2  # the handshake's own timer comes first
        self.tls_failed = True  # assume failure until the handshake completes
        self.resumes = kept = self._owner.tls_session(self, context)
        try:
            await start_tls(
                self._loop,
                transport,
                self,
                context,
                server_side=False,
                server_hostname=self.policy.servername or self.address.host,
                session=kept.session if kept is not None else None,
                timeout_s=timeout_s,
                adopt=self._adopt,
            )
        except (OSError, ValueError):  # ValueError: an MX host whose name cannot be an SNI
            self._end()  # start_tls has told connection_lost why
            return
        if not self._verify():
            self.tls_problem = "certificate-host-mismatch" if self.policy.level == "mta-sts" else "validation-failure"
            self.client.tls_failed("Server certificate not verified")
            self.abort()
            return
        self.tls_failed = False
        self.client.proved = self.policy.must_verify
        self.client.tls_started()
        self._write_output()

    async def _answer(self) -> None:
        """Answers a challenge of the login; what takes long, a key derived from the password, does so on a thread."""
        client = self.client
        assert client.login is not None
        try:
            slow = client.login.is_slow
            response = await self._loop.run_in_executor(None, client.respond) if slow else client.respond()
        except LoginError as error:
            client.login_failed(str(error))
            self.abort()
            return
        if not self._ended:
            client.answer(response)
            self._write_output()

    def _verify(self) -> bool:
        """Whether the certificate is the one of whom we wanted to reach, where the policy asks for that."""
        if not self.policy.must_verify:
            return True
        tls = self.tls()
        if self.resumes is not None and self.is_resumed:
            self.verified = self.resumes.proof
        elif tls is not None:
            self.verified = self.policy.verified(tls, self.address, time.time())
        return self.verified is not None

    def _adopt(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=SLICE_BYTES)

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self.client.is_usable = False
            self._owner.session_over(self)
