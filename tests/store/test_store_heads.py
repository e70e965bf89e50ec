"""Head, cuts and body of a message: what is shown, what came, and what a blob refuses."""

import asyncio
import os
import random
from array import array
from pathlib import Path

import pytest

from fastmta._store import (
    CHUNK_BYTES,
    CUTS,
    HEAD_BYTES,
    TABLE_BLOB,
    Store,
    blob_meta,
    blob_read,
    body_of_blob,
    message_read,
    message_rows,
)
from fastmta._unit import Blob
from fastmta.imap.fetch_lines import fetch_lines
from fastmta.model.errors import StoreDamaged
from fastmta.model.limits import MESSAGE_CUTS, MESSAGE_HEAD_BYTES
from fastmta.store import MailStore
from fastmta.store.backup import backup, compact
from fastmta.store.check import check_store
from fastmta.store.salvage import salvage
from tests.store.composing import STRUCTURE, append, new_mailbox, run

HEAD = b"Received: by here\r\n\tid 1; now\r\nAuthentication-Results: here; none\r\n"
WHOLE = 256  # of FETCH's items


def field(number: int, size: int = 60) -> bytes:
    return b"X-%d: " % number + b"x" * size + b"\r\n"


def filed(store: Store, blob: Blob, mailbox_id: int, prefix: bytes = b"") -> None:
    unit = store.new_unit()
    unit.blob(blob)
    append(unit, mailbox_id, blob.blob_id, prefix=prefix)
    assert run(store, unit) == ""


def expected(head: bytes, body: bytes, cuts: list[tuple[int, int]]) -> bytes:
    shown = bytearray(body)
    for start, end in sorted(cuts, reverse=True):
        del shown[start:end]
    return head + bytes(shown)


@pytest.mark.parametrize("size", [1, 500, 1024, 3000, CHUNK_BYTES, CHUNK_BYTES + 500, 3 * CHUNK_BYTES + 1500, 300_000])
@pytest.mark.parametrize("cutting", [False, True])
def test_what_is_shown_is_head_and_body_less_the_cuts(store: Store, size: int, cutting: bool) -> None:
    chance = random.Random(size)
    body = chance.randbytes(size).replace(b"\0", b"\1")
    cuts = []
    if cutting:
        at = 0
        while at < size and len(cuts) < 20:
            start = at + chance.randrange(1 + size // 10)
            end = min(size, start + 1 + chance.randrange(1 + size // 15))
            if start < end:
                cuts.append((start, end))
            at = end + 1
    mailbox_id = new_mailbox(store)
    blob = store.new_blob()
    for at in range(0, size, 70_000):
        blob.feed(body[at : at + 70_000])
    blob.head = HEAD
    for start, end in cuts:
        blob.cut(start, end)
    whole = expected(HEAD, body, cuts)
    assert (blob.size, blob.body_size, blob.head) == (len(whole), size, HEAD)
    filed(store, blob, mailbox_id, b"Return-Path: <>\r\n")
    assert blob_read(store, blob.blob_id, 0, len(whole) + 10) == whole
    assert body_of_blob(store, blob.blob_id, 0, size + 10) == body
    for _ in range(50):
        offset, length = chance.randrange(len(whole) + 5), chance.randrange(len(whole) + 5)
        assert blob_read(store, blob.blob_id, offset, length) == whole[offset : offset + length]
        assert body_of_blob(store, blob.blob_id, offset, length) == body[offset : offset + length]
    shown = b"Return-Path: <>\r\n" + whole
    assert message_read(store, mailbox_id, 1, 0, len(shown) + 1) == shown
    lines, after = fetch_lines(
        MailStore(store).mailboxes, mailbox_id, array("I", [1]), array("I", [1]), WHOLE | 8, 0, 1 << 20
    )
    assert after == 1
    assert b"RFC822.SIZE %d " % len(shown) in lines[:60]
    assert lines.endswith(b"BODY[] {%d}\r\n" % len(shown) + shown + b")\r\n")


@pytest.mark.parametrize("cutting", [False, True])
@pytest.mark.parametrize("fields", [3, 200, 3000])
def test_wanted_fields_are_found_in_head_and_in_a_header_of_many_chunks(
    store: Store, fields: int, cutting: bool
) -> None:
    header = b"".join(field(number) for number in range(fields))
    blob = store.new_blob()
    blob.feed(header + b"Last: here\r\n\r\nbody: text\r\n")
    blob.head = HEAD
    if cutting:
        blob.cut(0, len(field(0)))
    mailbox_id = new_mailbox(store)
    filed(store, blob, mailbox_id)
    names = b"".join(bytes((len(name),)) + name for name in (b"received", b"x-0", b"last", b"body"))
    wanted = [(b"BODY[HEADER.FIELDS (A)]", names, False)]
    lines, after = fetch_lines(
        MailStore(store).mailboxes, mailbox_id, array("I", [1]), array("I", [1]), 0, 0, 1 << 20, sections=wanted
    )
    text = b"Received: by here\r\n\tid 1; now\r\n" + (b"" if cutting else field(0)) + b"Last: here\r\n\r\n"
    if fields == 3000:  # over 64 KB: `read` has it
        assert (lines, after) == (b"", 0)
    else:
        assert lines == b"* 1 FETCH (BODY[HEADER.FIELDS (A)] {%d}\r\n" % len(text) + text + b")\r\n"


def test_cuts_that_touch_become_one_and_there_are_sixty_four(store: Store) -> None:
    blob = store.new_blob()
    blob.feed(b"x" * 1000)
    for start in range(0, 10 * CUTS, 10):
        blob.cut(start, start + 5)
    with pytest.raises(ValueError, match="more than 64"):
        blob.cut(900, 901)
    blob.cut(3, 12)  # joins the first two
    blob.cut(900, 901)
    assert blob.size == 1000 - 5 * CUTS - 5 - 1
    mailbox_id = new_mailbox(store)
    filed(store, blob, mailbox_id)
    meta = blob_meta(store.get(TABLE_BLOB, blob.blob_id.to_bytes(8, "big")) or b"")
    assert meta.cuts[:2] == ((0, 15), (20, 25))
    assert len(meta.cuts) == CUTS


@pytest.mark.parametrize(
    "head", [b"no line end", b" begins: folded\r\n", b"A: b\r\n\r\n", b"\r\n", b"A: b\r\n\r\nC: d\r\n"]
)
def test_a_head_is_whole_fields(store: Store, head: bytes) -> None:
    blob = store.new_blob()
    with pytest.raises(ValueError, match="whole fields"):
        blob.head = head
    blob.abandon()


def test_the_bounds_are_those_of_limits_py() -> None:
    assert (HEAD_BYTES, CUTS) == (MESSAGE_HEAD_BYTES, MESSAGE_CUTS)


def test_a_head_and_all_cuts_fit_beside_each_other_in_one_page(store: Store) -> None:
    blob = store.new_blob()
    blob.feed(b"x" * 1000)
    with pytest.raises(ValueError, match="more than"):
        blob.head = b"A: " + b"a" * (HEAD_BYTES - 4) + b"\r\n"
    blob.head = b"A: " + b"a" * (HEAD_BYTES - 5) + b"\r\n"
    for start in range(0, 10 * CUTS, 10):
        blob.cut(start, start + 5)
    filed(store, blob, new_mailbox(store))
    record = store.get(TABLE_BLOB, blob.blob_id.to_bytes(8, "big")) or b""
    assert len(record) <= 4080
    assert blob_read(store, blob.blob_id, 0, 3) == b"A: "


@pytest.mark.parametrize(("start", "end"), [(5, 5), (6, 5), (0, 11)])
def test_a_cut_lies_in_what_came(store: Store, start: int, end: int) -> None:
    blob = store.new_blob()
    blob.feed(b"0123456789")
    with pytest.raises(ValueError, match="inside"):
        blob.cut(start, end)
    blob.abandon()


@pytest.mark.parametrize("settle", [False, True])
def test_a_body_can_be_read_while_it_is_received(store: Store, settle: bool) -> None:
    data = os.urandom(1_200_000)
    blob = store.new_blob()
    for at in range(0, len(data), 90_000):
        blob.feed(data[at : at + 90_000])
        seen = min(len(data), at + 90_000)
        if settle and at % 180_000 == 0:
            store.commit_sync(store.new_unit())
            store.dispatch()
        assert blob.read(0, seen + 1) == data[:seen]
        assert blob.read(seen - 100, 1000) == data[seen - 100 : seen]
        assert blob.read(max(0, seen - 300_000), 290_000) == data[max(0, seen - 300_000) :][:290_000][:seen]
    blob.head = HEAD
    assert blob.read(0, 10) == data[:10]
    filed(store, blob, new_mailbox(store))
    assert blob_read(store, blob.blob_id, 0, 2_000_000) == HEAD + data
    with pytest.raises(RuntimeError):
        blob.read(0, 1)


def test_a_head_survives_that_the_body_goes_on(store: Store) -> None:
    blob = store.new_blob()
    blob.head = HEAD
    blob.feed(b"y" * 700_000)
    filed(store, blob, new_mailbox(store))
    assert blob_read(store, blob.blob_id, 0, len(HEAD) + 1) == HEAD + b"y"


def in_a_mailbox(store: Store, cutting: bool = True) -> tuple[int, Blob, bytes]:
    """(mailbox, blob, what is shown) of one message."""
    body = field(0) + field(1) + b"\r\n" + b"text\r\n" * 2000
    blob = store.new_blob()
    blob.feed(body)
    blob.head = HEAD
    cuts = [(0, len(field(0)))] if cutting else []
    for start, end in cuts:
        blob.cut(start, end)
    mailbox_id = new_mailbox(store)
    filed(store, blob, mailbox_id, b"Return-Path: <>\r\n")
    return mailbox_id, blob, b"Return-Path: <>\r\n" + expected(HEAD, body, cuts)


@pytest.mark.disk
def test_salvage_backup_and_compaction_keep_head_and_cuts(tmp_path: Path) -> None:
    mail = MailStore.open(tmp_path / "store", sync=False)
    account = asyncio.run(mail.accounts.add("a@example.org", "hash"))
    body = field(0) + field(1) + b"\r\n" + b"text\r\n" * 2000
    blob = mail.mailboxes.new_blob()
    blob.feed(body)
    blob.head = HEAD
    blob.cut(0, len(field(0)))
    asyncio.run(mail.mailboxes.append(account.inbox_id, blob, internal_date_s=1, structure=STRUCTURE))
    shown = expected(HEAD, body, [(0, len(field(0)))])
    backup(mail, tmp_path / "copy")
    mail.close()
    compact(tmp_path / "copy")
    assert salvage(tmp_path / "store", tmp_path / "saved").lost == []
    for name in ("copy", "saved"):
        mail = MailStore.open(tmp_path / name, sync=False, create=False)
        assert mail.mailboxes.read(account.inbox_id, 1, 0, 100_000) == shown
        assert check_store(mail.raw).problems == []
        mail.close()


def test_a_copy_shows_the_same_and_has_its_own_moment(store: Store) -> None:
    mailbox_id, _, shown = in_a_mailbox(store)
    other = new_mailbox(store, name=b"Other")
    unit = store.new_unit()
    unit.copy(mailbox_id, array("I", [1]).tobytes(), other, False)
    assert run(store, unit) == ""
    assert message_read(store, other, 1, 0, 100_000) == shown
    first, second = (message_rows(store, each, None)[0] for each in (mailbox_id, other))
    assert first[:3] == (1, first[1], second[2])
    assert 0 < first[9] <= second[9]


@pytest.mark.parametrize("place", ["head", "cuts"])
def test_a_damaged_head_or_cut_is_told(store: Store, place: str) -> None:
    mailbox_id, blob, shown = in_a_mailbox(store)
    key = blob.blob_id.to_bytes(8, "big")
    record = bytearray(store.get(TABLE_BLOB, key) or b"")
    sound = bytes(record)
    at = record.index(HEAD)
    if place == "head":
        record[at + 14] ^= 1
    else:
        record[at - 8] ^= 1  # the cut begins one octet later: what is shown has another size
    unit = store.new_unit()
    unit.put(TABLE_BLOB, key, bytes(record))
    assert run(store, unit) == ""
    if place == "head":
        assert blob_read(store, blob.blob_id, 0, 100_000, False, True) and store.damage == ""  # it has just come
        assert message_read(store, mailbox_id, 1, 0, 100_000) != shown
        assert "digest" in store.damage
        assert check_store(store).problems == [f"the bytes of blob {blob.blob_id} are damaged"]
    else:
        with pytest.raises(StoreDamaged):
            message_read(store, mailbox_id, 1, 0, 100_000)
    unit = store.new_unit()
    unit.put(TABLE_BLOB, key, sound)
    assert run(store, unit) == ""
