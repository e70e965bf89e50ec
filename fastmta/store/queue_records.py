"""What is read of the queue: messages, recipients, and which of them a selection means."""

from typing import Final

import msgspec

from fastmta.model.envelope import Envelope, RecipientTail, tenant_of

# What records say of their own rows elsewhere; _store_parts/records.pxi has the same.
RECORD_INDEXED: Final = 3  # offset of a recipient's mark
RECORD_COUNTED: Final = 2  # and of a message's
HAS_ROWS: Final = 1  # by sender, domain and age
FRESH: Final = 2  # as it was accepted, and in no index yet
INDEXED: Final = 3  # in all of them and in the counts, but for those by tenant
INDEXED_BY_TENANT: Final = 7  # in these too
HELD_LANE: Final = 4  # added to a held recipient's lane


class QueuedMessage(msgspec.Struct, gc=False):
    """A message in the queue; `live` of its recipients are still owed a result."""

    queue_id: int
    blob_id: int
    live: int
    envelope: Envelope


class QueuedRecipient(msgspec.Struct, gc=False):
    """A recipient that is owed a result."""

    queue_id: int
    n: int
    hop: bytes
    lane: int
    state: int
    attempts: int
    due_ms: int
    last_reply: bytes
    tail: RecipientTail


Movable = tuple[int, int, bytes]  # queue id, n, forward path


class Selection(msgspec.Struct, frozen=True, gc=False):
    """Which recipients `walk` gives; what is None does not select. `error`: what their last reply has in it.

    Letters of either case are the same, but for those of a hop.
    """

    state: int | None = None
    sender: bytes | None = None
    recipient: bytes | None = None
    domain: bytes | None = None
    received_before_ms: int | None = None
    hop: bytes | None = None
    error: bytes | None = None
    tenant: bytes | None = None

    @property
    def in_domain(self) -> bytes | None:
        """The domain that all of them have."""
        return self.domain if self.domain is not None or self.recipient is None else self.recipient.rpartition(b"@")[2]

    @property
    def has_index(self) -> bool:
        """Whether an index finds those that were deferred or held."""
        return self.sender is not None or self.in_domain is not None or self.received_before_ms is not None


def selects(selection: Selection, message: QueuedMessage, recipient: QueuedRecipient) -> bool:
    """Whether a selection means this recipient."""
    if selection.state is not None and recipient.state != selection.state:
        return False
    if selection.hop is not None and recipient.hop != selection.hop:
        return False
    if selection.sender is not None and message.envelope.reverse_path.lower() != selection.sender.lower():
        return False
    path = recipient.tail.forward_path.lower()
    if selection.recipient is not None and path != selection.recipient.lower():
        return False
    if selection.domain is not None and path.rpartition(b"@")[2] != selection.domain.lower():
        return False
    if selection.error is not None and selection.error.lower() not in recipient.last_reply.lower():
        return False
    if (
        selection.tenant is not None
        and tenant_of(message.envelope, recipient.tail).encode().lower() != selection.tenant.lower()
    ):
        return False
    bound = selection.received_before_ms
    return bound is None or message.envelope.received_at_ms < bound
