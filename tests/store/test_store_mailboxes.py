"""Mailboxes inside the transaction: uids, modseqs, counts, quota, flags, expunge, copy, move, and FETCH's lines."""

import asyncio
import os
from array import array
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fastmta._store import Store
from fastmta._unit import Unit
from fastmta.imap.fetch_lines import fetch_lines
from fastmta.model.appended import Appended
from fastmta.model.errors import Refused
from fastmta.runtime.clock import ManualClock
from fastmta.store import MailStore
from fastmta.store.accounts import Account
from fastmta.store.check import check_store
from tests.store.composing import STRUCTURE, append, blob_of, file, new_mailbox, run, uids


@pytest.fixture
async def mail(tmp_path: Path) -> AsyncIterator[MailStore]:
    mail = MailStore.open(tmp_path / "store", sync=False, trash_delay_ms=0, clock=ManualClock())
    yield mail
    assert check_store(mail.raw).problems == []
    mail.close()


@pytest.fixture
async def account(mail: MailStore) -> Account:
    return await mail.accounts.add("User@Example.org", "hash")


async def put(mail: MailStore, mailbox_id: int, data: bytes = b"hello\r\n", **more: object) -> int:
    blob = mail.mailboxes.new_blob()
    blob.feed(data)
    _, uid = await mail.mailboxes.append(mailbox_id, blob, internal_date_s=1, structure=STRUCTURE, **more)  # type: ignore[arg-type]
    return uid


def flag(
    store: Store, mailbox_id: int, which: bytes, mode: int, flags: int, keywords: bytes = b"", since: int = -1
) -> Unit:
    unit = store.new_unit()
    unit.flags(mailbox_id, which, mode, flags, keywords, since)
    assert run(store, unit) == ""
    return unit


async def test_uids_and_modseqs_ascend(mail: MailStore, account: Account) -> None:
    assert [await put(mail, account.inbox_id) for _ in range(3)] == [1, 2, 3]
    box = mail.mailboxes.by_id(account.inbox_id)
    assert box is not None
    assert (box.exists, box.unseen, box.uid_next, box.highest_modseq, box.size_bytes) == (3, 3, 4, 4, 21)
    assert mail.mailboxes.uids(account.inbox_id) == array("I", [1, 2, 3])


async def test_uid_validity_ascends_whatever_the_clock_says(mail: MailStore, account: Account) -> None:
    first = await mail.mailboxes.create(account.id, "a")
    await mail.mailboxes.delete(first.id)
    assert isinstance(mail.clock, ManualClock)
    mail.clock.advance(-100_000)
    second = await mail.mailboxes.create(account.id, "a")
    assert second.uid_validity == first.uid_validity + 1
    mail.clock.advance(200_000)
    third = await mail.mailboxes.create(account.id, "b")
    assert third.uid_validity == int(mail.clock.now())


def made(mail: MailStore, data: bytes) -> Appended:
    blob = mail.mailboxes.new_blob()
    blob.feed(data)
    return Appended(blob, STRUCTURE, 1)


async def test_quota_is_decided_in_the_transaction(mail: MailStore, account: Account) -> None:
    await mail.accounts.set_quota(account.address, 20)
    await put(mail, account.inbox_id, b"x" * 15)
    await put(mail, account.inbox_id, b"x" * 5)
    with pytest.raises(Refused, match="quota"):
        await put(mail, account.inbox_id, b"x")
    sent = mail.mailboxes.get(account.id, "Sent")
    assert sent is not None
    with pytest.raises(Refused, match="quota"):
        await mail.mailboxes.copy(account.inbox_id, array("I", [1]), sent.id)
    await mail.mailboxes.copy(account.inbox_id, array("I", [1]), sent.id, move=True)  # needs no room
    await mail.mailboxes.expunge(account.inbox_id, only_deleted=False)
    assert mail.accounts.usage(account.id) == (15, 1)
    await put(mail, account.inbox_id, b"x" * 5)


async def test_the_quota_of_messages_is_decided_in_the_transaction(mail: MailStore, account: Account) -> None:
    await mail.accounts.set_quota(account.address, quota_messages=3)
    await put(mail, account.inbox_id, b"x")
    sent = mail.mailboxes.get(account.id, "Sent")
    assert sent is not None
    await mail.mailboxes.copy(account.inbox_id, array("I", [1]), sent.id)
    assert not mail.accounts.is_full(account.id, account.inbox_id)
    with pytest.raises(Refused, match="quota"):  # all of them or none
        await mail.mailboxes.append_many(account.inbox_id, [made(mail, b"y"), made(mail, b"z")])
    await put(mail, account.inbox_id, b"y")
    assert mail.accounts.is_full(account.id, account.inbox_id)
    for refused in (
        put(mail, account.inbox_id, b"z"),
        put(mail, account.inbox_id, b""),
        mail.mailboxes.copy(account.inbox_id, array("I", [1]), sent.id),
    ):
        with pytest.raises(Refused, match="quota"):
            await refused
    await mail.mailboxes.copy(account.inbox_id, array("I", [1]), sent.id, move=True)  # needs no room
    assert mail.accounts.usage(account.id) == (3, 3)
    await mail.accounts.set_quota(account.address, 10**9)
    known = mail.accounts.lookup(account.address)
    assert known is not None and (known.quota_bytes, known.quota_messages) == (10**9, 3)
    with pytest.raises(Refused, match="quota"):
        await put(mail, account.inbox_id, b"z")
    await mail.mailboxes.expunge(account.inbox_id, only_deleted=False)
    await put(mail, account.inbox_id, b"z")
    await mail.accounts.set_quota(account.address, 0, 0)
    assert mail.mailboxes.usage(account.id) == (3, 3, 0, 0)
    for _ in range(3):
        await put(mail, account.inbox_id, b"z")


async def test_simultaneous_messages_never_pass_the_quota(mail: MailStore, account: Account) -> None:
    await mail.accounts.set_quota(account.address, quota_messages=5)
    puts = [put(mail, account.inbox_id, b"x") for _ in range(20)]
    done = await asyncio.gather(*puts, return_exceptions=True)
    assert sum(isinstance(each, Refused) for each in done) == 15
    assert mail.accounts.usage(account.id) == (5, 5)


async def test_the_prefix_counts_and_stands_in_front(mail: MailStore, account: Account) -> None:
    data = os.urandom(130_000)
    await put(mail, account.inbox_id, data, prefix=b"Return-Path: <>\r\n")
    whole = b"Return-Path: <>\r\n" + data
    row = mail.mailboxes.rows(account.inbox_id)[0]
    assert row.size == len(whole)
    read = mail.mailboxes.read
    for offset, length in ((0, 5), (10, 20), (17, 3), (0, 200_000), (61_000, 70_000), (130_016, 9), (130_017, 1)):
        assert read(account.inbox_id, 1, offset, length) == whole[offset : offset + length]
    assert read(account.inbox_id, 2, 0, 10) is None


async def test_append_many_is_all_or_none(mail: MailStore, account: Account) -> None:
    await mail.accounts.set_quota(account.address, 10)

    def message(size: int) -> Appended:
        blob = mail.mailboxes.new_blob()
        blob.feed(b"x" * size)
        return Appended(blob, STRUCTURE, 1)

    with pytest.raises(Refused, match="quota"):
        await mail.mailboxes.append_many(account.inbox_id, [message(6), message(6)])
    assert mail.mailboxes.uids(account.inbox_id) == array("I")
    validity, got = await mail.mailboxes.append_many(account.inbox_id, [message(5), message(5)])
    assert validity > 0
    assert got == array("I", [1, 2])


def test_append_to_a_mailbox_that_is_not_there_is_refused(store: Store) -> None:
    blob = blob_of(store)
    unit = store.new_unit()
    unit.blob(blob)
    append(unit, 77, blob.blob_id)
    assert run(store, unit) == "missing"


def test_flags_replace_add_and_remove(store: Store) -> None:
    box = new_mailbox(store)
    file(store, box, flags=1, keywords=b"b")
    mail = MailStore(store)
    for mode, flags, keywords, expected in (
        (1, 8, b"C a", (9, b"a b C")),
        (1, 8, b"A c", (9, b"a b C")),
        (2, 1, b"B", (8, b"a C")),
        (2, 31, b"zz", (0, b"a C")),
        (0, 2, b"", (2, b"")),
        (0, 1, b"x y", (1, b"x y")),
    ):
        flag(store, box, uids(1), mode, flags, keywords)
        row = mail.mailboxes.rows(box)[0]
        assert (row.flags, row.keywords) == expected


def test_flags_that_change_nothing_leave_the_modseq(store: Store) -> None:
    box = new_mailbox(store)
    file(store, box)
    before = MailStore(store).mailboxes.modseq(box)
    assert flag(store, box, uids(1, 99), 2, 1).results == [(0, b"")]
    assert MailStore(store).mailboxes.modseq(box) == before
    assert flag(store, box, uids(1), 1, 1).results == [(before + 1, b"")]


def test_unchanged_since_spares_what_changed_later(store: Store) -> None:
    box = new_mailbox(store)
    file(store, box)  # modseq 2
    file(store, box)  # modseq 3
    unit = flag(store, box, uids(1, 2), 1, 4, since=2)
    assert unit.results == [(4, uids(2))]
    assert [row[1] for row in MailStore(store).mailboxes.flags_of(box, array("I", [1, 2]))] == [4, 0]


def test_expunge_takes_the_deleted_or_the_named(store: Store) -> None:
    box = new_mailbox(store)
    for _ in range(5):
        file(store, box)
    flag(store, box, uids(2, 3, 4), 1, 8)
    for which, only_deleted, gone in (
        (uids(1, 2), True, uids(2)),
        (None, True, uids(3, 4)),
        (uids(5, 9), False, uids(5)),
        (None, True, uids()),
        (None, False, uids(1)),
    ):
        unit = store.new_unit()
        unit.expunge(box, which, only_deleted)
        assert run(store, unit) == ""
        assert unit.results == [gone]
    changes = MailStore(store).mailboxes.changes(box, 0)
    assert (changes.uids, changes.gone) == (array("I"), array("I", [1, 2, 3, 4, 5]))


def test_changes_are_told_since_a_modseq(store: Store) -> None:
    box = new_mailbox(store)
    mail = MailStore(store)
    for _ in range(3):
        file(store, box)
    mark = mail.mailboxes.modseq(box)
    flag(store, box, uids(2), 1, 1)
    unit = store.new_unit()
    unit.expunge(box, uids(3), False)
    run(store, unit)
    changes = mail.mailboxes.changes(box, mark)
    assert (list(changes.uids), list(changes.modseqs), list(changes.gone)) == ([2], [mark + 1], [3])
    assert (changes.keywords, changes.until) == (set(), 0)


async def test_copy_keeps_flags_dates_and_structure(mail: MailStore, account: Account) -> None:
    await put(mail, account.inbox_id, flags=5, keywords=b"k", tz_minutes=-90, prefix=b"P: q\r\n")
    sent = mail.mailboxes.get(account.id, "Sent")
    assert sent is not None
    validity, source, target = await mail.mailboxes.copy(account.inbox_id, array("I", [1, 7]), sent.id)
    assert (validity, source, target) == (sent.uid_validity, array("I", [1]), array("I", [1]))
    original, copied = mail.mailboxes.rows(account.inbox_id)[0], mail.mailboxes.rows(sent.id)[0]
    assert (copied.flags, copied.keywords, copied.tz_minutes, copied.prefix) == (5, b"k", -90, b"P: q\r\n")
    assert copied.blob_id == original.blob_id
    assert mail.mailboxes.structure(sent.id, 1) == STRUCTURE


async def test_copy_and_move_onto_the_same_mailbox(mail: MailStore, account: Account) -> None:
    await put(mail, account.inbox_id)
    await put(mail, account.inbox_id)
    await mail.mailboxes.copy(account.inbox_id, array("I", [1, 3]), account.inbox_id)  # 3 is not there yet
    assert mail.mailboxes.uids(account.inbox_id) == array("I", [1, 2, 3])
    _, source, target = await mail.mailboxes.copy(account.inbox_id, array("I", [1, 1]), account.inbox_id, move=True)
    assert (source, target) == (array("I", [1]), array("I", [4]))
    assert mail.mailboxes.uids(account.inbox_id) == array("I", [2, 3, 4])


async def test_move_to_another_account_moves_the_charge(mail: MailStore, account: Account) -> None:
    other = await mail.accounts.add("other@example.org", "hash")
    await put(mail, account.inbox_id, b"12345")
    await mail.mailboxes.copy(account.inbox_id, array("I", [1]), other.inbox_id, move=True)
    assert mail.accounts.usage(account.id) == (0, 0)
    assert mail.accounts.usage(other.id) == (5, 1)


async def test_copy_to_a_mailbox_that_is_not_there_is_refused(mail: MailStore, account: Account) -> None:
    await put(mail, account.inbox_id)
    with pytest.raises(Refused, match="missing"):
        await mail.mailboxes.copy(account.inbox_id, array("I", [1]), 1)


async def test_recent_is_given_to_the_first_who_asks(mail: MailStore, account: Account) -> None:
    await put(mail, account.inbox_id)
    await put(mail, account.inbox_id)
    assert await mail.mailboxes.take_recent(account.inbox_id) == (1, 3)
    assert await mail.mailboxes.take_recent(account.inbox_id) == (3, 3)
    await put(mail, account.inbox_id)
    assert await mail.mailboxes.take_recent(account.inbox_id) == (3, 4)


async def test_rename_takes_inferiors_along(mail: MailStore, account: Account) -> None:
    for name in ("a", "a/b", "a/b/c", "ab", "n/o"):
        await mail.mailboxes.create(account.id, name)
    await mail.mailboxes.rename(account.id, "a", "x/y")
    await mail.mailboxes.rename(account.id, "n", "m")  # no mailbox itself
    names = {box.name for box in mail.mailboxes.list(account.id)}
    assert {"x/y", "x/y/b", "x/y/b/c", "ab", "m/o"} <= names
    assert not names & {"a", "a/b", "a/b/c", "n/o"}
    with pytest.raises(Refused, match="exists"):
        await mail.mailboxes.rename(account.id, "ab", "Sent")
    with pytest.raises(Refused, match="missing"):
        await mail.mailboxes.rename(account.id, "nobody", "z")


async def test_rename_of_inbox_moves_its_messages(mail: MailStore, account: Account) -> None:
    await put(mail, account.inbox_id)
    await mail.mailboxes.rename(account.id, "inbox", "old")
    old = mail.mailboxes.get(account.id, "old")
    inbox = mail.mailboxes.get(account.id, "InBoX")
    assert old is not None
    assert inbox is not None
    assert (old.exists, inbox.exists) == (1, 0)


async def test_names_are_bounded_and_unique(mail: MailStore, account: Account) -> None:
    await mail.mailboxes.create(account.id, "n" * 440)
    for name, code in (("n" * 441, "limit"), ("", "limit"), ("Sent", "exists"), ("inbox", "exists")):
        with pytest.raises(Refused, match=code):
            await mail.mailboxes.create(account.id, name)
    assert mail.mailboxes.get(account.id, "n" * 441) is None


async def test_deleting_a_mailbox_gives_its_quota_back(mail: MailStore, account: Account) -> None:
    box = await mail.mailboxes.create(account.id, "a")
    await put(mail, box.id)
    await mail.mailboxes.delete(box.id)
    assert mail.accounts.usage(account.id) == (0, 0)
    assert mail.mailboxes.get(account.id, "a") is None
    assert mail.mailboxes.modseq(box.id) == 0
    with pytest.raises(Refused, match="missing"):
        await mail.mailboxes.delete(box.id)


async def test_subscriptions_stand_apart_from_mailboxes(mail: MailStore, account: Account) -> None:
    await mail.mailboxes.subscribe(account.id, "not there")
    await mail.mailboxes.unsubscribe(account.id, "Sent")
    assert mail.mailboxes.subscriptions(account.id) == ["Archive", "Drafts", "INBOX", "Junk", "Trash", "not there"]


async def test_purge_empties_the_mailboxes_and_keeps_them(mail: MailStore, account: Account) -> None:
    sent = mail.mailboxes.get(account.id, "Sent")
    assert sent is not None
    for box in (account.inbox_id, account.inbox_id, sent.id):
        await put(mail, box)
    await mail.mailboxes.purge(account.id)
    assert mail.accounts.usage(account.id) == (0, 0)
    assert len(mail.mailboxes.list(account.id)) == 6


async def test_an_account_goes_with_all_that_is_its(mail: MailStore, account: Account) -> None:
    await put(mail, account.inbox_id)
    version = mail.directory_version
    with pytest.raises(Refused, match="exists"):
        await mail.accounts.add("user@example.ORG", "x")
    await mail.accounts.set_password("USER@example.org", "new")
    found = mail.accounts.lookup("user@Example.org")
    assert found is not None
    assert found.password_hash == "new"
    await mail.accounts.delete("user@example.org")
    assert mail.directory_version == version + 2
    for _ in range(3):
        mail.raw.reap()
    assert mail.accounts.list() == []
    assert mail.mailboxes.list(account.id) == []
    assert mail.raw.scan(1, b"") == []
    with pytest.raises(Refused, match="missing"):
        await mail.accounts.delete("user@example.org")
    await mail.accounts.add("user@example.org", "again")


async def test_aliases_are_kept_in_lower_case(mail: MailStore) -> None:
    await mail.aliases.add("Info@Example.org", ("a@b", "c@d"))
    assert mail.aliases.lookup("INFO@example.org") == ("a@b", "c@d")
    assert mail.aliases.list() == [("info@example.org", ("a@b", "c@d"))]
    await mail.aliases.delete("info@EXAMPLE.org")
    with pytest.raises(Refused, match="missing"):
        await mail.aliases.delete("info@example.org")


def test_expunged_rows_are_kept_to_a_bound(store: Store) -> None:
    box = new_mailbox(store)
    total = 20_500
    for start in range(0, total, 500):
        blob = blob_of(store)
        unit = store.new_unit()
        unit.blob(blob)
        for _ in range(500):
            append(unit, box, blob.blob_id)
        assert run(store, unit) == ""
        unit = store.new_unit()
        unit.expunge(box, uids(*range(start + 1, start + 501)), False)
        assert run(store, unit) == ""
    mail = MailStore(store)
    gone = mail.mailboxes.changes(box, 0).gone
    found = mail.mailboxes.by_id(box)
    assert found is not None
    assert 15_000 < len(gone) <= 20_000
    assert found.floor_modseq > 1


# --- FETCH ---


def lines(store: Store, box: int, items: int, *numbers: int, start: int = 0, limit: int = 10**6) -> tuple[bytes, int]:
    which = array("I", numbers)
    return fetch_lines(MailStore(store).mailboxes, box, which, which, items, start, limit, recent_from=2)


def test_fetch_lines_hold_every_item_in_order(store: Store) -> None:
    box = new_mailbox(store)
    structure = b"".join(n.to_bytes(4, "little") for n in (4, 3, 5, 2)) + b"(EN)" + b"(B)" + b"(BS!)" + b"pp"
    blob = blob_of(store, b"body")
    unit = store.new_unit()
    unit.blob(blob)
    unit.append(box, blob.blob_id, b"P\r\n", 0, b"", 1_704_067_200, -90, structure)
    unit.append(box, blob.blob_id, b"", 31, b"kw Other", 1_709_251_199, 330, bytes(16))
    assert run(store, unit) == ""
    assert lines(store, box, 511, 1, 2)[0].split(b"\r\n* ") == [
        b'* 1 FETCH (UID 1 FLAGS () INTERNALDATE "31-Dec-2023 22:30:00 -0130" RFC822.SIZE 7 ENVELOPE (EN) BODY (B) '
        b"BODYSTRUCTURE (BS!) MODSEQ (2) BODY[] {7}\r\nP\r\nbody)",
        b"2 FETCH (UID 2 FLAGS (\\Seen \\Answered \\Flagged \\Deleted \\Draft kw Other \\Recent) "
        b'INTERNALDATE " 1-Mar-2024 05:29:59 +0530" RFC822.SIZE 4 ENVELOPE NIL BODY NIL BODYSTRUCTURE NIL MODSEQ (3) '
        b"BODY[] {4}\r\nbody)\r\n",
    ]


def test_fetch_stops_at_its_bound_and_goes_on(store: Store) -> None:
    box = new_mailbox(store)
    for _ in range(10):
        file(store, box)
    assert lines(store, box, 1, 1, 2, 99, 10, limit=20) == (b"* 1 FETCH (UID 1)\r\n* 2 FETCH (UID 2)\r\n", 2)
    assert lines(store, box, 1, 1, 2, 99, 10, start=2) == (b"* 10 FETCH (UID 10)\r\n", 4)
    assert lines(store, box, 1, 9, 3, 5)[0].count(b"FETCH") == 3  # any order will do
    assert lines(store, box, 1) == (b"", 0)


def test_a_whole_message_larger_than_the_bound_ends_the_lines(store: Store) -> None:
    box = new_mailbox(store)
    big = os.urandom(150_000).replace(b"\0", b"\1")
    for data in (b"a", big, b"c"):
        file(store, box, data)
    assert lines(store, box, 256, 1, 2, 3, limit=1000) == (b"* 1 FETCH (BODY[] {1}\r\na)\r\n", 1)
    assert lines(store, box, 256, 1, 2, 3, start=1, limit=1000) == (b"", 1)
    assert lines(store, box, 256, 1, 2, 3, start=1, limit=200_000) == (
        b"* 2 FETCH (BODY[] {150000}\r\n" + big + b")\r\n* 3 FETCH (BODY[] {1}\r\nc)\r\n",
        3,
    )


def test_rows_of_many_pages_are_found_from_every_side(store: Store) -> None:
    boxes = [new_mailbox(store, name=name) for name in (b"before", b"INBOX", b"behind")]
    box = boxes[1]
    blob = blob_of(store, b"body")
    unit = store.new_unit()
    unit.blob(blob)
    said: dict[int, bytes] = {}
    for uid in range(1, 301):  # some envelopes have pages of their own
        said[uid] = b"(%d %b)" % (uid, b"e" * (6000 if uid % 7 == 0 else uid % 90))
        structure = len(said[uid]).to_bytes(4, "little") + bytes(12) + said[uid]
        for each in boxes:
            unit.append(each, blob.blob_id, b"", uid % 2, b"", 1, 0, structure if each == box else STRUCTURE)
    assert run(store, unit) == ""
    gone = [1, 2, 35, *range(100, 141), 300]
    unit = store.new_unit()
    unit.expunge(box, uids(*gone), False)
    assert run(store, unit) == ""
    here = [uid for uid in said if uid not in gone]
    mailboxes = MailStore(store).mailboxes
    assert list(mailboxes.uids(box)) == list(mailboxes.summary(box)[0]) == here
    assert list(mailboxes.summary(box)[1]) == [uid % 2 for uid in here]
    for after in (1, 34, 99, 120, 140, 298, 299, 300):
        assert list(mailboxes.uids(box, after)) == [uid for uid in here if uid > after]
    for numbers in (range(1, 302), range(301, 0, -1), range(1, 302, 3), range(40, 301, 50), [5, 5, 4, 6, 299, 7]):
        expected = b"".join(b"* %d FETCH (ENVELOPE %b)\r\n" % (uid, said[uid]) for uid in numbers if uid in here)
        assert lines(store, box, 16, *numbers)[0] == expected


def test_summary_is_one_pass_over_all(store: Store) -> None:
    box = new_mailbox(store)
    file(store, box, b"1", flags=1, keywords=b"a b")
    file(store, box, b"22", flags=8, keywords=b"b c")
    got = MailStore(store).mailboxes.summary(box)
    assert got == (
        array("I", [1, 2]),
        array("I", [1, 8]),
        array("Q", [2, 3]),
        array("I", [1, 2]),
        {b"a", b"b", b"c"},
    )


async def test_a_message_can_be_read_on_until_the_trash_has_its_bytes(tmp_path: Path) -> None:
    mail = MailStore.open(tmp_path / "store", sync=False, trash_delay_ms=60_000)
    try:
        box = (await mail.accounts.add("user@example.org", "hash")).inbox_id
        body = os.urandom(300_000)
        await put(mail, box, body, prefix=b"Received: x\r\n")
        (row,) = mail.mailboxes.rows(box)
        await mail.mailboxes.expunge(box, None, False)
        whole = b"Received: x\r\n" + body
        assert mail.mailboxes.read(box, row.uid, 0, 10) is None
        for offset, length in ((0, 5), (0, 13), (3, 10), (3, 11), (13, 7), (20, 250_000), (299_000, 9_999)):
            assert mail.mailboxes.read_on(row, offset, length) == whole[offset : offset + length]
        assert mail.mailboxes.read_on(row, len(whole), 1) == b""
    finally:
        mail.close()


async def test_what_the_trash_has_taken_is_gone_for_all(mail: MailStore, account: Account) -> None:
    await put(mail, account.inbox_id, os.urandom(300_000))
    (row,) = mail.mailboxes.rows(account.inbox_id)
    await mail.mailboxes.expunge(account.inbox_id, None, False)
    mail.raw.reap()
    assert mail.mailboxes.read_on(row, 0, 10) is None


async def test_the_oldest_account_is_the_first_that_is_enabled(mail: MailStore, account: Account) -> None:
    oldest = mail.accounts.oldest()
    assert oldest is not None and oldest.id == account.id
    await mail.accounts.add("aaa@example.test", "x")
    await mail.accounts.set_enabled(account.address, False)
    oldest = mail.accounts.oldest()
    assert oldest is not None and oldest.address == "aaa@example.test"
    await mail.accounts.set_enabled("aaa@example.test", False)
    assert mail.accounts.oldest() is None
