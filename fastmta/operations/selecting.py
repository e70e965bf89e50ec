"""Which queued recipients an act means: what an administrator writes, and what the queue makes of it."""

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from fastmta.model.envelope import RecipientState
from fastmta.model.errors import ActFailed
from fastmta.model.ids import parse_queue_id
from fastmta.model.limits import QUEUE_LISTED_AT_ONCE

if TYPE_CHECKING:
    from fastmta.operations.desk import Desk
    from fastmta.store.queue import Movable, MoveName, QueuedMessage, QueuedRecipient, Selection

STATES: Final = {"active": RecipientState.ACTIVE, "deferred": RecipientState.DEFERRED, "held": RecipientState.HELD}


def _said(text: str, **extra: Any) -> msgspec.Meta:
    return msgspec.Meta(description=text, extra=extra or None)


class Selector(msgspec.Struct, forbid_unknown_fields=True):
    """Recipients that fit all that is given; None does not select. Who gives nothing must say `everything`."""

    ids: Annotated[tuple[str, ...], _said("A queue id; may be given more than once.", option="--id")] = ()
    sender: Annotated[str | None, _said('The envelope sender; "" is the null sender.')] = None
    recipient: Annotated[str | None, _said("A recipient's address.")] = None
    domain: Annotated[str | None, _said("The domain of recipients.")] = None
    hop: Annotated[str | None, _said("A next hop, as queue list --json shows it.")] = None
    error: Annotated[str | None, _said("What the last reply has in it, in letters of either case.")] = None
    tenant: Annotated[str | None, _said("Whose mail it is, as queue show says.")] = None
    older: Annotated[str | None, _said('Received longer ago than this, such as "4h".')] = None
    state: Annotated[str | None, _said("State of recipients.", choices=list(STATES))] = None
    everything: Annotated[bool, _said("Everything in the queue.", option="--all")] = False

    def given(self) -> dict[str, Any]:
        """What selects."""
        return {
            name: value
            for name in Selector.__struct_fields__
            if (value := getattr(self, name)) not in (None, (), False)
        }

    @property
    def shown(self) -> str:
        """The options that were given, for the log."""
        return " ".join(f"{name}={value!a}" for name, value in self.given().items())[:500]


def required(selector: Selector) -> Selector:
    """The selector; ActFailed where it says nothing, which would mean all by mistake."""
    if not selector.given():
        raise ActFailed("which? give a selector, or --all for everything", "usage")
    return selector


def queue_id(text: str) -> int:
    """The number of a queue id; ActFailed for what is none."""
    try:
        number = parse_queue_id(text.rstrip("*!"))
    except ValueError as error:
        raise ActFailed(str(error), "usage") from error
    if not text or number >= 2**63:
        raise ActFailed(f"not a queue id: {text!a}", "usage")
    return number


def selection(selector: Selector, now_s: float) -> "tuple[tuple[int, ...], Selection]":
    """(queue ids, what else selects) as the queue takes them; ActFailed for what makes no sense."""
    from fastmta.store.queue import Selection

    before_ms = hop = None
    if selector.older is not None:
        from fastmta.config.values import parse_time

        try:
            before_ms = int((now_s - parse_time(selector.older)) * 1000)
        except ValueError as wrong:
            raise ActFailed(f"--older {selector.older}: expected {wrong}", "usage") from wrong
    state = None
    if selector.state is not None:
        if selector.state.lower() not in STATES:
            raise ActFailed(f"--state {selector.state}: expected one of {', '.join(STATES)}", "usage")
        state = STATES[selector.state.lower()]
    if selector.hop is not None:
        from fastmta.model.routes import hop_named

        hop = hop_named(selector.hop.strip())
    sender, recipient, domain = selector.sender, selector.recipient, selector.domain
    return tuple(queue_id(text) for text in selector.ids), Selection(
        state,
        None if sender is None else _folded(sender.strip().removeprefix("<").removesuffix(">")),
        None if recipient is None else _folded(recipient),
        None if domain is None else _folded(domain.removeprefix("@")),
        before_ms,
        hop,
        None if selector.error is None else _folded(selector.error),
        None if selector.tenant is None else selector.tenant.strip().encode("utf-8", "surrogateescape").lower(),
    )


async def selected(desk: "Desk", selector: Selector) -> "AsyncIterator[tuple[QueuedMessage, QueuedRecipient]]":
    """The recipients that it means, in the order of the queue or of an index; read page by page, with pauses."""
    ids, chosen = selection(selector, desk.clock.now())
    if ids:
        for number in ids:
            for each in _of_message(desk, number, chosen):
                yield each
            await desk.pause()
        return
    after = b""
    while True:
        page, after = desk.store.queue.walk(chosen, after, QUEUE_LISTED_AT_ONCE)
        for each in page:
            yield each
        if not after:
            return
        await desk.pause()


async def movable(desk: "Desk", move: "MoveName", selector: Selector, at_once: int) -> "AsyncIterator[list[Movable]]":
    """The same of those that a move can change, so many at once, each as short as a move needs it."""
    from fastmta.store.queue import MOVES

    states = MOVES[move][0]
    ids, chosen = selection(selector, desk.clock.now())
    if ids:
        for number in ids:
            rows = _of_message(desk, number, chosen)
            found = [(number, row.n, row.tail.forward_path) for _, row in rows if row.state in states]
            for start in range(0, len(found), at_once):
                yield found[start : start + at_once]
            await desk.pause()
        return
    after = b""
    while True:
        found, after = desk.store.queue.movable(move, chosen, after, at_once)
        if found:
            yield found
        if not after:
            return
        await desk.pause()


def _of_message(desk: "Desk", number: int, chosen: "Selection") -> "Iterator[tuple[QueuedMessage, QueuedRecipient]]":
    from fastmta.store.queue import selects

    message = desk.store.queue.message(number)
    if message is not None:
        for recipient in desk.store.queue.recipients(number):
            if selects(chosen, message, recipient):
                yield message, recipient


def _folded(text: str) -> bytes:
    return text.strip().lower().encode("utf-8", "surrogateescape")
