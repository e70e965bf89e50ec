"""What is done to queued recipients: the acts `queue.flush`, `hold`, `release`, `requeue` and `delete`.

Changes are the store's moves (fastmta/queue/README.md), so whoever delivers obeys them within a second. Before `hold`
and `delete` the owners are asked what they are sending at that moment: those recipients are left alone, and counted.
Each recipient that has changed is told after the commit.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from fastmta.model.errors import Refused
from fastmta.model.events import Happening, Moves
from fastmta.operations.acts import act
from fastmta.operations.desk import Desk, Key
from fastmta.operations.selecting import Selector, movable, required

if TYPE_CHECKING:
    from fastmta.store.queue import Movable, MoveName

SELECTED_AT_ONCE: Final = 256  # recipients, and so many at most that owners are asked of in one message
MOVED_AT_ONCE: Final = (
    64  # recipients moved in one unit, between which others get their turn: 1.5 to 2 ms of the committer
)
Made = Callable[[list[Key]], Awaitable[list[Key]]]  # of these recipients, those that it changed


class Changed(msgspec.Struct):
    """How many recipients were changed."""

    changed: int


class Withdrawn(msgspec.Struct):
    """The same of a move that takes recipients from the owners' hands; `in_flight` were being sent, and stay."""

    changed: int
    in_flight: int


@act("queue.flush", changes=True, who="everybody")
async def flush(desk: Desk, asked: Selector) -> Changed:
    """Try deferred recipients now; without a selector all of them."""
    chosen = asked if asked.given() else Selector(state="deferred")
    queue = desk.store.queue
    wished_ms = int(desk.clock.now() * 1000)  # one wish: a destination that dies meanwhile is not tried again for it
    made = _Making(desk, "flush", "flushed", chosen)
    await made.all(lambda keys: queue.move("flush", keys, wished_ms))
    return Changed(made.changed)


@act("queue.hold", changes=True)
async def hold(desk: Desk, asked: Selector) -> Withdrawn:
    """Stop trying recipients until they are released."""
    made = _Making(desk, "hold", "held", required(asked), withdraws=True)
    queue = desk.store.queue
    await made.all(lambda keys: queue.move("hold", keys))
    return Withdrawn(made.changed, made.left)


@act("queue.release", changes=True)
async def release(desk: Desk, asked: Selector) -> Changed:
    """Let held recipients go."""
    queue = desk.store.queue
    wished_ms = int(desk.clock.now() * 1000)
    made = _Making(desk, "release", "released", required(asked))
    await made.all(lambda keys: queue.move("release", keys, wished_ms))
    return Changed(made.changed)


@act("queue.requeue", changes=True)
async def requeue(desk: Desk, asked: Selector) -> Changed:
    """Route recipients again by the present configuration and try them now, held ones too."""
    from fastmta.delivery.routing import Router

    queue, router = desk.store.queue, Router(desk.config)
    wished_ms = int(desk.clock.now() * 1000)

    async def again(keys: list[Key]) -> list[Key]:
        for message, recipients in queue.load(keys):
            for each in recipients:
                path = each.tail.forward_path
                if not each.hop.startswith(b"local:") and not router.is_filtered(each.hop, path):
                    route = router.route(path)
                    if route.refusal is None and route.hop and route.hop != each.hop:
                        with suppress(Refused):  # it has left the queue meanwhile
                            await queue.reroute(message.queue_id, each.n, route.hop, each.lane)
        return await queue.move("requeue", keys, wished_ms)

    made = _Making(desk, "requeue", "requeued", required(asked))
    await made.all(again)
    return Changed(made.changed)


@act("queue.delete", changes=True)
async def delete(desk: Desk, asked: Selector) -> Withdrawn:
    """Delete recipients without telling their senders; a message goes with its last one."""
    made = _Making(desk, "delete", "deleted", required(asked), withdraws=True)
    queue = desk.store.queue
    await made.all(lambda keys: queue.move("delete", keys))
    return Withdrawn(made.changed, made.left)


class _Making:
    """One move, made with all recipients that a selector means, SELECTED_AT_ONCE at a time."""

    def __init__(
        self, desk: Desk, move: "MoveName", happened: Happening, selector: Selector, *, withdraws: bool = False
    ) -> None:
        self.changed = 0
        self.left = 0
        self._desk = desk
        self._move: MoveName = move
        self._happened: Happening = happened
        self._selector = selector
        self._withdraws = withdraws

    async def all(self, moving: Made) -> None:
        desk = self._desk
        desk.note(changed=0, selection=self._selector.shown)
        total = sum(desk.store.queue.counts().values()) if self._selector.everything else 0
        seen = 0
        async for found in movable(desk, self._move, self._selector, SELECTED_AT_ONCE):
            await self._settle(moving, found)
            seen += len(found)
            desk.progress(seen, total)

    async def _settle(self, moving: Made, found: "list[Movable]") -> None:
        """Moves recipients, and tells of those that moved."""
        desk = self._desk
        if self._withdraws:
            busy = await desk.owners.withdraw([(queue_id, n) for queue_id, n, _ in found])
            if busy:
                self.left += len(busy)
                found = [each for each in found if each[:2] not in busy]
        done: list[Movable] = []
        try:
            for start in range(0, len(found), MOVED_AT_ONCE):
                some = found[start : start + MOVED_AT_ONCE]
                keys = [(queue_id, n) for queue_id, n, _ in some]
                (moved,) = await desk.committed([partial(moving, keys)])
                if len(moved) < len(some):
                    those = set(moved)
                    some = [each for each in some if each[:2] in those]
                done += some
                await desk.breathe()
        finally:
            self.changed += len(done)
            desk.note(changed=self.changed, in_flight=self.left or None)
            desk.telling.moves(Moves(self._happened, desk.act_name, desk.actor, done))
