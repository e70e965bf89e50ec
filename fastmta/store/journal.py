"""A store's journal: every transaction that units made, in order, and how another store takes it over.

`Store.journal_to(fd)` has the committer write one frame a transaction. A store that was equal when the journal began,
and has carried out every frame since, is equal again; what lies in the trash aside, which each empties for itself.
"""

from collections.abc import Iterator
from typing import BinaryIO

from fastmta._store import FRAME_HEAD_BYTES, Store, frame_fields
from fastmta.model.errors import StorageFailure


def frames(file: BinaryIO, after: int = 0) -> Iterator[bytes]:
    """The whole frames from here to the end of `file`, whose first follows number `after`.

    StorageFailure where one is missing, damaged at its head, or cut: then nothing behind it can be taken over.
    """
    while head := file.read(FRAME_HEAD_BYTES):
        try:
            number, length = frame_fields(head)
        except ValueError as error:
            raise StorageFailure(f"the journal is damaged behind frame {after}: {error}") from error
        if number != after + 1:
            raise StorageFailure(f"the journal lacks what lies between its frames {after} and {number}")
        frame = head + file.read(length - FRAME_HEAD_BYTES)
        if len(frame) < length:
            raise StorageFailure(f"the journal ends in the middle of frame {number}")
        yield frame
        after = number


def follow(file: BinaryIO, store: Store, after: int = 0) -> int:
    """Has `store` carry out the frames of `file`, each in a transaction; the number of the last one.

    StorageFailure, with everything before it kept.
    """
    for frame in frames(file, after):
        try:
            store.replay(frame)
        except ValueError as error:
            raise StorageFailure(f"the journal is damaged in frame {after + 1}: {error}") from error
        after += 1
    return after
