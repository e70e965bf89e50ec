"""What an act is given: the configuration, the store, who asks, and the ways to tell and to pause.

The same acts run in a worker (operations/serving.py) and, where no server runs, in the command's own process
(cli/performing.py); what differs between the two stands here as a method of the desk, its owners or its server.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from fastmta.model.errors import ActFailed
from fastmta.model.events import Actor, Moves

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from fastmta.config.schema import Config
    from fastmta.operations.explaining import Delivering
    from fastmta.runtime.clock import Clock
    from fastmta.store import MailStore

T = TypeVar("T")
Key = tuple[int, int]  # a queued recipient: queue id, n
MOVES_AT_ONCE: Final = 256  # small writes that share commits, which the store of a command cuts by itself
MOVES_OF_WORKER: Final = 32  # and in a worker, whose sessions wait for the same committer: 2 ms
LONGEST_REST_S: Final = 0.02


class Owners(Protocol):
    """Who delivers at this moment: the workers of the server that runs, or nobody."""

    async def withdraw(self, keys: list[Key]) -> set[Key]:
        """Which of these recipients are being sent now; the others are not begun for some seconds."""
        ...

    async def hops(self, names: list[str]) -> list[dict[str, Any]] | None:
        """What they have in hand for these next hops, having read what is suspended; None where no server runs."""
        ...

    async def sessions(self, wanted: dict[str, Any]) -> list[dict[str, Any]] | None:
        """Some of the sessions that are open, as supervisor/sessions.py tells of them; None where no server runs."""
        ...


class NoOwners:
    """No server runs: the store decides."""

    async def withdraw(self, keys: list[Key]) -> set[Key]:
        return set()

    async def hops(self, names: list[str]) -> list[dict[str, Any]] | None:
        return None

    async def sessions(self, wanted: dict[str, Any]) -> list[dict[str, Any]] | None:
        return None


class Server(Protocol):
    """The supervisor of the server that runs, which says itself who asked. NotRunning where none does."""

    async def ask(self, question: str, actor: Actor) -> dict[str, Any]:
        """Its answer to "reload", "stop", "status" or "flush_trace"."""
        ...


class Progress(Protocol):
    """Told how far the work has come: of a `total` that is 0 where it is not known, and of `what`, "" for all of it."""

    def __call__(self, done: int, total: int, what: str = "", /) -> None: ...


def no_progress(done: int, total: int, what: str = "", /) -> None:
    """For whoever does not look."""


class Telling(Protocol):
    """Where acts are told: log and metrics of the server, or syslog."""

    def act(self, name: str, fields: dict[str, Any], actor: Actor) -> None:
        """An act that changed something, when it has ended."""
        ...

    def moves(self, moves: Moves) -> None:
        """What it did to queued recipients, after the commit."""
        ...


async def _go_on() -> None:
    return


class BareDesk:
    """One act's surroundings, without a store: for acts that need none, or open one in their own way. They are done by
    whoever asks, in his process.
    """

    def __init__(
        self, config: "Callable[[], Config]", actor: Actor, telling: Telling, server: Server, progress: Progress
    ) -> None:
        """`config` is called by who needs it: some acts are there for when it cannot be read."""
        self.actor = actor
        self.telling = telling
        self.server = server
        self.progress = progress
        self.act_name = ""
        self.noted: dict[str, Any] | None = None
        self.has_told = False
        self._config = config

    @property
    def config(self) -> "Config":
        return self._config()

    def note(self, **fields: Any) -> None:
        """Something has changed: what the log's line says of it. Called after the commit; later fields win."""
        known = self.noted if self.noted is not None else {}
        self.noted = {**known, **{name: value for name, value in fields.items() if value is not None}}

    def tell(self, **fields: Any) -> None:
        """A line of its own, now: for an act that does the same to several things. After the commit."""
        self.has_told = True
        self.telling.act(self.act_name, fields, self.actor)


class Desk(BareDesk):
    """One act's surroundings: beside those, the store, and who delivers."""

    def __init__(
        self,
        config: "Callable[[], Config]",
        store: "MailStore",
        clock: "Clock",
        actor: Actor,
        telling: Telling,
        server: Server,
        owners: Owners,
        delivering: "Callable[[], AbstractAsyncContextManager[Delivering]]",
        *,
        pause: Callable[[], Awaitable[None]] = _go_on,
        progress: Progress = no_progress,
        gives_way: bool = False,
    ) -> None:
        """`delivering` gives what delivers, for as long as somebody looks; `pause` lets others have the loop;
        `gives_way`: the store does so by itself (adr/0052).
        """
        super().__init__(config, actor, telling, server, progress)
        self.store = store
        self.clock = clock
        self.owners = owners
        self.delivering = delivering
        self.interrupted = ""  # why the act shall end at its next pause
        self._pause = pause
        self._gives_way = gives_way

    async def breathe(self) -> None:
        """Lets others come first, and goes on in any case: what was committed is told whoever has gone."""
        await self._pause()

    async def pause(self) -> None:
        """Asked between two pieces of long work: others come first, and whoever asked may have gone."""
        await self._pause()
        if self.interrupted:
            raise ActFailed(self.interrupted, "busy")

    async def committed(self, moves: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
        """What these small writes give. So many go together that they share a commit; after it comes a rest as long as
        it took, for the server's own writes. All of them end before anything is raised.
        """
        import asyncio

        found: list[T] = []
        at_once = MOVES_AT_ONCE if self._gives_way else MOVES_OF_WORKER
        for start in range(0, len(moves), at_once):
            began = time.perf_counter()
            found += await asyncio.gather(*(move() for move in moves[start : start + at_once]))
            if not self._gives_way:
                await asyncio.sleep(min(time.perf_counter() - began, LONGEST_REST_S))
        return found

    async def offload(self, work: Callable[..., T], *arguments: Any) -> T:
        """What would hold the loop (a password hash, a key pair), on a thread."""
        import asyncio

        return await asyncio.to_thread(work, *arguments)
