"""Which slot owns which hop: rendezvous hashing over 256 partitions.

A hop's partition is crc32(hop) & 255 and is stored, so a change of `workers` rekeys nothing. The slot of a partition is
the one whose weight for it is the highest: going from n slots to n + 1 moves only about 1/(n + 1) of the partitions,
all of them to the new slot.
"""

from functools import lru_cache
from hashlib import blake2b
from typing import Final
from zlib import crc32

PARTITIONS: Final = 256


def partition_of(hop: bytes) -> int:
    """The partition that the store keeps the hop's schedule under."""
    return crc32(hop) & (PARTITIONS - 1)


@lru_cache(maxsize=64)
def _slots(slots: int) -> tuple[int, ...]:
    """For each partition its slot."""
    if slots < 1:
        raise ValueError(f"{slots} slots: at least one is needed")
    return tuple(
        max(range(slots), key=lambda slot: blake2b(b"%d/%d" % (partition, slot), digest_size=8).digest())
        for partition in range(PARTITIONS)
    )


def partitions_of(slot: int, slots: int) -> frozenset[int]:
    """The partitions that `slot` of `slots` owns; every partition has exactly one owner."""
    if not 0 <= slot < slots:
        raise ValueError(f"slot {slot} is outside 0..{slots - 1}")
    return frozenset(partition for partition, owner in enumerate(_slots(slots)) if owner == slot)


def slot_of(hop: bytes, slots: int) -> int:
    """The slot that owns a hop."""
    return _slots(slots)[crc32(hop) & (PARTITIONS - 1)]
