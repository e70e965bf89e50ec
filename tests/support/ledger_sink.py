"""A next hop that remembers: an SMTP server that has (id, recipient, digest) on stable storage before it answers 250.

    python -m tests.support.ledger_sink PORT FILE

A ledger message begins, below whatever trace fields were put on top, with the field `X-Ledger-Id`; its digest is that
of the bytes from there to the end. One line of FILE a recipient: id, recipient, SHA-256, blank-separated.
"""

import asyncio
import hashlib
import os
import sys
import time

FIELD = b"X-Ledger-Id: "


def ledger_entry(message: bytes) -> tuple[str, str] | None:
    """(id, hex digest) of a message as it was sent, or None if it is not one of the ledger's."""
    at = message.find(FIELD)
    if at < 0 or (at > 0 and message[at - 1 : at] != b"\n"):
        return None
    original = message[at:]
    return original[len(FIELD) :].split(b"\r\n", 1)[0].decode("ascii"), hashlib.sha256(original).hexdigest()


class LedgerFile:
    """Appends lines, each call durable when it returns."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, *lines: str) -> None:
        os.write(self._descriptor, "".join(line + "\n" for line in lines).encode("ascii"))
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)


class AnswerFile:
    """Who was answered when, by the clock that all processes share, as lines `id recipient seconds`; not durable, since
    nobody promises it.
    """

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def add(self, answered: list[tuple[str, str]]) -> None:
        """`answered`: (id, recipient)."""
        at = time.monotonic()
        os.write(self._descriptor, "".join(f"{each[0]} {each[1]} {at:.6f}\n" for each in answered).encode("ascii"))


class SinkSession(asyncio.Protocol):
    """As much SMTP as a client of ours needs: EHLO, HELO, MAIL, RCPT, DATA, RSET, NOOP, QUIT; pipelining."""

    def __init__(self, ledger: LedgerFile, answers: AnswerFile) -> None:
        self._ledger = ledger
        self._answers = answers
        self._kept: list[tuple[str, str]] = []
        self._buffer = b""
        self._recipients: list[str] = []
        self._in_data = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError("not a stream")
        self._transport = transport
        transport.write(b"220 sink.example.test ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        replies = []
        while True:
            if self._in_data:
                message = self._whole_message()
                if message is None:
                    break
                replies.append(self._accept(message))
                continue
            line, found, rest = self._buffer.partition(b"\r\n")
            if not found:
                break
            self._buffer = rest
            replies.append(self._command(line))
        if replies and not self._transport.is_closing():
            self._transport.write(b"".join(replies))
            if self._kept:
                self._answers.add(self._kept)
                self._kept = []
        if replies and replies[-1].startswith(b"221"):
            self._transport.close()

    def _whole_message(self) -> bytes | None:
        if self._buffer.startswith(b".\r\n"):
            raw, self._buffer = b"", self._buffer[3:]
        else:
            end = self._buffer.find(b"\r\n.\r\n")
            if end < 0:
                return None
            raw, self._buffer = self._buffer[: end + 2], self._buffer[end + 5 :]
        self._in_data = False
        lines = raw.split(b"\r\n")
        return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines)

    def _accept(self, message: bytes) -> bytes:
        entry = ledger_entry(message)
        recipients, self._recipients = self._recipients, []
        if entry is not None:
            self._ledger.add(*(f"{entry[0]} {recipient} {entry[1]}" for recipient in recipients))
            self._kept.extend((entry[0], recipient) for recipient in recipients)
        return b"250 2.0.0 kept\r\n"

    def _command(self, line: bytes) -> bytes:
        verb, _, rest = line.partition(b" ")
        match verb.upper():
            case b"EHLO":
                return b"250-sink.example.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 0\r\n"
            case b"HELO" | b"NOOP":
                return b"250 2.0.0 OK\r\n"
            case b"MAIL" | b"RSET":
                self._recipients = []
                return b"250 2.1.0 OK\r\n"
            case b"RCPT":
                path = rest[rest.find(b"<") + 1 : rest.find(b">")]
                self._recipients.append(path.decode("ascii").lower())
                return b"250 2.1.5 OK\r\n"
            case b"DATA":
                if not self._recipients:
                    return b"503 5.5.1 no recipients\r\n"
                self._in_data = True
                return b"354 go on\r\n"
            case b"QUIT":
                return b"221 2.0.0 bye\r\n"
            case _:
                return b"502 5.5.2 not here\r\n"


async def serve(port: int, path: str) -> None:
    ledger = LedgerFile(path)
    answers = AnswerFile(path + ".answered")
    server = await asyncio.get_running_loop().create_server(
        lambda: SinkSession(ledger, answers), "127.0.0.1", port, backlog=512
    )
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
    except KeyboardInterrupt:
        sys.exit(0)
