"""Locust users over plain sockets: people who send mail, and people who read it.

    locust -f bench/locustfile.py --headless -u 50 -r 10 -t 30s
    FASTMTA_SMTP=127.0.0.1:2525 FASTMTA_IMAP=127.0.0.1:1143 \\
    FASTMTA_USER=alice@example.test FASTMTA_PASSWORD=alice locust -f bench/locustfile.py

Locust shows distributions under a realistic mix; it tops out long before the server does, so peaks are the business of
bench/load.py. Without addresses the ports of `make run` are meant.
"""

import os
import socket
import time
from collections.abc import Callable
from typing import Any

from locust import User, between, events, tag, task

from bench.load import message_bytes


def _address(variable: str, default: str) -> tuple[str, int]:
    host, _, port = os.environ.get(variable, default).rpartition(":")
    return host.strip("[]"), int(port)


SMTP = _address("FASTMTA_SMTP", "127.0.0.1:2525")
IMAP = _address("FASTMTA_IMAP", "127.0.0.1:1143")
USER = os.environ.get("FASTMTA_USER", "alice@example.test")
PASSWORD = os.environ.get("FASTMTA_PASSWORD", "alice")
RECIPIENT = os.environ.get("FASTMTA_RECIPIENT", USER)


class UnexpectedAnswer(Exception):
    """The server said something else than the step expects."""


class LineSocket:
    """A blocking socket that speaks in lines; gevent makes it a green one under locust."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._sock = socket.create_connection(address, timeout=30.0)
        self._file = self._sock.makefile("rb")

    def ask(self, data: bytes, expected: bytes, more: bytes = b"") -> bytes:
        """Sends `data`, reads up to a line that begins with `expected`; `more` begins lines to be passed over.

        Any other line raises UnexpectedAnswer. Gives all that was read.
        """
        if data:
            self._sock.sendall(data)
        read = []
        while True:
            line = self._file.readline()
            read.append(line)
            if line.startswith(expected):
                return b"".join(read)
            if not line or (more and not line.startswith(more)):
                raise UnexpectedAnswer(f"expected {expected!r}, got {line!r}")

    def close(self) -> None:
        self._file.close()
        self._sock.close()


class SocketUser(User):  # type: ignore[misc]
    """Times steps and reports them to locust."""

    abstract = True
    kind = ""

    def timed(self, name: str, step: Callable[[], Any], size: int = 0) -> bool:
        started = time.perf_counter()
        failure: Exception | None = None
        try:
            answer = step()
            size = size or len(answer or b"")
        except (OSError, UnexpectedAnswer) as error:
            failure = error
        events.request.fire(
            request_type=self.kind,
            name=name,
            response_time=(time.perf_counter() - started) * 1000,
            response_length=size,
            exception=failure,
            context={},
        )
        return failure is None


class Sender(SocketUser):
    """Sends one or several messages a connection, 4 KB or 50 KB."""

    kind = "SMTP"
    wait_time = between(0.1, 0.5)

    @tag("smtp")
    @task(4)
    def one_small_message(self) -> None:
        self._send([4096])

    @tag("smtp")
    @task(1)
    def one_large_message(self) -> None:
        self._send([51_200])

    @tag("smtp")
    @task(1)
    def several_messages(self) -> None:
        self._send([4096] * 5)

    def _send(self, sizes: list[int]) -> None:
        opened: list[LineSocket] = []
        try:
            if not self.timed("connect", lambda: self._hello(opened)):
                return
            line = opened[0]
            for size in sizes:
                body = message_bytes(size) + b".\r\n"
                if not self.timed("envelope", lambda: self._envelope(line)):
                    return
                if not self.timed(f"dot {size // 1024} KB", lambda body=body: line.ask(body, b"250"), size):  # type: ignore[misc]
                    return
            self.timed("quit", lambda: line.ask(b"QUIT\r\n", b"221"))
        finally:
            for line in opened:
                line.close()

    def _hello(self, opened: list[LineSocket]) -> bytes:
        line = LineSocket(SMTP)
        opened.append(line)
        line.ask(b"", b"220 ", b"220-")
        return line.ask(b"EHLO locust.bench.example\r\n", b"250 ", b"250-")

    def _envelope(self, line: LineSocket) -> bytes:
        line.ask(b"MAIL FROM:<locust@bench.example>\r\n", b"250")
        line.ask(f"RCPT TO:<{RECIPIENT}>\r\n".encode(), b"250")
        return line.ask(b"DATA\r\n", b"354")


class Reader(SocketUser):
    """Logs in, looks at the newest messages, reads one, flags it, leaves."""

    kind = "IMAP"
    wait_time = between(0.5, 1.5)

    @tag("imap")
    @task
    def look_at_the_mailbox(self) -> None:
        opened: list[LineSocket] = []
        try:
            if not self.timed("connect", lambda: self._greet(opened)):
                return
            line = opened[0]
            steps = [
                ("LOGIN", f'a LOGIN "{USER}" "{PASSWORD}"\r\n'.encode(), b"a OK"),
                ("SELECT", b"b SELECT INBOX\r\n", b"b OK"),
                ("FETCH envelopes", b"c FETCH 1:20 (UID FLAGS ENVELOPE)\r\n", b"c "),
                ("FETCH body", b"d FETCH 1 (BODY.PEEK[])\r\n", b"d "),
                ("STORE", b"e STORE 1 +FLAGS.SILENT (\\Seen)\r\n", b"e "),
                ("SEARCH", b"f SEARCH UNSEEN\r\n", b"f OK"),
                ("LOGOUT", b"g LOGOUT\r\n", b"g OK"),
            ]
            for name, command, expected in steps:
                if not self.timed(name, lambda c=command, e=expected: line.ask(c, e)):  # type: ignore[misc]
                    return
        finally:
            for line in opened:
                line.close()

    def _greet(self, opened: list[LineSocket]) -> bytes:
        line = LineSocket(IMAP)
        opened.append(line)
        return line.ask(b"", b"* OK")
