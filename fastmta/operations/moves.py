"""What is done to queued recipients: the acts `queue.flush`, `hold`, `release`, `requeue` and `delete`.

Changes are the store's moves (fastmta/queue/README.md), so whoever delivers obeys them within a second. Before `hold`
and `delete` the owners are asked what they are sending at that moment: those recipients are left alone, and counted.
Each recipient that has changed is one event, told after the commit.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec

from fastmta.model.envelope import RecipientState
from fastmta.model.errors import Refused
from fastmta.model.events import Event, Happening
from fastmta.operations.acts import act
from fastmta.operations.desk import Desk, Key
from fastmta.operations.selecting import Selector, required, selected

if TYPE_CHECKING:
    from fastmta.store.queue import QueuedMessage, QueuedRecipient

SELECTED_AT_ONCE: Final = 256  # recipients, and so many at most that owners are asked of in one message
MOVED_AT_ONCE: Final = 32  # recipients read and moved, in one unit, between which others get their turn: 1 ms
_EVERY: Final = (RecipientState.ACTIVE, RecipientState.DEFERRED, RecipientState.HELD)
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
    made = _Making(desk, "queue.flush", "flushed", (RecipientState.DEFERRED,), chosen)
    await made.all(lambda keys: queue.move("flush", keys, wished_ms))
    return Changed(made.changed)


@act("queue.hold", changes=True)
async def hold(desk: Desk, asked: Selector) -> Withdrawn:
    """Stop trying recipients until they are released."""
    states = (RecipientState.ACTIVE, RecipientState.DEFERRED)
    made = _Making(desk, "queue.hold", "held", states, required(asked), withdraws=True)
    queue = desk.store.queue
    await made.all(lambda keys: queue.move("hold", keys))
    return Withdrawn(made.changed, made.left)


@act("queue.release", changes=True)
async def release(desk: Desk, asked: Selector) -> Changed:
    """Let held recipients go."""
    queue = desk.store.queue
    wished_ms = int(desk.clock.now() * 1000)
    made = _Making(desk, "queue.release", "released", (RecipientState.HELD,), required(asked))
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

    states = (RecipientState.DEFERRED, RecipientState.HELD)
    made = _Making(desk, "queue.requeue", "requeued", states, required(asked))
    await made.all(again)
    return Changed(made.changed)


@act("queue.delete", changes=True)
async def delete(desk: Desk, asked: Selector) -> Withdrawn:
    """Delete recipients without telling their senders; a message goes with its last one."""
    made = _Making(desk, "queue.delete", "deleted", _EVERY, required(asked), withdraws=True)
    queue = desk.store.queue
    await made.all(lambda keys: queue.move("delete", keys))
    return Withdrawn(made.changed, made.left)


class _Making:
    """One move, made with all recipients that a selector means, SELECTED_AT_ONCE at a time."""

    def __init__(
        self,
        desk: Desk,
        act_name: str,
        happened: Happening,
        states: tuple[RecipientState, ...],
        selector: Selector,
        *,
        withdraws: bool = False,
    ) -> None:
        """`states`: those that the move ends."""
        self.changed = 0
        self.left = 0
        self._desk = desk
        self._act = act_name
        self._happened: Happening = happened
        self._states = states
        self._selector = selector
        self._withdraws = withdraws

    async def all(self, move: Made) -> None:
        desk = self._desk
        desk.note(changed=0, selection=self._selector.shown)
        total = sum(desk.store.queue.counts().values()) if self._selector.everything else 0
        seen = 0
        found: dict[Key, Event] = {}
        async for message, recipient in selected(desk, self._selector):
            seen += 1
            found[message.queue_id, recipient.n] = self._event(message, recipient)
            if len(found) >= SELECTED_AT_ONCE:
                await self._settle(move, found)
                desk.progress(seen, total)
                found = {}
                await desk.pause()
        await self._settle(move, found)

    def _event(self, message: "QueuedMessage", recipient: "QueuedRecipient") -> Event:
        transport = recipient.hop.partition(b":")[0].decode("ascii", "replace")
        happened: Happening = self._happened
        return Event(
            happened,
            transport,
            message.queue_id,
            recipient.tail.forward_path,
            recipient.hop.decode("utf-8", "backslashreplace"),
            original=recipient.tail.original,
            act=self._act if recipient.state in self._states else "",
            by=self._desk.actor,
        )

    async def _settle(self, move: Made, found: dict[Key, Event]) -> None:
        """Moves the recipients of a message together, and tells of those that moved."""
        desk = self._desk
        busy = await desk.owners.withdraw(list(found)) if self._withdraws else set()
        self.left += len(busy)
        free = [key for key in found if key not in busy]
        moved: list[Key] = []
        for start in range(0, len(free), MOVED_AT_ONCE):
            for some in await desk.committed([partial(move, free[start : start + MOVED_AT_ONCE])]):
                moved += some
            await desk.breathe()
        self.changed += len(moved)
        desk.note(changed=self.changed, in_flight=self.left or None)
        told = [found[key] for key in moved if found[key].act]
        for start in range(0, len(told), desk.told_at_once):
            desk.telling.recipients(told[start : start + desk.told_at_once])
            await desk.breathe()
