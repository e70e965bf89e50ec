"""Feeding a codec three ways: whole, byte by byte, and cut in two at every place."""

from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")


def pieces_of(data: bytes) -> Iterator[list[bytes]]:
    """Every way of cutting `data` that a test of a push parser tries."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    for cut in range(1, len(data)):
        yield [data[:cut], data[cut:]]


def same_for_every_cut(data: bytes, run: Callable[[list[bytes]], T]) -> T:
    """Runs `run` on each way of cutting and requires one result; gives it."""
    results = [(pieces, run(pieces)) for pieces in pieces_of(data)]
    first = results[0][1]
    for pieces, result in results:
        assert result == first, f"cut as {pieces!r}: {result!r}, whole: {first!r}"
    return first
