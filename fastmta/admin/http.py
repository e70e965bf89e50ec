"""HTTP for machines that watch (/metrics, /healthz, /readyz) and programs that set themselves up (client_setup.py).
Any worker answers for all.

A handler of our own, because short answers do not need a framework's 0.3 s of import in every worker. A request is
bounded in bytes and in time, bodies are read where a page takes them (POST), and a connection is kept for the next
request as HTTP/1.1 has it (RFC 9112 §9.3). Pipelined requests are answered in this connection's turns of the loop
(runtime/turns.py), and only while the peer reads: at most one answer is made ahead of WRITE_HIGH_BYTES. Host and Origin
are checked (origin.py), and how many connections an address has.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, cast

from fastmta.admin.origin import AllowedHosts
from fastmta.policy.limits import Limits
from fastmta.runtime.log import Log
from fastmta.runtime.metrics import METRICS, Cells
from fastmta.runtime.turns import Turns

REQUEST_BYTES: Final = 8192  # line and header fields together; as much again a body
REQUEST_S: Final = 10.0  # for a request to arrive, for an answer to be taken, and for an idle connection
WRITE_HIGH_BYTES: Final = 65_536  # in the transport before it says pause
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
PLAIN: Final = "text/plain; charset=utf-8"


class Answer(NamedTuple):
    """A status, its body and what the body is."""

    status: int
    body: bytes
    content_type: str = PLAIN
    pieces: Iterator[bytes] | None = None  # of a body that takes long to make, in place of `body`
    allow: str = ""  # the methods of a page that was asked by another one


class Request(NamedTuple):
    """What is asked: `path` in lower case, `query` as it came, `host` with its port, a body where it is POST."""

    method: str
    path: str
    query: str = ""
    host: str = ""
    body: bytes = b""


Page = Callable[[Request], Answer]


class HttpServer:
    """The pages by their path, and the connections that read them."""

    def __init__(
        self,
        pages: dict[str, Page],
        cells: Cells,
        log: Log,
        turns: Turns,
        limits: Limits,
        hosts: AllowedHosts,
        *,
        forms: dict[str, Page] | None = None,
    ) -> None:
        """`pages` are for GET and HEAD, `forms` for POST. One whose path ends with "/" has what lies right below it."""
        self.turns = turns
        self._pages = pages
        self._forms = forms or {}
        self._cells = cells
        self._log = log
        self.limits = limits
        self.hosts = hosts
        self._open: set[_Connection] = set()

    def factory(self) -> asyncio.Protocol:
        """A protocol for one connection."""
        return _Connection(self)

    @property
    def sessions(self) -> int:
        return len(self._open)

    def answer(self, request: Request) -> Answer:
        """The answer to one request; a page's failure is a 500 and a line in the log."""
        known = self._forms if request.method == "POST" else self._pages
        page = known.get(request.path) or known.get(request.path[: request.path.rfind("/") + 1])
        if page is None or request.method not in ("GET", "HEAD", "POST"):
            if request.path in self._pages:
                return Answer(405, b"only GET and HEAD\n", allow="GET, HEAD")
            if request.path in self._forms:
                return Answer(405, b"only POST\n", allow="POST")
            return Answer(404, b"nothing here; try /metrics, /healthz, /readyz\n")
        try:
            return page(request)
        except Exception as error:
            return self.failed(request.path, error)

    def failed(self, target: str, error: BaseException) -> Answer:
        """What a page's failure comes to."""
        self._cells[METRICS.internal_errors_total["http"]] += 1
        self._log.exception("http.failed", error, page=target)
        return Answer(500, b"failed; the log has the cause\n")

    def refused(self, status: int, reason: str, client: str, host: bytes | None = None) -> None:
        """A decision of ours not to answer, in the log."""
        self._log.info("http.refused", status=status, reason=reason, client=client or None, host=host)

    def connected(self, connection: "_Connection", by: int) -> None:
        """Counts a connection in (1) or out (-1)."""
        if by > 0:
            self._open.add(connection)
            self._cells[METRICS.connections_total["http"]] += 1
            self._cells[METRICS.connections["http"]] += 1
        else:
            self._open.discard(connection)
            self._cells[METRICS.connections["http"]] -= 1

    def close_all(self) -> None:
        for connection in list(self._open):
            connection.close()


class _Connection(asyncio.Protocol):
    __slots__ = (
        "_buffer",
        "_made",
        "_making",
        "_paused",
        "_place",
        "_reading",
        "_server",
        "_share",
        "_timer",
        "_transport",
        "told_peer",
    )

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._share = server.turns.share()
        self._buffer = b""
        self._making: tuple[Answer, bool, bool] | None = None  # the answer that is being made, as `_send` takes it
        self._made: list[bytes] = []  # of its pieces
        self._paused = False  # the peer does not read
        self._reading = True
        self._place = 0
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.told_peer: tuple[str, int] | None = None  # the client that a proxy speaks for

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not derive from asyncio's
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        self._server.connected(self, 1)
        self._expect()
        peer = self.told_peer or transport.get_extra_info("peername")
        self._place = self._server.limits.connect("http", peer[0] if isinstance(peer, tuple) and peer else "")
        if not self._place:
            self._server.refused(429, "too many connections", peer[0] if isinstance(peer, tuple) and peer else "")
            self._send(Answer(429, b"too many connections from your address\n"), head_only=False, keep=False)

    def _expect(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(REQUEST_S, self._late)

    def _late(self) -> None:
        """No request in time; or the peer takes no answer, and then there is nobody to wait for."""
        transport = self._transport
        if transport is not None and (self._paused or transport.is_closing()):
            transport.abort()
        else:
            self.close()
            self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._share.leave()
        self._buffer = b""
        self._making = None
        self._server.connected(self, -1)
        self._server.limits.release(self._place)
        self._place = 0

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._buffer += data
        self._go_on()
        if (self._paused or self._share.waiting) and self._reading and not self._transport.is_closing():
            self._reading = False
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._expect()
        self._go_on()

    def _go_on(self) -> None:
        if not self._paused and not self._share.waiting and self._share.enter(self._turn_came):
            self._turn_came()

    def _turn_came(self) -> None:
        """Answers what has come, until the turn is over or the peer reads no more."""
        transport = self._transport
        if transport is None:
            return
        while not transport.is_closing() and not self._paused:
            if self._making is not None:
                self._make(*self._making)
            else:
                head, end, rest = self._buffer.partition(b"\r\n\r\n")
                if not end:
                    break
                length = _body_length(head)
                if len(rest) < length:
                    break
                self._buffer = rest[length:]
                self._request(head, rest[:length])
            self._expect()
            if self._share.over() and (self._buffer or self._making is not None):
                self._share.later(self._turn_came)
                return
        if transport.is_closing() or self._paused:
            return
        if len(self._buffer) > REQUEST_BYTES and len(self._buffer.partition(b"\r\n\r\n")[0]) > REQUEST_BYTES:
            self._send(Answer(431, b"the request is too long\n"), head_only=False, keep=False)
        elif not self._reading:
            self._reading = True
            transport.resume_reading()

    def _request(self, head: bytes, body: bytes) -> None:
        lines = head.decode("latin-1").split("\r\n")
        parts = lines[0].split(" ")
        fields = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            fields[name.lower()] = value.strip().lower()
        hosts = sum(line[:5].lower() == "host:" for line in lines[1:])  # one at most (RFC 9112 §3.2)
        if len(parts) != 3 or not parts[2].startswith("HTTP/1.") or hosts > 1:
            self._send(Answer(400, b"this is not an HTTP/1.1 request\n"), head_only=False, keep=False)
            return
        target = parts[1]
        if target[:7].lower() == "http://":  # as to a proxy: its host counts (RFC 9112 §3.2.2)
            authority, slash, rest = target[7:].partition("/")
            fields["host"], target = authority.lower(), slash + rest
        refusal = self._server.hosts.refusal(fields)
        if refusal:
            self._server.refused(403, refusal, "", host=fields.get("host", "").encode("latin-1"))
            self._send(Answer(403, f"{refusal}\n".encode()), head_only=parts[0] == "HEAD", keep=False)
            return
        unread = "transfer-encoding" in fields or (fields.get("content-length", "0") != "0" and not body)
        wants = fields.get("connection", "" if parts[2] == "HTTP/1.1" else "close")
        keep = "close" not in wants and not unread  # an unread body would be taken for the next request
        path, _, query = target.partition("?")
        request = Request(parts[0], path.lower(), query, fields.get("host", ""), body)
        answer, head_only = self._server.answer(request), parts[0] == "HEAD"
        if answer.pieces is not None:
            self._making = answer, head_only, keep
        else:
            self._send(answer, head_only=head_only, keep=keep)

    def _make(self, answer: Answer, head_only: bool, keep: bool) -> None:
        """One more piece of the answer, which is sent when there is none left."""
        assert answer.pieces is not None
        try:
            piece = next(answer.pieces, None)
        except Exception as error:
            self._made.clear()
            self._making = None
            self._send(self._server.failed("", error), head_only=head_only, keep=keep)
            return
        if piece is not None:
            self._made.append(piece)
            return
        body = b"".join(self._made)
        self._made.clear()
        self._making = None
        self._send(answer._replace(body=body), head_only=head_only, keep=keep)

    def _send(self, answer: Answer, *, head_only: bool, keep: bool) -> None:
        assert self._transport is not None
        fields = [
            f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}",
            f"Content-Type: {answer.content_type}",
            f"Content-Length: {len(answer.body)}",
        ]
        if answer.allow:
            fields.append(f"Allow: {answer.allow}")
        if not keep:
            fields.append("Connection: close")
        head = "\r\n".join(fields).encode() + b"\r\n\r\n"
        self._transport.write(head + (b"" if head_only else answer.body))
        if not keep:
            self._transport.close()


def _body_length(head: bytes) -> int:
    """The octets of a body that is read: of a POST that says its length, within the bound; 0 for all others."""
    if not head.startswith(b"POST ") or b"transfer-encoding" in head.lower():
        return 0
    lines = head.lower().split(b"\r\n")
    lengths = [line.partition(b":")[2].strip() for line in lines if line.startswith(b"content-length:")]
    if len(lengths) != 1 or not lengths[0].isdigit() or len(lengths[0]) > 5:
        return 0
    length = int(lengths[0])
    return length if length <= REQUEST_BYTES else 0
