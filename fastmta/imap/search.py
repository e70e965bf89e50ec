"""Evaluates SEARCH's tree: masks over columns for what the records tell, the message's bytes for the rest.

A mask is a bytes object, one octet a message. Keys that need bytes are looked at last, and only for the messages that
the others leave; other sessions get their turn in between.
"""

from __future__ import annotations

from array import array
from collections.abc import Awaitable, Callable
from email.utils import parsedate
from typing import TYPE_CHECKING, Any, Final

from fastmta import _imap, _mime
from fastmta.imap import search_keys as keys
from fastmta.imap.dates import days_of
from fastmta.imap.fetch_plan import ENVELOPE
from fastmta.imap.search_keys import Key
from fastmta.model.limits import IMAP_CHUNK_BYTES, IMAP_HEADER_BYTES

if TYPE_CHECKING:
    from fastmta.imap.session import Session
    from fastmta.imap.view import View

HEADER_PIECE: Final = 8192  # most headers are whole within it
SIEVE_FROM: Final = 16  # messages; for fewer, reading their headers is as quick
TURN_BYTES: Final = 131_072  # read before other sessions get their turn
_AND, _OR, _WITHOUT = 0, 1, 2


class Search:
    """One SEARCH over one view. `seqs` and `uids` are the messages that are looked at, ascending."""

    def __init__(self, session: Session, view: View) -> None:
        self._mailboxes = session.mailboxes
        self._view = view
        uids, flags, _modseqs, sizes, _keywords = self._mailboxes.summary(view.mailbox_id)
        seqs, known = view.uids.all()
        if uids.tobytes() != known.tobytes():
            # What came or went since the view was last told: only what both know is searched.
            seqs = _imap.mask_select(_imap.mask_members(known, uids), seqs)
            mask = _imap.mask_members(uids, known)
            uids, flags, sizes = (_imap.mask_select(mask, column) for column in (uids, flags, sizes))
        self.seqs: array[int] = seqs
        self.uids: array[int] = uids
        self._flags = flags
        self._sizes = sizes
        self._rows: list[Any] | None = None
        self._masks: dict[int, bytes] = {}
        self._read_bytes = 0
        self._at = -1  # the message that the caches below belong to
        self._header: bytes | None = None
        self._record: bytes | None = None

    # --- masks ---

    def mask(self, key: Key) -> bytes | None:
        """The mask of a key that needs no message's bytes; None for one that does."""
        known = self._masks.get(id(key))
        if known is None:
            known = self._make_mask(key)
            if known is not None:
                self._masks[id(key)] = known
        return known

    def _make_mask(self, key: Key) -> bytes | None:
        if isinstance(key, keys.Flags):
            return _imap.mask_flags(self._flags, key.wanted, key.unwanted)
        if isinstance(key, keys.Size):
            return _imap.mask_between(self._sizes, key.low, key.high)
        if isinstance(key, keys.Numbers):
            return self._numbers(key)
        if isinstance(key, keys.Recent):
            return bytes(map(self._view.is_recent, self.uids)) if self._view.recent else bytes(len(self.uids))
        if isinstance(key, keys.Keyword):
            name = key.name
            return bytes(name in row.keywords.lower().split() for row in self._all_rows())
        if isinstance(key, keys.Received):
            return bytes(
                key.low <= (row.internal_date_s + row.tz_minutes * 60) // 86400 <= key.high for row in self._all_rows()
            )
        return self._combined(key)

    def _combined(self, key: Key) -> bytes | None:
        if isinstance(key, keys.Not):
            inner = self.mask(key.key)
            return None if inner is None else _imap.mask_combine(b"\1" * len(inner), inner, _WITHOUT)
        if isinstance(key, keys.Or):
            first, second = self.mask(key.first), self.mask(key.second)
            return None if first is None or second is None else _imap.mask_combine(first, second, _OR)
        if isinstance(key, keys.And):
            out = b"\1" * len(self.uids)
            for part in key.keys:
                mask = self.mask(part)
                if mask is None:
                    return None
                out = _imap.mask_combine(out, mask, _AND)
            return out
        return None

    def _numbers(self, key: keys.Numbers) -> bytes:
        if key.by_uid:
            return _imap.mask_members(self.uids, self._view.uids.by_uids(key.pairs)[1])
        chosen = self._view.uids.by_seqs(key.pairs)
        if chosen is None:
            if self._view.uids.count == 0:
                return b""
            raise _imap.BadSyntax("Message number out of range")
        return _imap.mask_members(self.seqs, chosen[0])

    def _all_rows(self) -> list[Any]:
        if self._rows is None:
            self._rows = self._mailboxes.rows(self._view.mailbox_id, self.uids)
            if len(self._rows) != len(self.uids):
                # Some vanished between two readings: they match nothing.
                present = {row.uid: row for row in self._rows}
                self._rows = [present.get(uid, _NOTHING) for uid in self.uids]
        return self._rows

    # --- bytes ---

    def candidates(self, key: Key) -> tuple[bytes, tuple[Key, ...]]:
        """(mask, what is left to look at in the messages' bytes) for a key that mask() can't answer."""
        parts = key.keys if isinstance(key, keys.And) else (key,)
        mask = b"\1" * len(self.uids)
        left: list[Key] = []
        for part in parts:
            part_mask = self.mask(part)
            if part_mask is None:
                left.append(part)
            else:
                mask = _imap.mask_combine(mask, part_mask, _AND)
        return mask, tuple(left)

    async def sieve(self, mask: bytes, left: tuple[Key, ...], flush: Callable[[], Awaitable[None]]) -> bytes:
        """Narrows a mask by SUBJECT keys through the ENVELOPEs made at arrival: 1 µs a message, not 12."""
        for key in left:
            word = _sieve_word(key)
            at = [n for n, one in enumerate(mask) if one] if word else []
            if len(at) < SIEVE_FROM:
                continue
            uids = array("I", [self.uids[n] for n in at])
            places = array("I", [n + 1 for n in at])
            found = bytearray(len(mask))
            start = 0
            while start < len(uids):
                lines, start = self._mailboxes.fetch(
                    self._view.mailbox_id, places, uids, ENVELOPE, start, IMAP_CHUNK_BYTES
                )
                _imap.lines_with(lines, word, found)
                if start < len(uids):
                    await flush()
            mask = bytes(found)
        return mask

    def turn_is_over(self) -> bool:
        """Whether enough was read to let others run; counts anew after it said so."""
        if self._read_bytes < TURN_BYTES:
            return False
        self._read_bytes = 0
        return True

    def matches(self, key: Key, at: int) -> bool:
        """Whether the message at this place of the columns matches; a vanished one matches nothing that needs bytes."""
        mask = self.mask(key)
        if mask is not None:
            return bool(mask[at])
        if isinstance(key, keys.And):
            return all(self.matches(part, at) for part in key.keys)
        if isinstance(key, keys.Or):
            return self.matches(key.first, at) or self.matches(key.second, at)
        if isinstance(key, keys.Not):
            return not self.matches(key.key, at)
        self._go_to(at)
        header = self._header
        if header is None:
            return False
        if isinstance(key, keys.Header):
            values = _values(header, key.field)
            if key.field.upper() == b"SUBJECT":
                values = values[:1]  # the one that ENVELOPE has: found by it or not at all
            return any(key.needle in value for value in values)
        if isinstance(key, keys.Sent):
            return any(key.low <= day <= key.high for day in _sent_days(header))
        if isinstance(key, keys.Text):
            if key.with_header and key.needle in _mime.decode_header(header).casefold():
                return True
            return self._in_body(key.needle, at)
        return False

    def _go_to(self, at: int) -> None:
        if self._at == at:
            return
        self._at = at
        self._record = None
        self._header = self._read_header(self.uids[at], self._sizes[at])

    def _read(self, uid: int, offset: int, length: int) -> bytes | None:
        """At most `length` bytes, in pieces that the store gives."""
        pieces: list[bytes] = []
        got = 0
        while got < length:
            piece = self._mailboxes.read(self._view.mailbox_id, uid, offset + got, min(length - got, IMAP_CHUNK_BYTES))
            if piece is None:
                return None
            if not piece:
                break
            pieces.append(piece)
            got += len(piece)
        self._read_bytes += got + 1024
        return b"".join(pieces)

    def _read_header(self, uid: int, size: int) -> bytes | None:
        length = HEADER_PIECE
        while True:
            data = self._read(uid, 0, min(length, size))
            if data is None:
                return None
            end = _header_end(data)
            if end >= 0 or len(data) >= min(size, IMAP_HEADER_BYTES):
                return data[:end] if end >= 0 else data
            length *= 16

    def _in_body(self, needle: str, at: int) -> bool:
        """Decoded text parts, and the headers of messages inside the message."""
        uid = self.uids[at]
        rows = self._mailboxes.rows(self._view.mailbox_id, array("I", (uid,)))
        if self._record is None:
            self._record = self._mailboxes.structure(self._view.mailbox_id, uid)
        if not rows or self._record is None:
            return False
        shift = len(rows[0].prefix)
        for part in _mime.parts_of(self._record):
            if part.is_message and part.path and part.header_length:
                raw_header = self._read(uid, shift + part.header_offset, min(part.header_length, IMAP_HEADER_BYTES))
                if raw_header is not None and needle in _mime.decode_header(raw_header).casefold():
                    return True
            if part.kind in ("text", "opaque") and part.body_length:
                length = min(part.body_length, IMAP_HEADER_BYTES)
                raw_body = self._read(uid, shift + part.body_offset, length)
                if (
                    raw_body is not None
                    and needle in _mime.decode_body(raw_body, part.encoding, part.charset, IMAP_HEADER_BYTES).casefold()
                ):
                    return True
        return False


def _sieve_word(key: Key) -> bytes:
    """What each match must contain in its ENVELOPE's subject, unfolded as decode_header does; b"" if unsure."""
    if not isinstance(key, keys.Header) or key.field.upper() != b"SUBJECT":
        return b""
    needle = key.needle
    plain = needle.isascii() and needle.isprintable() and '"' not in needle and "\\" not in needle
    return needle.encode("ascii") if plain else b""


class _Nothing:
    keywords = b""
    internal_date_s = -(2**62)
    tz_minutes = 0


_NOTHING: Final = _Nothing()


def _header_end(data: bytes) -> int:
    """Where the header ends, or -1."""
    crlf, lf = data.find(b"\r\n\r\n"), data.find(b"\n\n")
    if crlf < 0 or (0 <= lf < crlf):
        return lf + 1 if lf >= 0 else -1
    return crlf + 2


def _values(header: bytes, field: bytes) -> list[str]:
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


def _sent_days(header: bytes) -> list[int]:
    """The day that the Date field names, time and zone disregarded (RFC 3501 §6.4.4)."""
    for value in _values(header, b"Date"):
        parsed = parsedate(value)
        if parsed is not None:
            day = days_of(parsed[0], parsed[1], parsed[2])
            if day is not None:
                return [day]
    return []
