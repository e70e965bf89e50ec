"""What SEARCH reads of a message's bytes: fields of its header, and the text of its parts, each decoded once.

Everything is looked at in pieces of SEARCH_PIECE_BYTES, for all keys at once, with a pause between two where the
session's turn is over: neither the loop nor the memory is held by a long message, a long header or a thousand keys.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from fastmta import _mime
from fastmta.imap.search_keys import Header, Text
from fastmta.model.limits import IMAP_HEADER_BYTES, SEARCH_PIECE_BYTES

if TYPE_CHECKING:
    from fastmta.imap.seams import Mailboxes

FIRST_BYTES: Final = 8192  # most headers are whole within it
WHOLE_BYTES: Final = 65_536  # a message up to here is read in one go
NEEDLES: Final = 64  # looked for in one piece before the turn is asked for
OVERLAP_BYTES: Final = 2048  # of a field that are looked at again with its next piece; a line of it is within them


class Vanished(Exception):
    """The message is gone: it matches nothing that needs its bytes."""


class Reader(Protocol):
    """Who takes a message's texts, one after the other, each in pieces. False: it needs no more."""

    def __bool__(self) -> bool: ...
    def start(self) -> None:
        """Another text begins: no word reaches into it from the one before."""
        ...

    async def look(self, text: str, /) -> None:
        """The next piece of a text."""
        ...


class Pending:
    """A Reader: the needles that have not been found yet. `known` gets what becomes clear, by id of the key."""

    def __init__(self, keys: list[Text], known: dict[int, bool], pause: Callable[[], Awaitable[None] | None]) -> None:
        self._keys: dict[str, list[int]] = {}
        for key in keys:
            self._keys.setdefault(key.needle, []).append(id(key))
        self._known = known
        self._pause = pause
        self._tail = max((len(needle) for needle in self._keys), default=1) - 1
        self._before = ""

    def __bool__(self) -> bool:
        return bool(self._keys)

    def start(self) -> None:
        self._before = ""

    async def look(self, text: str) -> None:
        folded = self._before + text.casefold()
        found = [needle for needle in self._keys if needle in folded] if len(self._keys) <= NEEDLES else None
        if found is None:
            found = []
            for count, needle in enumerate(self._keys):
                if needle in folded:
                    found.append(needle)
                if count % NEEDLES == 0:
                    await paused(self._pause)
        for needle in found:
            for key in self._keys.pop(needle):
                self._known[key] = True
        self._before = folded[-self._tail :] if self._tail > 0 else ""

    def end(self) -> None:
        """The message has been looked through: what is left is not in it."""
        for keys in self._keys.values():
            for key in keys:
                self._known[key] = False


async def paused(pause: Callable[[], Awaitable[None] | None]) -> None:
    waiting = pause()
    if waiting is not None:
        await waiting


class Message:
    """One message of the mailbox, read as far as it is asked for."""

    def __init__(self, mailboxes: Mailboxes, mailbox_id: int, uid: int, size: int, prefix: int) -> None:
        self._mailboxes = mailboxes
        self._mailbox_id = mailbox_id
        self._uid = uid
        self._size = size
        self._prefix = prefix
        self._beginning = b""

    @property
    def size_bytes(self) -> int:
        return self._size

    async def _read(self, offset: int, length: int) -> bytes:
        """Bytes of the message; fewer only at its end."""
        if offset + length <= len(self._beginning):
            return self._beginning[offset : offset + length]
        waiting = self._mailboxes.need(self._mailbox_id, self._uid, offset, length)
        if waiting is not None:
            await waiting
        data = self._mailboxes.read(self._mailbox_id, self._uid, offset, length)
        if data is None:
            raise Vanished
        return data

    async def _header(self, whole: bool) -> AsyncIterator[tuple[bytes, bool]]:
        """The header in pieces that end where a field does, or (True) where a line does, of a field that is longer."""
        length = WHOLE_BYTES if whole else FIRST_BYTES
        self._beginning = await self._read(0, min(length, self._size))
        end = _mime.header_end(self._beginning)
        if 0 <= end <= SEARCH_PIECE_BYTES:
            yield self._beginning[:end], False
            return
        offset = 0
        at_line = True  # whether the piece begins with a line
        limit = min(self._size, IMAP_HEADER_BYTES) if end < 0 else end
        while offset < limit:
            data = await self._read(offset, min(SEARCH_PIECE_BYTES, limit - offset))
            skipped = 0 if at_line else data.find(b"\n") + 1
            end = _mime.header_end(data[skipped:]) if at_line or skipped else -1
            if end >= 0 or not data:
                yield data[: skipped + end], False
                return
            cut = last_field(data) if offset + len(data) < limit else len(data)
            goes_on = cut == len(data)
            if goes_on and offset + len(data) < limit:
                cut = data.rfind(b"\n") + 1 or len(data)
            yield data[:cut], goes_on
            at_line = data[cut - 1 : cut] == b"\n"
            offset += cut

    async def look_at_header(
        self,
        headers: list[Header],
        known: dict[int, bool],
        reader: Reader | None,
        pause: Callable[[], Awaitable[None] | None],
        *,
        goes_on: bool,
    ) -> None:
        """Decides header keys, and gives the header to `reader`. `goes_on`: the body may be asked for too. Vanished."""
        fields: dict[bytes, list[Header]] = {}
        for key in headers:
            fields.setdefault(key.field.lower(), []).append(key)
            known[id(key)] = False
        begun = b""  # the field that goes on: its name, and what of it is looked at again
        async for piece, is_cut in self._header(goes_on):
            if fields:
                await self._look_at_fields(begun + piece, fields, known, pause)
                begun = field_begun(begun + piece) if is_cut else b""
            if reader:
                await reader.look(_mime.decode_header(piece))
            await paused(pause)

    async def _look_at_fields(
        self,
        piece: bytes,
        fields: dict[bytes, list[Header]],
        known: dict[int, bool],
        pause: Callable[[], Awaitable[None] | None],
    ) -> None:
        for field, keys in fields.items():
            values = field_values(piece, field)
            if values:
                for key in keys:
                    if any(key.needle in value for value in values):
                        known[id(key)] = True
            await paused(pause)

    async def look_at_body(self, reader: Reader, pause: Callable[[], Awaitable[None] | None]) -> None:
        """Gives to `reader` the text of all parts, and the headers of all but the message itself, names of attachments
        among them. Vanished."""
        record = self._mailboxes.structure(self._mailbox_id, self._uid)
        for part in _mime.parts_of(record) if record is not None else ():
            if not reader:
                return
            if part.path and part.header_length:
                await self._look_at_part_header(part, reader)
            if part.body_length and is_text(part):
                await self._look_at_text(part, reader, pause)
            await paused(pause)

    async def _look_at_part_header(self, part: Any, reader: Reader) -> None:
        offset, left = self._prefix + part.header_offset, min(part.header_length, IMAP_HEADER_BYTES)
        reader.start()
        while left > 0 and reader:
            data = await self._read(offset, min(left, SEARCH_PIECE_BYTES))
            if not data:
                return
            cut = last_field(data) if len(data) < left else len(data)
            await reader.look(_mime.decode_header(data[:cut]))
            extended = _mime.extended_parameters(data[:cut])
            if extended and reader:
                await reader.look("\n" + extended)
            offset += cut
            left -= cut

    async def _look_at_text(self, part: Any, reader: Reader, pause: Callable[[], Awaitable[None] | None]) -> None:
        offset, left = self._prefix + part.body_offset, min(part.body_length, IMAP_HEADER_BYTES)
        reader.start()
        if left <= SEARCH_PIECE_BYTES:
            raw = await self._read(offset, left)
            await reader.look(_mime.decode_body(raw, part.encoding, part.charset, SEARCH_PIECE_BYTES))
            return
        decoder = _mime.TextDecoder(part.encoding, part.charset)
        while left > 0 and reader:
            data = await self._read(offset, min(left, SEARCH_PIECE_BYTES))
            if not data:
                return
            offset += len(data)
            left -= len(data)
            await reader.look(decoder.feed(data, left == 0))
            await paused(pause)


def is_text(part: Any) -> bool:
    """Whether a part's body is looked through: text, reports, and what could not be parsed."""
    if part.kind in ("text", "opaque"):
        return True
    return part.kind == "other" and bool(part.content_type.startswith("message/"))


def last_field(data: bytes) -> int:
    """Where the last field of these header bytes begins that may go on behind them; all of them where none does."""
    at = len(data)
    while True:
        at = data.rfind(b"\n", 0, at)
        if at <= 0:
            return len(data)
        if at + 1 < len(data) and data[at + 1] not in b" \t":
            return at + 1


def field_begun(header: bytes) -> bytes:
    """The last field of these header bytes, which goes on behind them, without all but its last octets. Nothing of what
    is no field, however long."""
    start = last_field(header)
    name, _, value = header[start if start < len(header) else 0 :].partition(b":")
    tail = value[-OVERLAP_BYTES:]
    line = tail.find(b"\n") + 1
    return name + b": " + (tail[line:] or tail) if len(name) < OVERLAP_BYTES else b""


def field_values(header: bytes, field: bytes) -> list[str]:
    """The decoded values of a field, case folded; an empty list where the header does not have it."""
    out: list[str] = []
    current: list[bytes] = []
    for line in _mime.header_fields(header, (field,)).splitlines(keepends=True):
        if line[:1] in (b" ", b"\t"):
            current.append(line)
            continue
        if current:
            out.append(_mime.decode_header(b"".join(current)).casefold())
        current = [line.partition(b":")[2]] if b":" in line else []
    if current:
        out.append(_mime.decode_header(b"".join(current)).casefold())
    return out
