"""Short ways to compose units in the tests of the store."""

from array import array

import msgspec

from fastmta._store import Store
from fastmta._unit import Blob, Unit
from fastmta.model.envelope import Envelope, RecipientTail

NOW_MS = 1_700_000_000_000
STRUCTURE = (4).to_bytes(4, "little") + bytes(12) + b"(NIL"
HOP = b"smtp:example.net"


def envelope(sender: bytes = b"sender@example.org", at_ms: int = NOW_MS, tenant: str = "") -> bytes:
    return msgspec.msgpack.encode(Envelope(sender, at_ms, 100, 0, tenant=tenant))


def tail(path: bytes = b"someone@Example.NET", tenant: str = "Getter") -> bytes:
    return msgspec.msgpack.encode(RecipientTail(path, tenant=tenant))


def blob_of(store: Store, data: bytes = b"Subject: x\r\n\r\nhello\r\n") -> Blob:
    blob = store.new_blob()
    blob.feed(data)
    return blob


def run(store: Store, unit: Unit) -> str:
    """Commits; "" or the word of its failure."""
    store.commit_sync(unit)
    return unit.failure or ""


def new_mailbox(store: Store, account_id: int = 1, name: bytes = b"INBOX", now_s: int = 1000) -> int:
    mailbox_id = store.new_id()
    unit = store.new_unit()
    unit.mailbox_new(mailbox_id, account_id, name, b"", now_s)
    assert run(store, unit) == ""
    return mailbox_id


def append(
    unit: Unit, mailbox_id: int, blob_id: int, *, flags: int = 0, keywords: bytes = b"", prefix: bytes = b""
) -> None:
    unit.append(mailbox_id, blob_id, prefix, flags, keywords, 1_700_000_000, 0, STRUCTURE)


def file(store: Store, mailbox_id: int, data: bytes = b"hello\r\n", *, flags: int = 0, keywords: bytes = b"") -> int:
    """Files one message; its uid."""
    blob = blob_of(store, data)
    unit = store.new_unit()
    unit.blob(blob)
    append(unit, mailbox_id, blob.blob_id, flags=flags, keywords=keywords)
    assert run(store, unit) == ""
    uid: int = unit.results[0][1]
    return uid


def enqueue(
    store: Store, *states: int, hop: bytes = HOP, lane: int = 0, due_ms: int = NOW_MS, data: bytes = b"q\r\n"
) -> int:
    """Queues one message with a recipient in each of the states; its queue id."""
    blob = blob_of(store, data)
    queue_id = store.new_id()
    unit = store.new_unit()
    unit.blob(blob)
    unit.enqueue(queue_id, blob.blob_id, envelope())
    for n, state in enumerate(states or (1,)):
        unit.recipient(queue_id, n, hop, lane, state, due_ms, tail())
    assert run(store, unit) == ""
    return queue_id


def move(store: Store, queue_id: int, n: int, before: int, after: int, due_ms: int = NOW_MS) -> str:
    unit = store.new_unit()
    unit.move_recipient(queue_id, n, before, after, 1, due_ms, b"451 later")
    return run(store, unit)


def uids(*numbers: int) -> bytes:
    return array("I", numbers).tobytes()
