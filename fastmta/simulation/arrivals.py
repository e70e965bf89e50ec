"""A message that comes into a simulation, by the one intake: resolved by the directory, posted, and told of."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fastmta._intake import Body, Posting, Recipient
from fastmta._mime import Structure
from fastmta.model.envelope import Envelope
from fastmta.runtime.events import teller

if TYPE_CHECKING:
    from fastmta.simulation.parts import Parts


async def arrive(parts: "Parts", envelope: Envelope, recipients: Sequence[Recipient], content: bytes) -> int:
    """Commits a message and gives its queue id; `envelope.size_bytes` becomes the content's."""
    store = parts.store
    queue_id = store.new_id()
    blob = store.new_blob()
    blob.feed(content)
    envelope.size_bytes = blob.size
    structure = b""
    if any(each.has_local for each in recipients):
        parser = Structure()
        parser.feed(content)
        structure = parser.finish(head=b"")
    posting = Posting(teller(parts.log, parts.clock, parts.cells), queue_id, envelope, Body(blob, structure))
    unit = store.new_unit()
    posting.to(recipients).write(unit)
    await store.commit(unit)
    posting.committed(unit)
    return queue_id
