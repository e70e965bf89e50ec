"""Brings a mailbox's part of its account's index up to date: reads messages on the loop, as SEARCH does, in turns
like those of a session, and makes segments of them on a thread, which does not hold the interpreter while it works.

What is in the file when this ends, for whatever reason, is good: a segment is added whole, and the next one begins
behind the last.
"""

import asyncio
import time
from array import array
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from fastmta import _grams
from fastmta.imap.search_text import Message, Vanished
from fastmta.index.files import IndexDamaged, IndexFile
from fastmta.index.texts import texts_of
from fastmta.model.errors import StorageFailure
from fastmta.model.limits import (
    INDEX_MERGED_DOCS,
    INDEX_PIECE_CHARS,
    INDEX_PIECE_MESSAGES,
    INDEX_SEGMENT_PAIRS,
)

if TYPE_CHECKING:
    from fastmta.imap.seams import Mailboxes

T = TypeVar("T")
PAGE: Final = 1000  # uids listed at a time
LONGEST_REST_S: Final = 0.05
_Piece = list[tuple[int, list[str] | None, list[str]]]  # uid, header (None: it is left out), what is behind it


class Place(Protocol):
    """Where the work is done. `largest_bytes`: of a message that is indexed (fts_message_max_size), 0: any."""

    largest_bytes: int

    async def offload(self, work: Callable[..., T], *arguments: Any) -> T:
        """What `work` gives, on a thread."""
        ...

    def pause_now(self) -> Awaitable[None] | None:
        """What to await where others have their turn."""
        ...

    def seen(self) -> None:
        """What was read is going to be written: the store is noted down as being as far as it is (index/marker.py)."""
        ...

    def has_room(self) -> bool:
        """Whether the disk has room for what can be done without."""
        ...


class NoRoom(Exception):
    """The disk is nearly full: mail needs the rest."""


async def build(
    mailbox_id: int, file: IndexFile, mailboxes: "Mailboxes", place: Place, progress: Callable[[int], None]
) -> int:
    """How many messages of the mailbox were indexed: all that came before this was called and were not yet.

    The account's lock is held. `progress` is told of each piece. IndexDamaged, NoRoom, OSError.
    """
    await place.offload(file.refresh)
    box = mailboxes.by_id(mailbox_id)
    done = 0
    while box is not None and file.until(mailbox_id) < box.uid_next - 1:
        builder = _grams.Builder()
        first = file.until(mailbox_id) + 1
        last = await _fill(builder, mailbox_id, first, box.uid_next - 1, mailboxes, place, progress)
        if not place.has_room():
            raise NoRoom
        record: bytes = await place.offload(builder.finish, mailbox_id, first, last)
        done += len(builder.uids) + len(builder.skipped)
        record = await _merged(record, builder, mailbox_id, file, mailboxes, place)
        place.seen()
        await place.offload(file.append, record)
        if file.until(mailbox_id) != last:
            break  # somebody has thrown it away meanwhile
    await place.offload(file.tidy, {each for each in file.mailboxes if mailboxes.by_id(each) is not None})
    return done


async def _fill(
    builder: _grams.Builder,
    mailbox_id: int,
    first: int,
    last: int,
    mailboxes: "Mailboxes",
    place: Place,
    progress: Callable[[int], None],
) -> int:
    """Reads messages from uid `first` on until the builder is full, or up to `last`; up to where they are read."""
    after = first - 1
    while after < last:
        uids = mailboxes.uids(mailbox_id, after, PAGE)
        if not uids or uids[0] > last:
            return last
        for begin in range(0, len(uids), INDEX_PIECE_MESSAGES):
            part = array("I", [uid for uid in uids[begin : begin + INDEX_PIECE_MESSAGES] if uid <= last])
            piece: _Piece = []
            chars = 0
            for uid, message in _messages(mailbox_id, part, mailboxes):
                chars += await _read(uid, message, piece, place)
                if chars >= INDEX_PIECE_CHARS:
                    await _add(builder, piece, place)
                    piece, chars = [], 0
            await _add(builder, piece, place)
            progress(len(part))
            after = part[-1] if part else last
            if builder.pairs >= INDEX_SEGMENT_PAIRS or len(builder.uids) >= INDEX_MERGED_DOCS:
                return after
            if len(part) < INDEX_PIECE_MESSAGES and begin + INDEX_PIECE_MESSAGES < len(uids):
                return last  # the rest came later
    return last


def _messages(mailbox_id: int, uids: "array[int]", mailboxes: "Mailboxes") -> list[tuple[int, Message]]:
    columns = mailboxes.columns(mailbox_id, uids)
    return [
        (uid, Message(mailboxes, mailbox_id, uid, columns.sizes[at], columns.prefixes[at]))
        for at, uid in enumerate(uids)
        if columns.here[at]
    ]


async def _read(uid: int, message: Message, piece: _Piece, place: Place) -> int:
    try:
        too_large = 0 < place.largest_bytes < message.size_bytes
        texts = None if too_large else await texts_of(message, place.pause_now)
    except Vanished:
        return 0
    except StorageFailure:
        texts = None  # whoever searches is told
    waiting = place.pause_now()
    if waiting is not None:
        await waiting
    if texts is None:
        piece.append((uid, None, []))
        return 0
    piece.append((uid, texts[0], texts[1]))
    return texts[2]


async def _add(builder: _grams.Builder, piece: _Piece, place: Place) -> None:
    if not piece:
        return
    began = time.perf_counter()
    await place.offload(_add_all, builder, piece)
    await asyncio.sleep(min(time.perf_counter() - began, LONGEST_REST_S))  # half of a core at most


def _add_all(builder: _grams.Builder, piece: _Piece) -> None:
    for uid, header, behind in piece:
        if header is None:
            builder.skip(uid)
        else:
            builder.add(uid, header, behind)


async def _merged(
    record: bytes,
    builder: _grams.Builder,
    mailbox_id: int,
    file: IndexFile,
    mailboxes: "Mailboxes",
    place: Place,
) -> bytes:
    """The record together with the small segments before it."""
    tail = file.tail(mailbox_id, builder.pairs, len(builder.uids))
    if not tail:
        return record
    records = [await place.offload(file.read, each) for each in tail]
    kept = []
    for each in tail:
        here: set[int] = set()
        after = each.first - 1
        while after < each.last and (uids := mailboxes.uids(mailbox_id, after, PAGE)):
            here.update(uids)
            after = uids[-1]
            waiting = place.pause_now()
            if waiting is not None:
                await waiting
        kept.append(here)
    kept.append({*builder.uids, *builder.skipped})
    merged = await place.offload(_grams.merge, [*records, record], kept)
    if merged is None:
        raise IndexDamaged(f"{file.path}: a segment is damaged")
    return merged
