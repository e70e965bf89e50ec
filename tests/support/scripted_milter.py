"""A milter that does as it is told: what it negotiates, and what it answers to which command."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

Answers = dict[bytes, bytes]


def packet(letter: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data) + 1) + letter + data


def terms(actions: int = 0x131, steps: int = 0x100000, version: int = 6, more: bytes = b"") -> bytes:
    return packet(b"O", struct.pack(">III", version, actions, steps) + more)


CONTINUE = packet(b"c")


class ScriptedMilter:
    """`seen` has all commands, macros too. `answers`: raw octets by a command's letter or all of it, else continue."""

    def __init__(self, answers: Answers, offer: bytes, silent: bytes) -> None:
        self._answers = answers
        self._offer = offer
        self._silent = silent
        self.seen: list[tuple[bytes, bytes]] = []
        self.connections: list[asyncio.StreamWriter] = []

    def letters(self) -> str:
        return "".join(letter.decode() for letter, _ in self.seen if letter != b"D")

    def data(self, command: bytes) -> list[bytes]:
        return [data for letter, data in self.seen if letter == command]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        try:
            while True:
                (octets,) = struct.unpack(">I", await reader.readexactly(4))
                raw = await reader.readexactly(octets)
                self.seen.append((raw[:1], raw[1:]))
                if raw[:1] == b"O":
                    writer.write(self._offer)
                elif (answer := self._answers.get(raw, self._answers.get(raw[:1]))) is not None:
                    writer.write(answer)
                    if answer == b"":  # closes
                        writer.close()
                        return
                elif raw[:1] not in b"DQ" + self._silent:
                    writer.write(CONTINUE)
        except (asyncio.IncompleteReadError, ConnectionError):
            return


@asynccontextmanager
async def scripted_milter(
    path: Path, answers: Answers | None = None, *, offer: bytes | None = None, silent: bytes = b""
) -> AsyncIterator[ScriptedMilter]:
    milter = ScriptedMilter(answers or {}, terms() if offer is None else offer, silent)
    server = await asyncio.start_unix_server(milter.serve, str(path))
    try:
        yield milter
    finally:
        server.close()
        for each in milter.connections:
            each.close()
        await asyncio.sleep(0)
