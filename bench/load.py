"""The peak generator: SMTP load over plain sockets and epoll, no framework, and the time from the final dot to its 250.

    python -m bench.load saturate HOST PORT --sessions 64 --seconds 5
    python -m bench.load probe HOST PORT --seconds 5 --interval 0.01
    python -m bench.load beside HOST PORT      # the prober beside the saturating connections, each its own process

A saturating session writes MAIL, RCPT and DATA in one segment where the server offers PIPELINING, waits for all three
replies, and writes the message with its dot as the second segment: two round trips a message. The prober is a client
that behaves well: one connection, a message every `interval`; it runs in a process of its own so that the load's work
is not mistaken for the server's.

Loads end by themselves after `seconds`; they are meant for loopback.
"""

import argparse
import json
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

SENDER = b"load@bench.example"
RECIPIENT = b"hold@hold.example"
_READ_BYTES = 65536
GREETING, EHLO, READY, ENVELOPE, BODY, CLOSED = range(6)


def message_bytes(size: int) -> bytes:
    """A message of `size` octets before dot-stuffing, in lines of 78; never a line that begins with a dot."""
    head = b"From: <load@bench.example>\r\nTo: <hold@hold.example>\r\nSubject: load\r\n\r\n"
    line = b"x" * 76 + b"\r\n"
    body = line * ((size - len(head)) // len(line))
    rest = size - len(head) - len(body)
    return head + body + (b"y" * (rest - 2) + b"\r\n" if rest > 2 else b"")


class Session:
    """One connection's state; `latencies` receives seconds from the dot to its 250."""

    __slots__ = (
        "_body",
        "_buffer",
        "_dot_at",
        "_envelope",
        "_lines",
        "failures",
        "latencies",
        "sock",
        "state",
    )

    def __init__(self, address: tuple[str, int], body: bytes, recipient: bytes, latencies: list[float]) -> None:
        self.sock = socket.create_connection(address, timeout=30.0)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.state = GREETING
        self.latencies = latencies
        self.failures: list[bytes] = []
        self._buffer = b""
        self._lines = 0
        self._body = body
        self._dot_at = 0.0
        self._envelope = b"MAIL FROM:<%s>\r\nRCPT TO:<%s>\r\nDATA\r\n" % (SENDER, recipient)

    def _send(self, data: bytes) -> None:
        """All of `data`; a full socket buffer is waited for, since the peer must read it before it can answer."""
        view = memoryview(data)
        while view:
            try:
                view = view[self.sock.send(view) :]
            except BlockingIOError:
                select.select([], [self.sock], [], 30.0)

    def begin_message(self) -> None:
        self.state = ENVELOPE
        self._lines = 0
        self._send(self._envelope)

    def readable(self) -> bool:
        """Takes what has come. True when the caller's turn has come: `state` is READY for a message, or CLOSED."""
        try:
            data = self.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._fail(b"closed by the server")
            return True
        self._buffer += data
        if not self._buffer.endswith(b"\n"):
            return False
        lines = self._buffer.split(b"\r\n")[:-1]
        self._buffer = b""
        if self.state == BODY:
            self._after_dot(lines[-1])
        elif self.state == ENVELOPE:
            self._after_envelope(lines)
        elif lines[-1][3:4] != b"-":
            self._after_hello(lines)
        return self.state in (READY, CLOSED)

    def _after_hello(self, lines: list[bytes]) -> None:
        if self.state == GREETING:
            self.state = EHLO
            self._send(b"EHLO load.bench.example\r\n")
        elif lines[-1].startswith(b"250"):
            self.state = READY
        else:
            self._fail(lines[-1])

    def _after_envelope(self, lines: list[bytes]) -> None:
        for line in lines:
            if line[:1] not in (b"2", b"3"):
                self._fail(line)
                return
        self._lines += len(lines)
        if self._lines == 3:
            self.state = BODY
            self._send(self._body)
            self._dot_at = time.monotonic()

    def _after_dot(self, line: bytes) -> None:
        if not line.startswith(b"250"):
            self._fail(line)
            return
        self.latencies.append(time.monotonic() - self._dot_at)
        self.state = READY

    def _fail(self, line: bytes) -> None:
        self.failures.append(line)
        self.close()

    def close(self) -> None:
        if self.state == CLOSED:
            return
        self.state = CLOSED
        try:
            self.sock.send(b"QUIT\r\n")
        except OSError:
            pass
        self.sock.close()


def saturate(
    host: str, port: int, *, sessions: int, seconds: float, size: int, recipient: bytes = RECIPIENT, limit: int = 0
) -> dict[str, Any]:
    """Keeps `sessions` connections busy for `seconds` (or until `limit` messages); gives rate and latencies."""
    body = message_bytes(size) + b".\r\n"
    latencies: list[float] = []
    poll = select.epoll()
    live: dict[int, Session] = {}
    everyone = []
    for _ in range(sessions):
        session = Session((host, port), body, recipient, latencies)
        live[session.sock.fileno()] = session
        everyone.append(session)
        poll.register(session.sock, select.EPOLLIN)
    started = time.monotonic()
    deadline = started + seconds
    while live:
        now = time.monotonic()
        if now > deadline + 30.0:
            break
        go_on = now < deadline and not (limit and len(latencies) >= limit)
        for descriptor, _ in poll.poll(1.0):
            session = live[descriptor]
            if not session.readable():
                continue
            if session.state == READY and go_on:
                session.begin_message()
                continue
            session.close()
            del live[descriptor]
    elapsed_s = time.monotonic() - started
    for session in live.values():
        session.close()
    poll.close()
    failures = [line.decode("latin-1") for session in everyone for line in session.failures]
    return summary(latencies, elapsed_s, failures)


def probe(
    host: str, port: int, *, seconds: float, interval_s: float, size: int, recipient: bytes = RECIPIENT
) -> dict[str, Any]:
    """One healthy client that sends a message every `interval_s`."""
    body = message_bytes(size) + b".\r\n"
    latencies: list[float] = []
    session = Session((host, port), body, recipient, latencies)
    started = time.monotonic()
    while True:
        select.select([session.sock], [], [], 30.0)
        if not session.readable():
            continue
        if session.state == CLOSED or time.monotonic() > started + seconds:
            break
        if latencies:
            time.sleep(interval_s)
        session.begin_message()
    session.close()
    return summary(latencies, time.monotonic() - started, [line.decode("latin-1") for line in session.failures])


def quantile(sorted_values: list[float], q: float) -> float:
    return sorted_values[min(len(sorted_values) - 1, int(q * len(sorted_values)))] if sorted_values else float("nan")


def summary(latencies: list[float], elapsed_s: float, failures: list[str]) -> dict[str, Any]:
    ordered = sorted(latencies)
    return {
        "messages": len(ordered),
        "per_second": len(ordered) / elapsed_s if elapsed_s > 0 else 0.0,
        "p50_ms": quantile(ordered, 0.5) * 1000,
        "p99_ms": quantile(ordered, 0.99) * 1000,
        "max_ms": (ordered[-1] if ordered else float("nan")) * 1000,
        "failures": failures[:5],
        "failed": len(failures),
    }


def beside(host: str, port: int, *, sessions: int, seconds: float, interval_s: float, size: int) -> dict[str, Any]:
    """The prober beside the saturating connections: {"probe": ..., "load": ...}."""
    common = [host, str(port), "--size", str(size)]
    base = [sys.executable, "-m", "bench.load"]
    load = subprocess.Popen(
        [*base, "saturate", *common, "--sessions", str(sessions), "--seconds", str(seconds + 1.0)],
        stdout=subprocess.PIPE,
    )
    time.sleep(0.7)
    try:
        prober = subprocess.run(
            [*base, "probe", *common, "--seconds", str(seconds), "--interval", str(interval_s)],
            stdout=subprocess.PIPE,
            check=True,
            timeout=seconds + 60,
        )
        out, _ = load.communicate(timeout=60)
    finally:
        if load.poll() is None:
            load.kill()
            load.wait()
    return {"probe": json.loads(prober.stdout), "load": json.loads(out)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["saturate", "probe", "beside"])
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--sessions", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--interval", type=float, default=0.01)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--recipient", default=RECIPIENT.decode())
    options = parser.parse_args()
    where = (options.host, options.port)
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        "saturate": lambda: saturate(
            *where,
            sessions=options.sessions,
            seconds=options.seconds,
            size=options.size,
            recipient=options.recipient.encode(),
        ),
        "probe": lambda: probe(
            *where,
            seconds=options.seconds,
            interval_s=options.interval,
            size=options.size,
            recipient=options.recipient.encode(),
        ),
        "beside": lambda: beside(
            *where,
            sessions=options.sessions,
            seconds=options.seconds,
            interval_s=options.interval,
            size=options.size,
        ),
    }
    print(json.dumps(runs[options.mode]()))


if __name__ == "__main__":
    main()
