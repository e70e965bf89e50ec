"""A message with another body, as a filter asks for it: what came of the header, and the filter's octets behind it.

It goes into the store while it comes, piece by piece, so its size is bounded by the message limit alone. The header
stays what it was to the octet, and so cuts of it stay where they are.
"""

import asyncio

from fastmta._mime import Structure
from fastmta._parser import DataReceiver
from fastmta._unit import Blob
from fastmta.authentication.message import Field


class TooLong(ValueError):
    """The message would be longer than a message may be."""


class NewBody:
    """`blob`, `structure` and `bits` take the places of those of what came. Read as a check's Message."""

    __slots__ = ("_drained", "_limit", "_receiver", "blob", "fields", "structure")

    def __init__(self, blob: Blob, limit: int) -> None:
        self.blob = blob
        self.structure = Structure()
        self.fields: tuple[Field, ...] | None = None
        self._receiver = DataReceiver(True, False)  # a filter's bare line ends are made whole
        self._limit = limit
        self._drained = asyncio.Event()
        blob.on_drain = self._drained.set

    @property
    def bits(self) -> int:
        return self._receiver.bits

    @property
    def size(self) -> int:
        return self.blob.body_size

    async def read(self, offset: int, octets: int) -> bytes:
        return self.blob.read(offset, octets)

    async def add(self, piece: bytes) -> None:
        """The next octets, of the header first. Raises TooLong."""
        if self._limit and self.blob.body_size + len(piece) > self._limit:
            raise TooLong(f"a message over {self._limit} octets")
        whole = self._receiver.feed(piece)[0]
        self.blob.feed(whole)
        self.structure.feed(whole)
        if self.blob.congested:
            self._drained.clear()
            await self._drained.wait()

    async def end(self) -> None:
        """All of it has come."""
        if not self._receiver.at_line_start:
            await self.add(b"\r\n")
        self.blob.on_drain = None

    def give_up(self) -> None:
        self.blob.abandon()
