"""Locust users over plain sockets: people who send mail, and people who read it. As written it works beside `make run`.

    locust -f bench/locustfile.py --headless -u 50 -r 10 -t 30s            # everybody
    locust -f bench/locustfile.py --headless -u 20 -r 5 -t 30s Submitter ImapReader
    FASTMTA_IMAPS=mx.example.test:993 FASTMTA_USER=bill@example.test FASTMTA_PASSWORD=... locust -f bench/locustfile.py

Every answer is checked; one that is not expected is a failure of its step, with the server's words. Where a service has
no address (FASTMTA_LMTP="" say) its users do nothing. Addresses are variables:
FASTMTA_SMTP, _SUBMISSION, _SUBMISSIONS, _LMTP, _IMAP, _IMAPS, _POP3, _POP3S.

Locust shows distributions under a realistic mix; it tops out long before the server does, so peaks are the business of
bench/native/smtp_load.c.
"""

import base64
import os
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, ClassVar

from locust import User, between, events, tag, task

from bench.load import message_bytes

_DEMO = {
    "SMTP": "127.0.0.1:2525",
    "SUBMISSION": "127.0.0.1:2587",
    "SUBMISSIONS": "127.0.0.1:2465",
    "LMTP": "127.0.0.1:2424",
    "IMAP": "127.0.0.1:2143",
    "IMAPS": "127.0.0.1:2993",
    "POP3": "127.0.0.1:2110",
    "POP3S": "127.0.0.1:2995",
}
USER = os.environ.get("FASTMTA_USER", "alice@example.test")
PASSWORD = os.environ.get("FASTMTA_PASSWORD", "demo")
RECIPIENT = os.environ.get("FASTMTA_RECIPIENT", USER)
TIMEOUT_S = 30.0
_TLS = ssl.create_default_context()
_TLS.check_hostname = False  # the demo's certificate is its own
_TLS.verify_mode = ssl.CERT_NONE


def address(service: str) -> tuple[str, int] | None:
    """Where a service is, or None where nobody said so."""
    host, _, port = os.environ.get(f"FASTMTA_{service}", _DEMO[service]).rpartition(":")
    return (host.strip("[]"), int(port)) if host else None


class UnexpectedAnswer(Exception):
    """The server said something else than the step expects."""


class LineSocket:
    """A blocking socket that speaks in lines; gevent makes it a green one under locust."""

    def __init__(self, where: tuple[str, int], *, tls: bool = False) -> None:
        self._sock: socket.socket = socket.create_connection(where, timeout=TIMEOUT_S)
        if tls:
            self._sock = _TLS.wrap_socket(self._sock)
        self._file = self._sock.makefile("rb")

    def start_tls(self) -> None:
        """The handshake, after the server has agreed to it."""
        self._file.close()
        self._sock = _TLS.wrap_socket(self._sock)
        self._file = self._sock.makefile("rb")

    def say(self, data: bytes) -> None:
        self._sock.sendall(data)

    def reply(self, expected: bytes) -> bytes:
        """An SMTP reply whose every line has the code `expected`; any other raises UnexpectedAnswer."""
        read = b""
        while True:
            line = self._line()
            read += line
            if not line.startswith(expected):
                raise UnexpectedAnswer(f"expected {expected!r}, got {line!r}")
            if line[3:4] != b"-":
                return read

    def command(self, data: bytes, expected: bytes) -> bytes:
        """An SMTP command and its reply."""
        self.say(data + b"\r\n")
        return self.reply(expected)

    def imap(self, command: bytes, needs: bytes = b"") -> bytes:
        """An IMAP command that must end in OK, and whose answer must hold `needs`. Literals are taken by their size."""
        self.say(b"a " + command + b"\r\n")
        read = b""
        while True:
            line = self._line()
            read += line
            if line.endswith(b"}\r\n") and line.startswith(b"*"):
                read += self._exactly(int(line[line.rindex(b"{") + 1 : -3]))
            elif line.startswith(b"a "):
                if line.startswith(b"a NO [EXPUNGEISSUED]"):
                    return read  # another user of the account has deleted some meanwhile (RFC 5530)
                if not line.startswith(b"a OK"):
                    raise UnexpectedAnswer(f"{command[:40]!r}: {line!r}")
                break
        if needs not in read:
            raise UnexpectedAnswer(f"{command[:40]!r}: no {needs!r} in {read[:80]!r}")
        return read

    def pop3(self, command: bytes, *, many: bool = False) -> bytes:
        """A POP3 command that must be answered with +OK; `many` reads on to the final dot. b"": the greeting."""
        if command:
            self.say(command + b"\r\n")
        read = line = self._line()
        if not line.startswith(b"+OK"):
            raise UnexpectedAnswer(f"{command[:40]!r}: {line!r}")
        while many and line != b".\r\n":
            line = self._line()
            read += line
        return read

    def close(self) -> None:
        self._file.close()
        self._sock.close()

    def _line(self) -> bytes:
        line = self._file.readline()
        if not line.endswith(b"\n"):
            raise UnexpectedAnswer(f"the server ended the connection after {line!r}")
        return line

    def _exactly(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) != size:
            raise UnexpectedAnswer(f"{len(data)} octets came of a literal of {size}")
        return data


class SocketUser(User):  # type: ignore[misc]
    """Runs one conversation a task, each step timed and reported. A failed step ends the conversation."""

    abstract = True
    service: ClassVar[str] = ""
    tls_first: ClassVar[bool] = False

    def converse(self, talk: Callable[[LineSocket], None], greet: Callable[[LineSocket], Any]) -> None:
        where = address(self.service)
        if where is None:
            return
        opened: list[LineSocket] = []

        def connect() -> bytes:
            opened.append(LineSocket(where, tls=self.tls_first))
            return bytes(greet(opened[0]))

        try:
            self.step("connect", connect)
            talk(opened[0])
        except (OSError, UnexpectedAnswer):
            pass  # told by step()
        finally:
            for line in opened:
                line.close()

    def step(self, name: str, act: Callable[[], bytes | None], size: int = 0) -> bytes:
        """Times `act`, tells locust, and raises what it raised."""
        started = time.perf_counter()
        failure: Exception | None = None
        answer = b""
        try:
            answer = act() or b""
        except (OSError, UnexpectedAnswer) as error:
            failure = error
        events.request.fire(
            request_type=self.service,
            name=name,
            response_time=(time.perf_counter() - started) * 1000,
            response_length=size or len(answer),
            exception=failure,
            context={},
        )
        if failure is not None:
            raise failure
        return answer


class MailUser(SocketUser):
    """What all that speak SMTP or LMTP have in common."""

    abstract = True
    wait_time = between(0.1, 0.5)
    sender: ClassVar[str] = "locust@bench.example"
    hello: ClassVar[bytes] = b"EHLO locust.bench.example"

    def send(self, sizes: list[int]) -> None:
        def talk(line: LineSocket) -> None:
            self.step("hello", lambda: line.command(self.hello, b"250"))
            self.prepare(line)
            for size in sizes:
                self.step("envelope", lambda: self._envelope(line))
                self.step(f"dot {size // 1024} KB", lambda size=size: self._message(line, size), size)  # type: ignore[misc]
            self.step("quit", lambda: line.command(b"QUIT", b"221"))

        self.converse(talk, lambda line: line.reply(b"220"))

    def prepare(self, line: LineSocket) -> None:
        """What stands between the greeting and the first envelope."""

    def _envelope(self, line: LineSocket) -> bytes:
        line.command(f"MAIL FROM:<{self.sender}>".encode(), b"250")
        line.command(f"RCPT TO:<{RECIPIENT}>".encode(), b"250")
        return line.command(b"DATA", b"354")

    def _message(self, line: LineSocket, size: int) -> bytes:
        line.say(message_bytes(size) + b".\r\n")
        return line.reply(b"250")

    def login(self, line: LineSocket) -> None:
        """AUTH PLAIN, once it is safe."""
        plain = base64.b64encode(f"\0{USER}\0{PASSWORD}".encode())
        self.step("AUTH", lambda: line.command(b"AUTH PLAIN " + plain, b"235"))


class Sender(MailUser):
    """A server that brings mail: one or several messages a connection, 4 KB or 50 KB."""

    service = "SMTP"

    @tag("smtp")
    @task(4)
    def one_small_message(self) -> None:
        self.send([4096])

    @tag("smtp")
    @task(1)
    def one_large_message(self) -> None:
        self.send([51_200])

    @tag("smtp")
    @task(1)
    def several_messages(self) -> None:
        self.send([4096] * 5)


class Submitter(MailUser):
    """A mail program that sends: STARTTLS, a login, one message."""

    service = "SUBMISSION"
    sender = USER

    def prepare(self, line: LineSocket) -> None:
        self.step("STARTTLS", lambda: line.command(b"STARTTLS", b"220"))
        self.step("handshake", line.start_tls)  # type: ignore[arg-type]
        self.step("hello", lambda: line.command(self.hello, b"250"))
        self.login(line)

    @tag("submission", "tls")
    @task
    def one_message(self) -> None:
        self.send([4096])


class ImplicitSubmitter(MailUser):
    """The same over a port that begins with TLS."""

    service = "SUBMISSIONS"
    sender = USER
    tls_first = True

    def prepare(self, line: LineSocket) -> None:
        self.login(line)

    @tag("submission", "tls")
    @task
    def one_message(self) -> None:
        self.send([4096])


class LmtpSender(MailUser):
    """A filter or another MTA that hands mail over by LMTP."""

    service = "LMTP"
    hello = b"LHLO locust.bench.example"

    @tag("lmtp")
    @task
    def two_messages(self) -> None:
        self.send([4096, 4096])


class ImapReader(SocketUser):
    """Logs in, looks at the newest messages, reads one, flags it, leaves."""

    service = "IMAP"
    wait_time = between(0.5, 1.5)

    @tag("imap")
    @task
    def look_at_the_mailbox(self) -> None:
        self.converse(self._look, lambda line: self._greeting(line))

    def _greeting(self, line: LineSocket) -> bytes:
        read = line._line()
        if not read.startswith(b"* OK"):
            raise UnexpectedAnswer(repr(read))
        return read

    def _look(self, line: LineSocket) -> None:
        login = f'LOGIN "{USER}" "{PASSWORD}"'.encode()
        self.step("LOGIN", lambda: line.imap(login))
        selected = self.step("SELECT", lambda: line.imap(b"SELECT INBOX", b" EXISTS"))
        count = next(int(word[2:-7]) for word in selected.split(b"\r\n") if word.endswith(b" EXISTS"))
        if count:
            first = max(1, count - 19)
            listing = b"FETCH %d:* (UID FLAGS ENVELOPE)" % first
            self.step("FETCH envelopes", lambda: line.imap(listing, b"ENVELOPE ("))
            self.step("FETCH body", lambda: line.imap(b"FETCH %d (BODY.PEEK[])" % count, b"BODY[] {"))
            self.step("STORE", lambda: line.imap(b"STORE %d +FLAGS (\\Seen)" % count))
            self.step("SEARCH", lambda: line.imap(b"SEARCH UNSEEN", b"* SEARCH"))
        self.step("LOGOUT", lambda: line.imap(b"LOGOUT", b"* BYE"))


class ImplicitImapReader(ImapReader):
    """The same over TLS."""

    service = "IMAPS"
    tls_first = True


class Pop3Reader(SocketUser):
    """Fetches what is there and deletes the oldest message; one such user a mailbox at a time has the lock."""

    service = "POP3"
    wait_time = between(1.0, 3.0)
    fixed_count = 1

    @tag("pop3")
    @task
    def fetch_mail(self) -> None:
        self.converse(self._fetch, lambda line: line.pop3(b""))

    def _fetch(self, line: LineSocket) -> None:
        self.step("USER", lambda: line.pop3(f"USER {USER}".encode()))
        self.step("PASS", lambda: line.pop3(f"PASS {PASSWORD}".encode()))
        count = int(self.step("STAT", lambda: line.pop3(b"STAT")).split()[1])
        self.step("UIDL", lambda: line.pop3(b"UIDL", many=True))
        if count:
            self.step("RETR", lambda: line.pop3(b"RETR %d" % count, many=True))
            self.step("DELE", lambda: line.pop3(b"DELE 1"))
        self.step("QUIT", lambda: line.pop3(b"QUIT"))


class ImplicitPop3Reader(Pop3Reader):
    """The same over TLS; by itself only where it is asked for, since a maildrop has one reader."""

    service = "POP3S"
    tls_first = True
    fixed_count = 0
    weight = 0
