"""Why each recipient of a queued message waits, and until when: the act `queue.explain`."""

from typing import TYPE_CHECKING, Any

import msgspec

from fastmta.model.envelope import RecipientState, told_terms
from fastmta.model.ids import queue_id_text
from fastmta.operations.acts import act
from fastmta.operations.desk import Desk
from fastmta.operations.hops import in_hand
from fastmta.operations.listing import OfMessage, required
from fastmta.operations.queued import text
from fastmta.operations.values import stamp

if TYPE_CHECKING:
    from fastmta.delivery.routing import Router
    from fastmta.queue.replies import ReplyClasses
    from fastmta.store.queue import QueuedMessage, QueuedRecipient
    from fastmta.store.suspensions import ByHop, Suspension


class Waiting(msgspec.Struct):
    """A recipient that waits; `hop` is what its owner has in hand, `route_today` another way that it would take now."""

    recipient: str
    state: str
    why: str
    until: str | None
    attempts: int
    last_reply: str
    next_hop: str
    route_today: str | None
    hop: dict[str, Any] | None


class Explained(msgspec.Struct):
    """A queued message and all of its recipients that wait."""

    queue_id: str
    sender: str
    received_at: str
    given_up_at: str
    recipients: list[Waiting]
    requiretls: str | None = None
    deliver_by: str | None = None
    release_at: str | None = None


@act("queue.explain")
async def explain(desk: Desk, asked: OfMessage) -> Explained:
    """Say why each recipient of a queued message waits, and until when."""
    from fastmta.delivery.routing import Router
    from fastmta.queue.replies import ReplyClasses
    from fastmta.queue.retry import RetryPolicy

    message = required(desk, asked.id)
    recipients = desk.store.queue.recipients(message.queue_id)
    policy = RetryPolicy.of(desk.config.delivery)
    stopped = desk.store.suspensions.by_hop()
    known = await in_hand(desk, dict.fromkeys(each.hop for each in recipients))
    sender = message.envelope.reverse_path
    gives_up_s = message.envelope.began_ms / 1000 + policy.lifetime_s(sender)
    terms = message.envelope.terms
    if terms is not None and terms.returns:
        gives_up_s = min(gives_up_s, terms.deliver_by_ms / 1000)
    router = Router(desk.config)
    meanings = ReplyClasses.usable(desk.config.delivery.reply_class_file)
    out = []
    for each in recipients:
        now = None if known is None else known.get(text(each.hop), {})
        out.append(_waiting(desk, router, message, each, stopped, now, meanings))
        await desk.pause()
    received_at = stamp(message.envelope.received_at_ms / 1000)
    told = {} if terms is None else told_terms(terms)
    return Explained(queue_id_text(message.queue_id), text(sender), received_at, stamp(gives_up_s), out, **told)


def suspended_text(stopped: "Suspension") -> str:
    """Since when and by whom, and how it ends."""
    remedy = "--all" if stopped.name == "*" else stopped.name
    since = stamp(stopped.since_ms / 1000)
    return f"the hop is suspended since {since} by {stopped.by}: fastmta queue resume {remedy}"


def _waiting(
    desk: Desk,
    router: "Router",
    message: "QueuedMessage",
    recipient: "QueuedRecipient",
    stopped: "ByHop",
    now: dict[str, Any] | None,
    meanings: "ReplyClasses",
) -> Waiting:
    """`now`: what the owner has in hand for the hop, {} where it is at rest, None where no server runs."""
    why, until_s = _why(recipient, stopped.of(recipient.hop), now, desk.clock.now(), meanings)
    path = recipient.tail.forward_path
    route = router.route(path)
    moved = (
        not router.is_filtered(recipient.hop, path)
        and bool(route.hop)
        and route.hop != recipient.hop
        and not recipient.hop.startswith((b"local:", b"error:"))
    )
    return Waiting(
        text(path),
        RecipientState(recipient.state).name.lower(),
        why,
        None if until_s is None else stamp(until_s),
        recipient.attempts,
        text(recipient.last_reply),
        text(recipient.hop),
        text(route.hop) if moved else None,
        now or None,
    )


def _why(
    recipient: "QueuedRecipient",
    stopped: "Suspension | None",
    hop: dict[str, Any] | None,
    now_s: float,
    meanings: "ReplyClasses",
) -> tuple[str, float | None]:
    """(why it waits, until when in seconds of the wall clock; None: until somebody acts, or for no set time)."""
    if recipient.state == RecipientState.HELD:
        return f"held until it is released: fastmta queue release --id {queue_id_text(recipient.queue_id)}", None
    if stopped is not None:
        return suspended_text(stopped), None
    due_s = recipient.due_ms / 1000
    is_due = due_s <= now_s
    if hop and hop["dead_seconds"]:
        until_s = now_s + hop["dead_seconds"]
        return f"the next hop cannot be reached, and is left alone for a while: {hop['reason']}", max(due_s, until_s)
    if not is_due and recipient.state == RecipientState.ACTIVE and not recipient.attempts:
        return "its sender wants it sent later (FUTURERELEASE)", due_s
    if not is_due:
        found = meanings.of_text(text(recipient.last_reply))
        meaning = "" if found == "other" else f" ({found})"
        return (
            f"deferred by the last answer{meaning}, and tried again when its time has come",
            due_s,
        )
    if hop is None:
        return "due, but no server is running", None
    if not hop:
        return "due: it is taken up within a second", None
    if hop.get("shaped"):
        return f"due: it waits by {hop['shaped']}", None
    if hop["concurrency"] and hop["connections"] >= hop["concurrency"]:
        return f"due: it is being sent, or waits for one of {hop['concurrency']} connections", None
    return "due: it is being sent, or about to be", None
