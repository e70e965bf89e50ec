"""How far local mail of very many recipients has come, which is committed in several units (pickup/long_posting.py).

A note is written in the same unit as the recipients that it counts, under the name of the spool's file, and it keeps
the message in the store until all of them are written.
"""

from typing import Final

import msgspec

from fastmta._store import TABLE_META
from fastmta._unit import Unit
from fastmta.model.envelope import Envelope
from fastmta.model.verdict import Outcome
from fastmta.store.committing import Committer

NOTES: Final = 1000  # that are looked at together
_PREFIX: Final = b"posting:"


class PostingNote(msgspec.Struct, array_like=True):
    """How far a message went: its first `done` recipients and `number` targets are in the store."""

    queue_id: int
    blob_id: int
    size_bytes: int
    envelope: Envelope
    done: int
    number: int
    is_whole: bool = False
    outcome: Outcome = msgspec.field(default_factory=Outcome)  # of its checks, which are not asked again


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(PostingNote).decode


class PostingNotes:
    """The notes of the whole store, by the name of a file."""

    def __init__(self, store: Committer) -> None:
        self._store = store

    def find(self, name: str) -> PostingNote | None:
        """The note of a file of which some units are committed."""
        found = self._store.raw.get(TABLE_META, _key(name)) if name else None
        return _decode(found) if found is not None else None

    def some(self) -> list[tuple[str, PostingNote]]:
        """At most NOTES of them, with their names."""
        found = self._store.raw.scan(TABLE_META, _PREFIX, b"", NOTES)
        return [(key.removeprefix(_PREFIX).decode(), _decode(value)) for key, value in found]

    def put(self, unit: Unit, name: str, note: PostingNote) -> None:
        """Writes it with the unit, in place of the one before it."""
        unit.put(TABLE_META, _key(name), _encode(note))

    def drop(self, unit: Unit, name: str) -> None:
        """Removes it with the unit."""
        unit.delete(TABLE_META, _key(name))


def _key(name: str) -> bytes:
    return _PREFIX + name.encode()
