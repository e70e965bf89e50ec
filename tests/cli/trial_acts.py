"""A trial addition to the table of acts: what a further file costs."""

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec

from fastmta.model.errors import ActFailed
from fastmta.operations.acts import act, rows
from fastmta.operations.desk import Desk
from fastmta.operations.values import Secret


class Greet(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    word: Secret
    times: Annotated[int, msgspec.Meta(description="How often.", ge=1, le=3)] = 1
    loud: bool = False


class Greeted(msgspec.Struct):
    said: str


class Count(msgspec.Struct, forbid_unknown_fields=True):
    upto: int = 3


@act("trial.greet", changes=True)
async def greet(desk: Desk, asked: Greet) -> Greeted:
    """Greet somebody."""
    if asked.name == "nobody":
        raise ActFailed("nobody is there", "no_user")
    desk.note(name=asked.name)
    if asked.name == "half":
        raise ActFailed("only half of it", "busy")
    return Greeted((f"hello {asked.name} " * asked.times).strip() + ("!" if asked.loud else ""))


@rows("trial.count_up")
async def count_up(desk: Desk, asked: Count) -> AsyncIterator[Greeted]:
    """Count up."""
    for n in range(asked.upto):
        yield Greeted(str(n))
        await desk.pause()
