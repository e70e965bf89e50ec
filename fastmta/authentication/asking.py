"""Work that asks the DNS, whose answers are mostly known: no task for what need not wait, side by side what must."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
Start = Callable[[], Coroutine[Any, Any, Any]]


def at_once(work: Coroutine[Any, Any, T]) -> T | None:
    """What the work gives where it need not wait; None where it must: it has been given up then, to be begun anew.

    It runs in no task of its own: asyncio.timeout must not stand in it.
    """
    try:
        awaited = work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    if awaited is not None:
        awaited.cancel()
    return None


async def side_by_side(*starts: Start, waiting: Sequence[Start] = ()) -> list[Any]:
    """What each gives, in their order, those of `waiting` last: these are known to wait. None of them gives None."""
    found = [at_once(start()) for start in starts] + [None] * len(waiting)
    every = (*starts, *waiting)
    left = [number for number, each in enumerate(found) if each is None]
    if left:
        answers = await asyncio.gather(*(every[number]() for number in left))
        for number, answer in zip(left, answers, strict=True):
            found[number] = answer
    return found
