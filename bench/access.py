"""Load of people who read mail: scripts of IMAP and POP3 clients, many at once in one process over epoll.

A script is a generator: it yields what to send and the beginning of the line that ends the answer, and is resumed with
the answer's last line. What comes before that line is counted, not kept: the client must cost little beside a server
that streams at hundreds of megabytes a second.
"""

import random
import select
import socket
import time
from collections.abc import Callable, Generator, Sequence
from typing import NamedTuple

from bench.load import message_bytes

Script = Generator[tuple[bytes, bytes], bytes, None]
_READ_BYTES = 1 << 18
_TAIL_BYTES = 2048
MESSAGE_BYTES = 4096
_LETTERS = b"eeettaaooiinnsshhrrddlu"
_WORDS = [bytes(random.Random(number).choices(_LETTERS, k=2 + number % 9)) for number in range(5000)]


class Account(NamedTuple):
    user: bytes
    password: bytes


class ScriptFailed(RuntimeError):
    """A server answered otherwise than the script expects."""


class _Client:
    __slots__ = ("address", "expected", "received", "script", "sock", "tail")

    def __init__(self, address: tuple[str, int], script: Script) -> None:
        self.address = address
        self.script = script
        self.sock = socket.create_connection(address, timeout=30.0)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.tail = b""
        self.received = 0
        _, self.expected = next(script)  # the greeting: nothing to send

    def readable(self) -> bool:
        """Takes what has come; False when the script has ended."""
        try:
            data = self.sock.recv(_READ_BYTES)
        except BlockingIOError:
            return True
        if not data:
            raise ScriptFailed(f"closed while waiting for {self.expected!r} after {self.tail[-200:]!r}")
        self.received += len(data)
        self.tail = (self.tail + data)[-_TAIL_BYTES:] if len(data) < _TAIL_BYTES else data[-_TAIL_BYTES:]
        if not self.tail.endswith(b"\r\n"):
            return True
        line = self.tail[self.tail.rfind(b"\r\n", 0, -2) + 2 :] if self.tail.count(b"\r\n") > 1 else self.tail
        if not line.startswith(self.expected):
            self._complain(line)
            return True
        self.tail = b""
        try:
            out, self.expected = self.script.send(line)
        except StopIteration:
            return False
        self._send(out)
        return True

    def _complain(self, line: bytes) -> None:
        """An answer to this very command that is not the expected one would be waited out in vain."""
        tag = self.expected.split(b" ")[0]
        if line.startswith((tag + b" NO", tag + b" BAD", b"-ERR")):
            raise ScriptFailed(f"expected {self.expected!r}, got {line!r}")

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self.sock.send(view) :]
            except BlockingIOError:
                select.select([], [self.sock], [], 30.0)


class Outcome(NamedTuple):
    elapsed_s: float
    received_bytes: int


def run(address: tuple[str, int], scripts: Sequence[Callable[[], Script]], timeout_s: float = 300.0) -> Outcome:
    """Runs every script on a connection of its own, all at once, until the last has ended."""
    clients: dict[int, _Client] = {}
    poll = select.epoll()
    received = 0
    started = time.monotonic()
    try:
        for make in scripts:
            client = _Client(address, make())
            clients[client.sock.fileno()] = client
            poll.register(client.sock, select.EPOLLIN)
        while clients:
            if time.monotonic() - started > timeout_s:
                raise ScriptFailed(f"{len(clients)} scripts have not ended after {timeout_s} s")
            for descriptor, _ in poll.poll(1.0):
                client = clients[descriptor]
                if not client.readable():
                    received += client.received
                    client.sock.close()
                    del clients[descriptor]
    finally:
        for client in clients.values():
            client.sock.close()
        poll.close()
    return Outcome(time.monotonic() - started, received)


# --- IMAP ---


def _imap_login(account: Account) -> Script:
    yield b"", b"* OK"
    yield b"a LOGIN %s %s\r\n" % account, b"a OK"


def imap_login(account: Account) -> Script:
    """One session that logs in and out."""
    yield from _imap_login(account)
    yield b"z LOGOUT\r\n", b"z OK"


def imap_fill(account: Account, count: int, size: int = MESSAGE_BYTES) -> Script:
    """Appends `count` messages to INBOX, with a synchronising literal each, as most clients do."""
    body = message_bytes(size)
    yield from _imap_login(account)
    for number in range(count):
        head = b"Subject: message %d\r\n" % number
        message = head + body[: size - len(head) - 2] + b"\r\n"
        yield b"b APPEND INBOX {%d}\r\n" % len(message), b"+"
        yield message + b"\r\n", b"b OK"
    yield b"z LOGOUT\r\n", b"z OK"


def imap_fill_words(account: Account, count: int, size: int = MESSAGE_BYTES) -> Script:
    """Appends `count` messages of words to INBOX; each has one of its own, "unique" with its number and a dot."""
    yield from _imap_login(account)
    for number in range(count):
        rng = random.Random(number)
        out = b"Subject: message %d\r\n\r\nunique%d.\r\n" % (number, number)
        while len(out) < size:
            out += b" ".join(rng.choices(_WORDS, k=12)) + b"\r\n"
        yield b"b APPEND INBOX {%d}\r\n" % len(out), b"+"
        yield out + b"\r\n", b"b OK"
    yield b"z LOGOUT\r\n", b"z OK"


def imap_search(account: Account, count: int, times: int) -> Script:
    """SEARCH TEXT of a word that one of `count` messages has, `times` over, each time another one."""
    yield from _imap_login(account)
    yield b"b SELECT INBOX\r\n", b"b OK"
    for number in range(times):
        yield b"c SEARCH TEXT unique%d.\r\n" % (number * 7 % count), b"c OK"
    yield b"z LOGOUT\r\n", b"z OK"


def imap_fetch(account: Account, items: bytes, times: int) -> Script:
    """SELECT, then FETCH 1:* of `items`, `times` over."""
    yield from _imap_login(account)
    yield b"b SELECT INBOX\r\n", b"b OK"
    for _ in range(times):
        yield b"c FETCH 1:* (%s)\r\n" % items, b"c OK"
    yield b"z LOGOUT\r\n", b"z OK"


def imap_store(account: Account, count: int) -> Script:
    """Sets and clears \\Flagged on single messages, one command each."""
    yield from _imap_login(account)
    yield b"b SELECT INBOX\r\n", b"b OK"
    for number in range(count):
        sign = b"+" if number % 2 == 0 else b"-"
        yield b"d STORE %d %sFLAGS.SILENT (\\Flagged)\r\n" % (number // 2 + 1, sign), b"d OK"
    yield b"z LOGOUT\r\n", b"z OK"


def imap_empty(account: Account) -> Script:
    """Deletes all of INBOX."""
    yield from _imap_login(account)
    yield b"b SELECT INBOX\r\n", b"b OK"
    yield b"c NOOP\r\n", b"c OK"
    yield b"d UID STORE 1:* +FLAGS.SILENT (\\Deleted)\r\n", b"d OK"
    yield b"e EXPUNGE\r\n", b"e OK"
    yield b"z LOGOUT\r\n", b"z OK"


# --- POP3 ---


def pop3_drain(account: Account, count: int) -> Script:
    """Reads and deletes `count` messages, each RETR and DELE answered before the next."""
    yield b"", b"+OK"
    yield b"USER %s\r\n" % account.user, b"+OK"
    yield b"PASS %s\r\n" % account.password, b"+OK"
    for number in range(1, count + 1):
        yield b"RETR %d\r\n" % number, b".\r\n"
        yield b"DELE %d\r\n" % number, b"+OK"
    yield b"QUIT\r\n", b"+OK"
