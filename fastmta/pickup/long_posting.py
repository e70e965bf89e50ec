"""A local message of very many recipients: one message, and units of bounded size for its recipients.

The first unit has the message, the queue's entry, the first recipients, and a note of how far it went, under the name
of the spool's file. Each following unit adds recipients to the entry and moves the note on in the same commit, so
whoever is killed in between goes on from the file without a recipient twice. The note keeps the message in the store,
since its first recipients may have got it long before the last are written; the file goes only after the last unit,
and the note after the file.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Final

import msgspec

from fastmta._intake import Body, Posting, Recipient, Target
from fastmta._mime import Structure
from fastmta._parser import HeaderScan
from fastmta.model.limits import POSTED_AT_ONCE
from fastmta.model.verdict import Outcome
from fastmta.pickup.seams import Services
from fastmta.runtime import crash
from fastmta.runtime.events import teller
from fastmta.store.posting_notes import PostingNote

_PIECE: Final = 262_144


async def begin(services: Services, name: str, posting: Posting, recipients: list[Recipient], outcome: Outcome) -> None:
    """Commits all units; `posting` has the message, and no recipients so far."""
    note = PostingNote(posting.queue_id, posting.body.blob_id, posting.body.size, posting.envelope, 0, 0)
    note.outcome = msgspec.structs.replace(outcome, head=b"", cuts=(), body=None)
    await _units(services, name, note, recipients, posting)


async def go_on(services: Services, name: str, note: PostingNote, recipients: list[Recipient]) -> None:
    """Commits the units that are missing."""
    if not note.is_whole:
        local = any(each.has_local for each in recipients[note.done :])
        structure, loops = _read(services, note) if local else (b"", None)
        body = Body(None, structure, loops, blob_id=note.blob_id, size=note.size_bytes)
        await _units(services, name, note, recipients, _posting(services, note, body))


async def forget(services: Services, name: str) -> None:
    """The file is gone."""
    if services.store.posting_notes.find(name) is not None:
        unit = services.store.new_unit()
        services.store.posting_notes.drop(unit, name)
        await services.store.commit(unit)


async def tidy(services: Services, is_there: Callable[[str], bool]) -> None:
    """Gives up the notes of files that are gone: their last act was cut off, or their owner has taken them back."""
    for name, note in services.store.posting_notes.some():
        if not is_there(name):
            unit = services.store.new_unit()
            if not note.is_whole:
                unit.ref(note.blob_id, -1)
            services.store.posting_notes.drop(unit, name)
            await services.store.commit(unit)


def _posting(services: Services, note: PostingNote, body: Body) -> Posting:
    made = Posting(teller(services.log, services.clock, services.cells), note.queue_id, note.envelope, body)
    made.number = note.number
    return made


async def _units(
    services: Services, name: str, note: PostingNote, recipients: list[Recipient], posting: Posting
) -> None:
    store = services.store
    once = _distinct(recipients)
    for start in range(0, note.done, POSTED_AT_ONCE):
        deque(islice(once, min(POSTED_AT_ONCE, note.done - start)), 0)
        await asyncio.sleep(0)
    in_all = sum(len(each.targets) for each in recipients)
    while True:
        part = list(islice(once, POSTED_AT_ONCE))
        posting.in_all = in_all
        posting.recipients_in_all = len(recipients)
        unit = store.new_unit()
        posting.to(part).write(unit)
        if note.done == 0:
            unit.ref(note.blob_id, 1)
        note.done += len(part)
        note.number += sum(len(each.targets) for each in part)
        note.is_whole = note.done >= len(recipients)
        if note.is_whole:
            unit.ref(note.blob_id, -1)
        store.posting_notes.put(unit, name, note)
        await store.commit(unit)
        posting.committed(unit)
        if crash.NAME:
            crash.crash_point("between_units")
        if note.is_whole:
            return
        posting = _posting(services, note, posting.body)


def _distinct(recipients: list[Recipient]) -> Iterator[Recipient]:
    """The recipients, each mailbox and address once in all of them: a posting knows only those of its unit."""
    seen: set[object] = set()
    for each in recipients:
        kept: list[Target] = []
        for target in each.targets:
            place = target.mailbox_id or (target.hop, target.address)
            if place not in seen:
                seen.add(place)
                kept.append(target)
        yield each if len(kept) == len(each.targets) else Recipient.of(each.forward_path, kept)


def _read(services: Services, note: PostingNote) -> tuple[bytes, list[bytes] | None]:
    """The structure of a stored message, and where it has been before."""
    parser, scan = Structure(), HeaderScan()
    at = 0
    while at < note.size_bytes:
        piece = services.store.queue.read(note.blob_id, at, _PIECE)
        if not piece:
            break
        parser.feed(piece)
        if not scan.is_done:
            scan.feed(piece)
        at += len(piece)
    return parser.finish(), scan.delivered_to_addresses() or None
