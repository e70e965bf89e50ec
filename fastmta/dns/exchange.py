"""Questions on the wire: a few sockets a name server for all of them, and only answers that fit are believed.

An answer counts when it comes from the server's own port to ours (sockets are connected), bears the question's number,
and repeats its name letter by letter: the case of the letters is random (0x20). What is truncated, or comes from a
server that does not keep the case, is asked again over TCP. A server that does not answer, or that has no answer, is
followed by the next one, twice round. Everything is bounded: what is on the wire, what waits for its turn, and time.

Invariant: a question costs no socket and no task; one timer serves all of them. When none is under way the sockets are
closed, so ports change. What is longer than a datagram is read in a thread: 64 KB of records take a tenth of a second,
and whoever writes a domain's DNS chooses how many there are.
"""

import asyncio
import random
import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from fastmta.model.limits import (
    DNS_ON_WIRE,
    DNS_PAYLOAD_BYTES,
    DNS_RECORDS,
    DNS_SENT_AT_ONCE,
    DNS_SOCKETS,
    DNS_TCP,
    DNS_WAITING,
)

if TYPE_CHECKING:
    import dns.message

ROUNDS: Final = 2
_HEADER: Final = 12
_FORMERR, _NOERROR, _NXDOMAIN = 1, 0, 3
_random: Final = random.SystemRandom()

Asked = tuple[str, str]  # a name, and a type of records
Done = Callable[[Asked, "dns.message.Message | Exception"], None]


class NoAnswer(Exception):
    """No server had an answer; the text says what each had instead."""


class _Question:
    """One question under way; `port` is the socket it was last sent from. `asked` is None once nobody waits for it."""

    __slots__ = ("asked", "attempt", "edns", "number", "port", "problem", "wire")

    def __init__(self, wire: bytes, asked: Asked) -> None:
        self.wire = wire
        self.asked: Asked | None = asked
        self.number = 0
        self.attempt = 0
        self.edns = True
        self.port: _Port | None = None
        self.problem = ""

    @property
    def echo(self) -> bytes:
        """What an answer must repeat: the question section."""
        end = self.wire.index(0, _HEADER) + 5
        return self.wire[_HEADER:end]


class _Port:
    """One UDP socket, connected to one server."""

    __slots__ = ("pending", "sock")

    def __init__(self, server: tuple[str, int]) -> None:
        family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
        self.sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            self.sock.connect(server)
        except OSError:
            self.sock.close()
            raise
        self.pending: dict[int, _Question] = {}


class Exchange:
    """All questions of one resolver to one list of name servers."""

    def __init__(
        self,
        servers: Sequence[tuple[str, int]],
        loop: asyncio.AbstractEventLoop,
        done: Done,
        *,
        timeout_s: float,
        lifetime_s: float,
        dnssec: bool = False,
    ) -> None:
        self._servers = list(servers)
        self._loop = loop
        self._done = done
        self._dnssec = dnssec
        self._timeout_s = timeout_s
        self._attempts = max(1, min(ROUNDS * len(self._servers), int(lifetime_s / timeout_s)))
        self._ports: list[list[_Port]] = [[] for _ in self._servers]
        self._waiting: deque[_Question] = deque()
        self._due: deque[tuple[float, _Question, int]] = deque()
        self._on_wire = 0
        self._sending = False
        self._timer: asyncio.TimerHandle | None = None
        self._tcp: set[asyncio.Task[None]] = set()
        self._tcp_places = asyncio.Semaphore(DNS_TCP)
        self.closed = False

    def ask(self, asked: Asked) -> None:
        """Asks for a name's records of a type; `done` is told what was asked, and the answer's message or an exception.
        ValueError or dnspython's DNSException for what is no name.
        """
        if self.closed or len(self._waiting) >= DNS_WAITING:
            raise NoAnswer("too many questions wait")
        self._waiting.append(_Question(_query(*asked, self._dnssec), asked))
        self._send_soon()

    def close(self) -> None:
        """Gives all questions up; nobody is told."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tcp:
            task.cancel()
        self._close_ports()
        self._waiting.clear()
        self._due.clear()

    def _close_ports(self) -> None:
        """Nothing is under way: the next question leaves from a port that nobody has seen yet."""
        for ports in self._ports:
            for port in ports:
                for question in port.pending.values():
                    question.asked = None
                self._loop.remove_reader(port.sock.fileno())
                port.sock.close()
            ports.clear()
        if not self.closed and self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._due.clear()

    # --- out ---

    def _send_soon(self) -> None:
        if not self._sending and self._waiting and self._on_wire < DNS_ON_WIRE:
            self._sending = True
            self._loop.call_soon(self._send_some)

    def _send_some(self) -> None:
        """A burst that a server's socket can hold; the rest follows in the loop's next turns."""
        self._sending = False
        if self.closed:
            return
        for _ in range(DNS_SENT_AT_ONCE):
            if not self._waiting or self._on_wire >= DNS_ON_WIRE:
                return
            self._on_wire += 1
            self._send(self._waiting.popleft())
        self._send_soon()

    def _send(self, question: _Question) -> None:
        try:
            port = self._port(question.attempt % len(self._servers))
            number = _random.getrandbits(16)
            while number in port.pending:
                number = _random.getrandbits(16)
            question.number, question.port = number, port
            question.wire = number.to_bytes(2, "big") + question.wire[2:]
            port.pending[number] = question
            port.sock.send(question.wire if question.edns else _without_edns(question.wire))
        except BlockingIOError:
            pass  # lost, as datagrams may be
        except OSError as error:
            self._failed(question, error.strerror or "unreachable")
            return
        self._due.append((self._loop.time() + self._timeout_s, question, question.attempt))
        if self._timer is None:
            self._timer = self._loop.call_at(self._due[0][0], self._look)

    def _port(self, server: int) -> _Port:
        ports = self._ports[server]
        if len(ports) < DNS_SOCKETS and (not ports or len(ports[-1].pending) >= DNS_SENT_AT_ONCE):
            port = _Port(self._servers[server])
            self._loop.add_reader(port.sock.fileno(), self._readable, port)
            ports.append(port)
            return port
        return _random.choice(ports)

    def _look(self) -> None:
        """The oldest question's time is over, or those are over that were answered."""
        self._timer = None
        now = self._loop.time()
        while self._due and self._due[0][0] <= now:
            _, question, attempt = self._due.popleft()
            if question.asked is not None and question.attempt == attempt:
                self._failed(question, "no answer in time")
        if self._due and self._timer is None and not self.closed:
            self._timer = self._loop.call_at(self._due[0][0], self._look)

    def _failed(self, question: _Question, problem: str) -> None:
        """This server has no answer: the next one is asked, or there is none."""
        question.problem = problem
        self._leave(question)
        question.attempt += 1
        if question.attempt < self._attempts:
            self._send(question)
        else:
            self._over(question, NoAnswer(problem))

    def _leave(self, question: _Question) -> None:
        if question.port is not None:
            question.port.pending.pop(question.number, None)
            question.port = None

    def _over(self, question: _Question, result: "dns.message.Message | Exception") -> None:
        self._leave(question)
        asked, question.asked = question.asked, None
        self._on_wire -= 1
        self._send_soon()
        if not self._on_wire and not self._waiting:
            self._close_ports()
        if asked is not None:
            self._done(asked, result)

    # --- in ---

    def _readable(self, port: _Port) -> None:
        for _ in range(DNS_SENT_AT_ONCE):
            try:
                data = port.sock.recv(65_535)
            except BlockingIOError:
                return
            except OSError as error:  # ICMP says that nobody listens there
                for question in list(port.pending.values()):
                    self._failed(question, error.strerror or "unreachable")
                return
            self._came(port, data)
            if port.sock.fileno() < 0:
                return

    def _came(self, port: _Port, data: bytes) -> None:
        question = port.pending.get(int.from_bytes(data[:2], "big")) if len(data) >= _HEADER else None
        if question is None or not data[2] & 0x80:
            return
        echo = question.echo
        echoed = data[_HEADER : _HEADER + len(echo)]
        rcode = data[3] & 15
        if rcode == _FORMERR and question.edns and data[4:6] in (b"\0\0", b"\0\1"):
            self._leave(question)
            question.edns = False
            self._send(question)
        elif echoed.lower() != echo.lower():
            return  # somebody else's answer, or a forger's
        elif data[2] & 0x02 or echoed != echo or len(data) > DNS_PAYLOAD_BYTES:
            self._over_tcp(question)
        else:
            self._answered(question, _read(data))

    def _answered(self, question: _Question, result: "dns.message.Message | str") -> None:
        if isinstance(result, str):
            self._failed(question, result)
        else:
            self._over(question, result)

    # --- TCP ---

    def _over_tcp(self, question: _Question) -> None:
        server = self._servers[question.attempt % len(self._servers)]
        self._leave(question)
        question.attempt += 1  # its time over UDP no longer counts
        task = self._loop.create_task(self._ask_tcp(question, server))
        self._tcp.add(task)
        task.add_done_callback(self._tcp.discard)

    async def _ask_tcp(self, question: _Question, server: tuple[str, int]) -> None:
        try:
            result = await self._told_over_tcp(question, server)
        except (OSError, TimeoutError, EOFError) as error:
            result = f"TCP: {error or type(error).__name__}"
        question.attempt -= 1
        self._answered(question, result)

    async def _told_over_tcp(self, question: _Question, server: tuple[str, int]) -> "dns.message.Message | str":
        writer: Any = None
        try:
            async with asyncio.timeout(self._timeout_s * 2), self._tcp_places:
                reader, writer = await asyncio.open_connection(*server)
                writer.write(len(question.wire).to_bytes(2, "big") + question.wire)
                length = int.from_bytes(await reader.readexactly(2), "big")
                data = await reader.readexactly(length)
        finally:
            if writer is not None:
                writer.close()
        echo = question.echo
        echoed = data[_HEADER : _HEADER + len(echo)]
        if len(data) < _HEADER or data[:2] != question.wire[:2] or echoed.lower() != echo.lower():
            return "an answer to something else"
        if len(data) <= DNS_PAYLOAD_BYTES:
            return _read(data)
        return await self._loop.run_in_executor(None, _read, data)


def _read(data: bytes) -> "dns.message.Message | str":
    """The message, or what is wrong with it."""
    import dns.exception
    import dns.message
    import dns.rcode

    rcode = data[3] & 15
    if rcode not in (_NOERROR, _NXDOMAIN):
        return f"answered {dns.rcode.to_text(dns.rcode.Rcode(rcode))}"
    try:
        return dns.message.from_wire(_cut(data) if int.from_bytes(data[6:8], "big") > DNS_RECORDS else data)
    except (dns.exception.DNSException, ValueError, IndexError) as error:
        return f"a broken answer: {type(error).__name__}"


def _cut(data: bytes) -> bytes:
    """An answer with the first DNS_RECORDS of its records, and nothing behind them. IndexError where it is broken."""
    at = data.index(0, _HEADER) + 5  # behind the question, which is the one that was asked
    for _ in range(DNS_RECORDS):
        while (octets := data[at]) and octets < 0xC0:
            at += 1 + octets
        at += 2 if octets else 1  # a pointer to the rest of the name, or its end
        at += 10 + int.from_bytes(data[at + 8 : at + 10], "big")
    return data[:6] + DNS_RECORDS.to_bytes(2, "big") + b"\0\0\0\0" + data[_HEADER:at]


def _query(name: str, kind: str, dnssec: bool) -> bytes:
    """A question with random case, recursion desired, and EDNS; `dnssec`: and for what validation says."""
    import dns.flags
    import dns.message
    import dns.name

    plain = dns.name.from_text(name)
    labels = tuple(_mixed(label) for label in plain.labels)
    asked = dns.name.Name(labels)
    flags = dns.flags.DO if dnssec else 0
    query = dns.message.make_query(asked, kind, use_edns=0, ednsflags=flags, payload=DNS_PAYLOAD_BYTES)
    query.flags = dns.flags.RD | (dns.flags.AD if dnssec else 0)
    return query.to_wire()


def _mixed(label: bytes) -> bytes:
    """The label with the case of each letter chosen at random."""
    coins = _random.getrandbits(len(label)) if label else 0
    return bytes(
        octet ^ 0x20 if coins >> n & 1 and (65 <= octet <= 90 or 97 <= octet <= 122) else octet
        for n, octet in enumerate(label)
    )


def _without_edns(wire: bytes) -> bytes:
    """The question for a server that does not know EDNS: the OPT record, the last of it, is left out."""
    end = wire.index(0, _HEADER) + 5
    return wire[:10] + b"\0\0" + wire[_HEADER:end]
