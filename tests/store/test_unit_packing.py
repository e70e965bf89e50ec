"""Units written down and read again: `Unit.pack`, `Engine.unpack`."""

import struct

import pytest

from fastmta._store import TABLE_ALIAS, TABLE_BLOB, Store
from fastmta.store import MailStore
from tests.store.composing import HOP, NOW_MS, append, blob_of, envelope, new_mailbox, run, tail, uids


def packed_message(store: Store, mailbox_id: int, data: bytes, head: bytes = b"") -> bytes:
    """A unit that files `data`, written down and never submitted."""
    blob = blob_of(store, data)
    blob.head = head
    unit = store.new_unit()
    unit.blob(blob)
    append(unit, mailbox_id, blob.blob_id)
    return unit.pack()


@pytest.mark.parametrize("size", [0, 10, 4064, 4065, 70_000, 262_143])
def test_a_packed_unit_does_what_the_unit_would_have_done(store: Store, size: int) -> None:
    box = new_mailbox(store, 1, b"INBOX")
    data = (b"0123456789" * (size // 10 + 1))[:size]
    blob = blob_of(store, data)
    blob.head = b"Received: x\r\n"
    if size > 100:
        blob.cut(20, 40)
    unit = store.new_unit()
    unit.blob(blob)
    append(unit, box, blob.blob_id, flags=5, keywords=b"b a")
    again = store.unpack(unit.pack())
    assert again.pack() == unit.pack()
    assert run(store, again) == ""
    shown = data if size <= 100 else data[:20] + data[40:]
    mail = MailStore(store)
    assert mail.mailboxes.read(box, 1, 0, 10**6) == b"Received: x\r\n" + shown
    assert [(row.flags, row.keywords) for row in mail.mailboxes.rows(box)] == [(5, b"a b")]


def test_several_bodies_of_one_unit_stay_apart(store: Store) -> None:
    box = new_mailbox(store, 1, b"INBOX")
    unit = store.new_unit()
    for letter in b"abc":
        blob = blob_of(store, bytes([letter]) * 5000)
        unit.blob(blob)
        append(unit, box, blob.blob_id)
    assert run(store, store.unpack(unit.pack())) == ""
    mailboxes = MailStore(store).mailboxes
    assert [mailboxes.read(box, uid, 0, 10**6)[:1] for uid in (1, 2, 3)] == [b"a", b"b", b"c"]


def test_every_kind_of_operation_survives(store: Store) -> None:
    box = new_mailbox(store, 1, b"INBOX")
    blob, queue_id, other = blob_of(store, b"x" * 100), store.new_id(), store.new_id()
    unit = store.new_unit()
    unit.put_new(TABLE_ALIAS, b"a", b"1")
    unit.put(TABLE_ALIAS, b"a", b"2")
    unit.guard(TABLE_ALIAS, b"a", b"2")
    unit.guard(TABLE_ALIAS, b"b", None)
    unit.delete(TABLE_ALIAS, b"a")
    unit.count(b"c", 7, -1)
    unit.blob(blob)
    append(unit, box, blob.blob_id)
    unit.ref(blob.blob_id, 1)
    unit.enqueue(queue_id, blob.blob_id, envelope())
    unit.recipient(queue_id, 0, HOP, 0, 1, NOW_MS, tail())
    unit.reroute(queue_id, 0, b"smtp:other.example", 1)
    unit.move_recipient(queue_id, 0, 0, 2, 1, NOW_MS, b"later")
    unit.move_each(queue_id.to_bytes(8, "big") + bytes(4), 1 << 2, NOW_MS, 3)
    unit.deliver(box, blob.blob_id, b"", 0, b"", 1, 0, b"", queue_id, 1, HOP, tail(), envelope())
    unit.flags(box, uids(1), 1, 8, b"k", -1)
    unit.mailbox_new(other, 1, b"Other", b"", 1)
    unit.copy(box, uids(1), other, False)
    unit.expunge(box, uids(1), True, False, 1000)
    unit.release(1, bytes(20))
    unit.uidl(box, b"a name")
    unit.take_recent(box)
    unit.mailbox_rename(other, b"Other", b"New")
    unit.mailbox_list_version(1, 3)
    unit.quota(1, 10**6)
    unit.mailbox_gone(other)
    unit.ref(blob.blob_id, -1)
    again = store.unpack(unit.pack())
    assert again.pack() == unit.pack()
    assert run(store, again) == ""
    assert store.get(TABLE_ALIAS, b"a") is None
    assert again.results[0] == 7


def test_a_packed_unit_is_a_value(store: Store) -> None:
    """Its blob may be used or forgotten; and the same octets may be carried out where they were not before."""
    box = new_mailbox(store, 1, b"INBOX")
    packed = packed_message(store, box, b"x" * 5000)
    assert store.scan(TABLE_BLOB, b"") == []
    assert run(store, store.unpack(packed)) == ""
    assert len(MailStore(store).mailboxes.uids(box)) == 1


def test_a_cut_or_longer_unit_is_refused(store: Store) -> None:
    packed = packed_message(store, new_mailbox(store, 1, b"INBOX"), b"x" * 5000, b"A: b\r\n")
    for n in [*range(0, len(packed) - 5000, 7), len(packed) - 1]:
        with pytest.raises(ValueError, match="packed unit"):
            store.unpack(packed[:n])
    with pytest.raises(ValueError, match="longer"):
        store.unpack(packed + b"\0")


@pytest.mark.parametrize(
    ("offset", "form", "value"),
    [
        (0, "<I", 1),  # the magic number
        (4, "<I", 2),  # bodies
        (4, "<I", 0xFFFFFFFF),
        (8, "<Q", 1 << 60),  # the operations' length
        (16, "<I", 0),  # an operation's length
        (16, "<I", 0xFFFFFFF8),
        (20, "<B", 0),  # its code
        (20, "<B", 29),
        (28, "<I", 1),  # which body it brings
    ],
)
def test_damaged_numbers_are_refused(store: Store, offset: int, form: str, value: int) -> None:
    packed = bytearray(packed_message(store, new_mailbox(store, 1, b"INBOX"), b"x" * 5000))
    struct.pack_into(form, packed, offset, value)
    with pytest.raises(ValueError, match="packed unit"):
        store.unpack(bytes(packed))


def test_parts_longer_than_their_operation_are_refused(store: Store) -> None:
    unit = store.new_unit()
    unit.put(TABLE_ALIAS, b"key", b"value")
    packed = bytearray(unit.pack())
    at = packed.index(struct.pack("<II", 3, 5))
    for lengths in ((4, 500), (600, 5), (0xFFFFFFFF, 0xFFFFFFFF)):
        struct.pack_into("<II", packed, at, *lengths)
        with pytest.raises(ValueError, match="packed unit"):
            store.unpack(bytes(packed))


def test_half_a_recipient_is_refused(store: Store) -> None:
    unit = store.new_unit()
    unit.move_each(bytes(24), 1 << 1, NOW_MS, 3)
    packed = bytearray(unit.pack())
    struct.pack_into("<I", packed, packed.index(struct.pack("<II", 24, 0)), 20)
    with pytest.raises(ValueError, match="packed unit"):
        store.unpack(bytes(packed))


def test_a_table_that_is_none_is_refused(store: Store) -> None:
    unit = store.new_unit()
    unit.put(TABLE_ALIAS, b"key", b"value")
    packed = bytearray(unit.pack())
    assert packed[21] == TABLE_ALIAS
    for table in (0, 200):
        packed[21] = table
        with pytest.raises(ValueError, match="packed unit"):
            store.unpack(bytes(packed))


def test_random_damage_never_harms_the_process(store: Store) -> None:
    """What is taken in spite of a changed bit may be refused by the operations, and nothing else."""
    box = new_mailbox(store, 1, b"INBOX")
    sound = packed_message(store, box, b"x" * 300, b"A: b\r\n")
    for bit in range(0, len(sound) * 8, 3):
        packed = bytearray(sound)
        packed[bit // 8] ^= 1 << bit % 8
        try:
            unit = store.unpack(bytes(packed))
        except ValueError:
            continue
        unit.guard(TABLE_ALIAS, b"never there", b"so it is taken back")
        assert run(store, unit) != ""
