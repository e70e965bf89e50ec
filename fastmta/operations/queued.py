"""A queued recipient as it is listed."""

from typing import TYPE_CHECKING

import msgspec

from fastmta.model.envelope import RecipientState, tenant_of
from fastmta.model.ids import queue_id_text
from fastmta.operations.values import stamp

if TYPE_CHECKING:
    from fastmta.store.queue import QueuedMessage, QueuedRecipient
    from fastmta.store.suspensions import ByHop


class Recipient(msgspec.Struct):
    """A queued recipient."""

    queue_id: str
    n: int
    state: str
    sender: str
    recipient: str
    original_recipient: str
    next_hop: str
    suspended: bool
    suspended_since: str | None
    suspended_by: str | None
    attempts: int
    due_at: str | None
    received_at: str
    size: int
    last_reply: str
    tenant: str = ""


def record(message: "QueuedMessage", recipient: "QueuedRecipient", stopped: "ByHop") -> Recipient:
    """A queued recipient as it is listed. `stopped`: what is suspended."""
    suspension = stopped.of(recipient.hop)
    return Recipient(
        queue_id_text(message.queue_id),
        recipient.n,
        RecipientState(recipient.state).name.lower(),
        text(message.envelope.reverse_path),
        text(recipient.tail.forward_path),
        text(recipient.tail.original),
        text(recipient.hop),
        suspension is not None,
        None if suspension is None else stamp(suspension.since_ms / 1000),
        None if suspension is None else suspension.by,
        recipient.attempts,
        None if recipient.state == RecipientState.HELD else stamp(recipient.due_ms / 1000),
        stamp(message.envelope.received_at_ms / 1000),
        message.envelope.size_bytes,
        text(recipient.last_reply),
        tenant_of(message.envelope, recipient.tail),
    )


def text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
