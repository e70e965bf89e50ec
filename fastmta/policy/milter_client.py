"""One message shown to one milter: a connection of its own, from the negotiation to QUIT.

The filter has a time for each answer; progress begins it anew. Whatever goes wrong is MilterTrouble, and nothing that
the filter has asked for is carried out then.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Final

from fastmta.authentication.message import Field
from fastmta.config.milters import Milter
from fastmta.config.values import parse_peer
from fastmta.model.limits import MILTER_BODY_BYTES
from fastmta.model.reply import Reply
from fastmta.policy.milter import OFFER, Changes, MilterError, Steps, Terms, packet, packet_octets, parse_reply

_REJECTED: Final = Reply(550, "5.7.1", "Command rejected")
_NOT_NOW: Final = Reply(451, "4.7.1", "Service unavailable - try again later")
_SHUTDOWN: Final = Reply(451, "4.7.0", "Server closing connection")
Pause = Callable[[], Awaitable[None]]
_CONTENT: Final = frozenset({b"L", b"N", b"B", b"E"})


class MilterTrouble(Exception):
    """The filter cannot be asked, has not answered, or what it said is no answer."""


class Decided(Exception):
    """The filter has decided before the end: `word` is accept, discard, or refuse with its `reply`."""

    def __init__(self, word: str, reply: Reply | None = None) -> None:
        super().__init__(word)
        self.word = word
        self.reply = reply


class MilterConnection:
    """One connection."""

    def __init__(
        self,
        milter: Milter,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        macros: Mapping[str, str],
        pause: Pause,
    ) -> None:
        self._milter = milter
        self._pause = pause
        self._reader = reader
        self._writer = writer
        self.macros = dict(macros)
        self.terms: Terms

    @classmethod
    async def open(cls, milter: Milter, macros: Mapping[str, str], pause: Pause) -> "MilterConnection":
        """Connects and negotiates. `pause` lets others have their turn: a packet may be there, or have room, without
        any wait, and there may be many. Raises MilterTrouble.
        """
        host, port, path, *_ = parse_peer(milter.address)
        try:
            async with asyncio.timeout(milter.connect_timeout_s):
                if path:
                    reader, writer = await asyncio.open_unix_connection(path)
                else:
                    reader, writer = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError) as error:
            raise MilterTrouble(f"no connection: {error or 'time-out'}") from None
        made = cls(milter, reader, writer, macros, pause)
        try:
            await made._write(OFFER, milter.command_timeout_s)
            made.terms = Terms(*await made._packet(milter.command_timeout_s))
        except MilterError as error:
            writer.close()
            raise MilterTrouble(str(error)) from None
        except BaseException:
            writer.close()
            raise
        return made

    def close(self) -> None:
        if not self._writer.is_closing():
            self._writer.write(packet(b"Q"))
            self._writer.close()

    async def tell(self, letter: bytes, data: bytes) -> Reply | None:
        """Sends a command if the filter wants it. RCPT alone gives the reply that refuses. Raises Decided."""
        return None if not self.terms.wants(letter) or await self._told(letter, data) else self._refusal

    async def _told(self, letter: bytes, data: bytes) -> bool:
        self._refusal: Reply | None = None
        await self._pause()
        timeout_s = self._timeout_s(letter)
        await self._write(self.terms.command(letter, data, self.macros), timeout_s)
        if not self.terms.is_answered(letter):
            return True
        answer, said = await self._answer(timeout_s)
        if answer == b"c":
            return True
        if answer == b"s" and letter == b"B" and self.terms.steps & Steps.SKIP:
            raise Decided("skip")
        try:
            self._final(answer, said)
        except Decided as decided:
            if letter != b"R" or decided.word != "refuse":
                raise
            self._refusal = decided.reply
            return False
        raise MilterTrouble(f"answered {answer!r} to {letter!r}")

    async def tell_message(
        self, fields: Sequence[Field], body: AsyncIterator[bytes], replace: Callable[[bytes], Awaitable[None]]
    ) -> Changes:
        """Sends the header and the body; gives what the filter asks for. Octets of another body go to `replace`, as
        they come. Raises Decided.
        """
        if self.terms.wants(b"L"):
            for field in fields:
                await self.tell(b"L", self.terms.field(field))
        await self.tell(b"N", b"")
        if self.terms.wants(b"B"):
            try:
                async for piece in body:
                    for at in range(0, len(piece), MILTER_BODY_BYTES):
                        await self.tell(b"B", piece[at : at + MILTER_BODY_BYTES])
            except Decided as decided:
                if decided.word != "skip":
                    raise
        timeout_s = self._timeout_s(b"E")
        await self._write(self.terms.command(b"E", b"", self.macros), timeout_s)
        changes = Changes(self.terms)
        while True:
            answer, data = await self._answer(timeout_s)
            if answer == b"c":
                return changes
            if answer == b"a":
                return changes  # also what it has asked for before
            self._final(answer, data)
            try:
                octets = changes.take(answer, data)
                if octets is not None:
                    await replace(octets)
            except ValueError as error:
                raise MilterTrouble(str(error)) from None

    def _final(self, answer: bytes, data: bytes) -> None:
        """Raises Decided where the answer is a decision."""
        match answer:
            case b"a":
                raise Decided("accept")
            case b"d":
                raise Decided("discard")
            case b"r":
                raise Decided("refuse", _REJECTED)
            case b"t":
                raise Decided("refuse", _NOT_NOW)
            case b"4":
                raise Decided("refuse", _SHUTDOWN)
            case b"y":
                try:
                    raise Decided("refuse", parse_reply(data))
                except MilterError as error:
                    raise MilterTrouble(str(error)) from None

    def _timeout_s(self, letter: bytes) -> float:
        return self._milter.content_timeout_s if letter in _CONTENT else self._milter.command_timeout_s

    async def _write(self, data: bytes, timeout_s: float) -> None:
        try:
            self._writer.write(data)
            async with asyncio.timeout(timeout_s):
                await self._writer.drain()
        except (OSError, TimeoutError) as error:
            raise MilterTrouble(f"takes nothing: {error or 'time-out'}") from None

    async def _answer(self, timeout_s: float) -> tuple[bytes, bytes]:
        while True:
            found = await self._packet(timeout_s)
            if found[0] != b"p":
                return found

    async def _packet(self, timeout_s: float) -> tuple[bytes, bytes]:
        await self._pause()
        try:
            async with asyncio.timeout(timeout_s):
                octets = packet_octets(await self._reader.readexactly(4))
                raw = await self._reader.readexactly(octets)
        except (OSError, EOFError, TimeoutError, MilterError) as error:
            raise MilterTrouble(f"no answer: {str(error) or 'time-out'}") from None
        return raw[:1], raw[1:]
