"""Throws damaged commands at a whole POP3 session; see harness.py for options."""

import asyncio
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fuzz.harness import AsyncTarget, main
from tests.imap.harness import FakeTransport
from tests.pop3.fakes import Running

LOGIN = b"USER bill\r\nPASS secret word\r\n"
COMMANDS = [
    b"STAT\r\nLIST\r\nUIDL\r\nNOOP\r\n",
    b"RETR 1\r\nTOP 2 0\r\nTOP 3 999999999999\r\n",
    b"DELE 1\r\nRSET\r\nQUIT\r\n",
    b"CAPA\r\nSTLS\r\n",
    b"AUTH PLAIN AGJpbGwAc2VjcmV0IHdvcmQ=\r\n",
    b"AUTH LOGIN\r\nYmlsbA==\r\n*\r\n",
    b"LIST 1\r\nUIDL 2\r\nLIST -1\r\nUIDL 0\r\n",
    b"USER x\r\nPASS y\r\n",
    b"APOP bill 00\r\n",
    b"LAST\r\nXTND\r\nUTF8\r\nLANG *\r\n",
]


class Pop3(AsyncTarget):
    corpus = (*COMMANDS, LOGIN)
    tokens = (
        b"RETR ",
        b"TOP 1 ",
        b"DELE ",
        b"4294967296",
        b"18446744073709551616",
        b"-1",
        b"RETR 1\r\n",
        b"NOOP\r\n",
        b"AUTH PLAIN ",
    )

    async def start(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self.running = await Running(Path(self._directory.name)).__aenter__()

    async def hold(self, data: bytes) -> None:
        running = self.running
        missing = 20 - len(running.flags())
        await running.fill(*[b"Subject: %d\r\n\r\n.\r\n..x\r\nlast" % number for number in range(missing)])
        running.authenticator.remembers = len(data) % 2 == 0
        protocol = running.server.factory("pop3")()
        transport = FakeTransport()
        transport.protocol = protocol
        protocol.connection_made(transport)
        for piece in (LOGIN if len(data) % 3 else b"", data[: len(data) // 2], data[len(data) // 2 :]):
            if not transport.closed:
                protocol.data_received(piece)
            await self.settle()
        out = bytes(transport.out)
        if b"unexpected" in out.lower() or b"internal" in out.lower():
            raise AssertionError(f"an unexpected error: {out[-300:]!r}")
        for line in out.split(b"\r\n")[:1]:
            if not line.startswith((b"+OK", b"-ERR")):
                raise AssertionError(f"a reply begins {line!r}")
        transport.close()
        await self.settle()
        if list(running.server.connections):
            raise AssertionError("a connection is left")

    async def settle(self) -> None:
        for _ in range(12):
            await asyncio.sleep(0)
        while self.running.services.turns.waiting:  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def stop(self) -> None:
        await self.running.__aexit__()
        self._directory.cleanup()


if __name__ == "__main__":
    raise SystemExit(main(Pop3, __doc__))
