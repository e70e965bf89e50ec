"""How domain objects commit: what they need of the whole store, and the rerun of guarded units."""

from collections.abc import Callable
from typing import Final, Protocol

from fastmta._store import Store
from fastmta._unit import Unit
from fastmta.model.errors import Refused
from fastmta.runtime.clock import Clock
from fastmta.store.warming import Warming

GUARDED_RUNS: Final = 8  # of a unit composed from earlier reads, before somebody else's changes win


class Committer(Protocol):
    """The part of MailStore that its parts use."""

    raw: Store
    clock: Clock
    warming: Warming
    retained_bytes: int

    async def commit(self, unit: Unit) -> Unit: ...


async def commit_guarded(store: Committer, compose: Callable[[], Unit]) -> Unit:
    """Composes a unit from what is read now and commits it; again where a guard says that it has changed meanwhile."""
    for _ in range(GUARDED_RUNS - 1):
        try:
            return await store.commit(compose())
        except Refused as refusal:
            if refusal.code != "changed":
                raise
    return await store.commit(compose())
