"""After deletions free pages are used again, whatever they lie between: no growth while a fifth of the file is free."""

from pathlib import Path

from fastmta._store import TABLE_BLOB, TABLE_TRASH, Store
from tests.store.composing import HOP, append, blob_of, envelope, new_mailbox, run, tail, uids

SIZE = 50_000


def free_part(store: Store) -> float:
    stats = store.stats()
    return float(stats["free_bytes"] / stats["map_used_bytes"])


def churn(store: Store, messages: int) -> int:
    """A mailbox of which every other message of 4 KB was deleted."""
    mailbox_id = new_mailbox(store)
    units = []
    for _ in range(messages):
        unit = store.new_unit()
        blob = blob_of(store, b"x" * 4096)
        unit.blob(blob)
        append(unit, mailbox_id, blob.blob_id)
        units.append(unit)
        store.submit(unit, None)
    store.commit_sync(store.new_unit())
    store.dispatch()
    unit = store.new_unit()
    unit.expunge(mailbox_id, uids(*range(1, messages, 2)), False)
    assert run(store, unit) == ""
    return mailbox_id


def test_free_pages_between_others_are_used_again(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "churned"), sync=False, trash_delay_ms=0)
    mailbox_id = churn(store, 3000)
    while store.scan(TABLE_TRASH, b"", b"", 1):
        store.reap()
    assert free_part(store) > 0.3
    before = store.stats()["map_used_bytes"]
    filed = 0
    while free_part(store) > 0.2:
        unit = store.new_unit()
        blob = blob_of(store, b"y" * SIZE)
        unit.blob(blob)
        append(unit, mailbox_id, blob.blob_id)
        assert run(store, unit) == ""
        filed += 1
    assert filed > 20
    assert store.stats()["map_used_bytes"] == before
    store.close()


def test_a_relayed_message_of_fifty_kilobytes_leaves_nothing_in_the_trash(store: Store) -> None:
    queue_id = store.new_id()
    unit = store.new_unit()
    blob = blob_of(store, b"z" * SIZE)
    blob.head = b"Received: by here\r\n"
    unit.blob(blob)
    unit.enqueue(queue_id, blob.blob_id, envelope())
    unit.recipient(queue_id, 0, HOP, 0, 1, 5, tail())
    assert run(store, unit) == ""
    unit = store.new_unit()
    unit.move_recipient(queue_id, 0, 1, 4, 1, 0, b"")
    assert run(store, unit) == ""
    assert store.scan(TABLE_TRASH, b"") == []
    assert store.scan(TABLE_BLOB, b"") == []


def test_no_chunk_is_longer_than_a_page(store: Store) -> None:
    mailbox_id = new_mailbox(store)
    for size in (1, 4_000, SIZE, 700_000):
        unit = store.new_unit()
        blob = blob_of(store, b"w" * size)
        unit.blob(blob)
        append(unit, mailbox_id, blob.blob_id)
        assert run(store, unit) == ""
    assert max(len(value) for _, value in store.scan(TABLE_BLOB, b"", b"", 10_000)) <= 4080
