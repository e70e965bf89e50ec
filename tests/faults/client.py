"""A client that holds the server to its word: what was answered 250 is on this client's disk before the next message.

Every message has an id of its own, is sent once and never again, whatever becomes of it, so a second copy in a mailbox
can only be the server's doing.
"""

import hashlib
import random
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from tests.support.ledger_sink import FIELD, LedgerFile

RECONNECT_S = 0.02
SOCKET_TIMEOUT_S = 60.0


class Ledger:
    """What was sent (in memory) and what was promised (on disk, one `id recipient digest` a line)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sent: dict[str, str] = {}  # id -> digest, from before the first byte of DATA
        self.promised: list[tuple[str, str, str]] = []
        self.promised_at: list[float] = []  # time.monotonic() of the same entries, when the 250 had been read
        self.refused: list[str] = []
        self._file = LedgerFile(str(path))
        self._lock = threading.Lock()
        self._next = 0

    def begin(self, body: bytes) -> tuple[str, bytes]:
        """A fresh id, and the message that bears it."""
        with self._lock:
            self._next += 1
            identifier = f"m{self._next:08d}"
        message = FIELD + identifier.encode() + b"\r\n" + body
        digest = hashlib.sha256(message).hexdigest()
        with self._lock:
            self.sent[identifier] = digest
        return identifier, message

    def promise(self, identifier: str, recipients: Sequence[str]) -> None:
        at = time.monotonic()
        entries = [(identifier, recipient, self.sent[identifier]) for recipient in recipients]
        with self._lock:
            self._file.add(*(" ".join(entry) for entry in entries))
            self.promised.extend(entries)
            self.promised_at.extend([at] * len(entries))

    def refuse(self, reply: bytes) -> None:
        with self._lock:
            self.refused.append(reply.decode("latin-1").strip())

    def close(self) -> None:
        self._file.close()


class Client(threading.Thread):
    """Sends until told to stop, and connects anew whenever the server goes away."""

    def __init__(
        self,
        address: tuple[str, int],
        ledger: Ledger,
        recipients: Sequence[str],
        seed: int,
        *,
        pipelined: bool,
        rate: float = 0.0,
    ) -> None:
        """`rate`: messages a second at most; 0: as fast as the server answers."""
        super().__init__(name=f"ledger-client-{seed}", daemon=True)
        self._address = address
        self._ledger = ledger
        self._recipients = recipients
        self._random = random.Random(seed)
        self._pipelined = pipelined
        self._interval_s = 1 / rate if rate else 0.0
        self._next_at = 0.0
        self._stopping = threading.Event()

    def stop(self) -> None:
        self._stopping.set()

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._session()
            except OSError:
                time.sleep(RECONNECT_S)

    def _session(self) -> None:
        with socket.create_connection(self._address, timeout=SOCKET_TIMEOUT_S) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            reader = sock.makefile("rb")
            if not _reply(reader).startswith(b"220"):
                return
            sock.sendall(b"EHLO client.example.test\r\n")
            if not _reply(reader).startswith(b"250"):
                return
            for _ in range(self._random.randint(1, 40)):
                self._keep_to_rate()
                if self._stopping.is_set() or not self._message(sock, reader):
                    break
            sock.sendall(b"QUIT\r\n")

    def _keep_to_rate(self) -> None:
        if self._interval_s:
            now = time.monotonic()
            self._next_at = max(self._next_at + self._interval_s, now - 1)  # what was missed by a kill is not made up
            self._stopping.wait(max(0.0, self._next_at - now))

    def _body(self) -> bytes:
        """Lines of every length, some that begin with dots, now and then a message of many chunks."""
        size = self._random.choice((200, 1_500, 4_000, 4_000, 4_000, 20_000, 90_000))
        if self._random.random() < 0.01:
            size = 700_000
        lines = [b"Subject: ledger", b"From: <client@client.example>", b""]
        length = 0
        while length < size:
            digits = b"%x" % self._random.getrandbits(self._random.randint(8, 280))
            line = self._random.choice((b"", b".", b"..")) + digits
            lines.append(line)
            length += len(line) + 2
        return b"\r\n".join(lines) + b"\r\n"

    def _message(self, sock: socket.socket, reader: BinaryIO) -> bool:
        """One transaction; False when this connection is of no more use."""
        chosen = self._random.sample(self._recipients, self._random.randint(1, min(3, len(self._recipients))))
        identifier, message = self._ledger.begin(self._body())
        commands = [b"MAIL FROM:<client@client.example>\r\n"]
        commands += [f"RCPT TO:<{recipient}>\r\n".encode() for recipient in chosen]
        commands.append(b"DATA\r\n")
        replies = []
        if self._pipelined:
            sock.sendall(b"".join(commands))
            replies = [_reply(reader) for _ in commands]
        else:
            for command in commands:
                sock.sendall(command)
                replies.append(_reply(reader))
        accepted = [name for name, reply in zip(chosen, replies[1:-1], strict=True) if reply.startswith(b"250")]
        if not replies[-1].startswith(b"354"):
            self._ledger.refuse(replies[-1])
            return False
        sock.sendall(stuffed(message) + b".\r\n")
        final = _reply(reader)
        if final.startswith(b"250"):
            self._ledger.promise(identifier, accepted)
            return True
        self._ledger.refuse(final)
        return False


def _reply(reader: BinaryIO) -> bytes:
    """The last line of one reply; OSError at the end of the connection."""
    while True:
        line = reader.readline()
        if not line.endswith(b"\n"):
            raise ConnectionResetError("the server has closed")
        if line[3:4] != b"-":
            return line


def stuffed(message: bytes) -> bytes:
    """`message` with a dot before every line that begins with one (RFC 5321 §4.5.2)."""
    return b"\r\n".join(b"." + line if line.startswith(b".") else line for line in message.split(b"\r\n"))
