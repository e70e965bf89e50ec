"""A queued recipient as listings tell it, at the socket and where no server runs, and which of them are asked for."""

import msgspec

from fastmta.model.envelope import RecipientState
from fastmta.model.ids import queue_id_text
from fastmta.model.routes import hop_named
from fastmta.store.queue import QueuedMessage, QueuedRecipient, Selection
from fastmta.store.suspensions import ByHop


class Row(msgspec.Struct, gc=False):
    """A queued recipient as it is listed; cli/queue_listing.py reads it."""

    id: str
    n: int
    state: str
    sender: str
    recipient: str
    original: str
    hop: str
    attempts: int
    due_ms: int
    received_ms: int
    size: int
    reply: str
    suspended_ms: int | None = None  # since when its hop is suspended
    suspended_by: str | None = None


def row(message: QueuedMessage, recipient: QueuedRecipient, suspended: ByHop) -> Row:
    """`suspended`: as store.suspensions.by_hop() gives it."""
    envelope, tail = message.envelope, recipient.tail
    suspension = suspended.of(recipient.hop)
    return Row(
        queue_id_text(message.queue_id),
        recipient.n,
        RecipientState(recipient.state).name.lower(),
        _text(envelope.reverse_path),
        _text(tail.forward_path),
        _text(tail.original),
        _text(recipient.hop),
        recipient.attempts,
        recipient.due_ms,
        envelope.received_at_ms,
        envelope.size_bytes,
        _text(recipient.last_reply),
        None if suspension is None else suspension.since_ms,
        None if suspension is None else suspension.by,
    )


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """Which rows are asked for."""

    state: int | None = None
    sender: str | None = None
    recipient: str | None = None
    domain: str | None = None
    hop: str | None = None
    error: str | None = None
    limit: int = 2**62

    def selection(self) -> Selection:
        return Selection(
            self.state,
            _raw(self.sender),
            _raw(self.recipient),
            _raw(self.domain),
            hop=None if self.hop is None else hop_named(self.hop),
            error=_raw(self.error),
        )


def _raw(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")
