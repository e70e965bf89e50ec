"""Expunged messages that can be had back: inside the transaction, and by store/retained.py."""

import lzma
from array import array
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fastmta._store import TABLE_BLOB, TABLE_RETAINED, TABLE_UIDL, Store, blob_meta, retained_totals
from fastmta.model.errors import Refused
from fastmta.runtime.clock import ManualClock
from fastmta.store import MailStore
from fastmta.store.accounts import GONE, Account
from fastmta.store.check import check_store
from fastmta.store.retained import NEVER_S, Retained
from tests.store.composing import STRUCTURE, blob_of, file, new_mailbox, run, uids

OVERHEAD = 1024


def expunge(store: Store, box: int, *which: int, ceiling: int = 1 << 30) -> None:
    unit = store.new_unit()
    unit.expunge(box, uids(*which), False, False, ceiling)
    assert run(store, unit) == ""
    assert unit.results == [uids(*which)]


def keys(store: Store, account_id: int = 1) -> list[bytes]:
    lead = account_id.to_bytes(8, "big")
    return [key[8:] for key, _ in store.scan(TABLE_RETAINED, lead, lead + b"\0")]


def totals(store: Store, account_id: int = 1) -> tuple[int, int]:
    return retained_totals(store.get(TABLE_RETAINED, account_id.to_bytes(8, "big")))


def references(store: Store) -> list[int]:
    """Of each blob."""
    return [blob_meta(value).refs for key, value in store.scan(TABLE_BLOB, b"") if len(key) == 8]


def test_what_is_retained_has_its_bytes_and_no_quota_until_it_is_released(store: Store) -> None:
    box = new_mailbox(store)
    file(store, box, b"x" * 5000)
    expunge(store, box, 1)
    mail = MailStore(store)
    assert mail.mailboxes.usage(1)[:2] == (0, 0)
    assert len(mail.mailboxes.uids(box)) == 0
    assert totals(store) == (1, 5000 + OVERHEAD)
    assert references(store) == [1]
    unit = store.new_unit()
    unit.release(1, b"".join(keys(store)))
    assert run(store, unit) == ""
    assert (keys(store), totals(store)) == ([], (0, 0))
    assert references(store) == [0]  # and so it is in the trash


def test_a_store_of_the_level_before_gets_no_rows_that_its_programs_do_not_know(tmp_path: Path) -> None:
    old = Path(__file__).parent / "old_stores" / "format_3.mdb.xz"
    (tmp_path / "data.mdb").write_bytes(lzma.decompress(old.read_bytes()))
    store = Store(str(tmp_path), create=False, sync=False)
    box = new_mailbox(store)
    for raised in (False, True):
        uid = file(store, box, b"x" * 5000)
        unit = store.new_unit()
        unit.uidl(box, b"a name")
        assert run(store, unit) == ""
        assert len(store.scan(TABLE_UIDL, b"")) == raised
        expunge(store, box, uid)
        assert len(keys(store)) == raised
        assert check_store(store).problems == []
        assert raised or store.raise_level()
    store.close()


def test_over_the_ceiling_the_oldest_go(store: Store) -> None:
    box = new_mailbox(store)
    for _ in range(10):
        file(store, box, b"x" * 1000)
    for uid in range(1, 11):
        expunge(store, box, uid, ceiling=5 * (1000 + OVERHEAD))
    assert [int.from_bytes(key[16:], "big") for key in keys(store)] == [6, 7, 8, 9, 10]
    file(store, box, b"x" * 100_000)
    expunge(store, box, 11, ceiling=50_000)  # more than all that may be retained
    assert (keys(store), totals(store)) == ([], (0, 0))


def test_the_ceiling_is_never_passed_however_many_small_ones_there_are(store: Store) -> None:
    """Eight of them go for a large message; where that does not make room for it, it goes itself."""
    box = new_mailbox(store)
    for _ in range(20):
        file(store, box, b"x")
    ceiling = 25 * (1 + OVERHEAD)
    expunge(store, box, *range(1, 21), ceiling=ceiling)
    for uid, left in ((21, 12), (22, 4), (23, 1)):
        file(store, box, b"x" * 24_000)
        expunge(store, box, uid, ceiling=ceiling)
        assert totals(store)[1] <= ceiling
        assert len(keys(store)) == left


def test_only_one_gets_a_message_back(store: Store) -> None:
    box = new_mailbox(store)
    file(store, box, keywords=b"k", flags=8)
    expunge(store, box, 1)
    mail = MailStore(store)
    (message,) = mail.retained.page(1)
    assert (message.mailbox, message.keywords, message.flags) == ("INBOX", b"k", 8)
    first, second = (mail.retained.restoring(1, message, box, STRUCTURE) for _ in range(2))
    assert run(store, first) == ""
    assert run(store, second) == "changed"
    (row,) = mail.mailboxes.rows(box)
    assert (row.uid, row.flags, row.keywords, row.blob_id) == (2, 0, b"k", message.blob_id)


def test_a_release_of_what_is_not_there_is_passed_over_and_one_of_another_account_too(store: Store) -> None:
    box = new_mailbox(store)
    file(store, box)
    expunge(store, box, 1)
    unit = store.new_unit()
    unit.release(2, b"".join(keys(store)))
    unit.release(1, bytes(20))
    assert run(store, unit) == ""
    assert len(keys(store)) == 1
    with pytest.raises(ValueError, match="20 octets"):
        store.new_unit().release(1, b"short")


def test_a_copy_shares_its_bytes_with_what_is_retained(store: Store) -> None:
    box, other = new_mailbox(store), new_mailbox(store, 2)
    file(store, box, b"x" * 5000)
    unit = store.new_unit()
    unit.copy(box, uids(1), other, False)
    assert run(store, unit) == ""
    expunge(store, box, 1)
    unit = store.new_unit()
    unit.release(1, b"".join(keys(store)))
    assert run(store, unit) == ""
    assert references(store) == [1]


@pytest.fixture
async def mail(tmp_path: Path) -> AsyncIterator[MailStore]:
    mail = MailStore.open(tmp_path / "store", sync=False, trash_delay_ms=0, clock=ManualClock(), engine="memory")
    mail.retained_bytes = 1 << 30
    yield mail
    assert check_store(mail.raw).problems == []
    mail.close()


@pytest.fixture
async def account(mail: MailStore) -> Account:
    return await mail.accounts.add("user@example.org", "hash")


async def put(mail: MailStore, mailbox_id: int, count: int = 1) -> None:
    for _ in range(count):
        blob = blob_of(mail.raw)
        await mail.mailboxes.append(mailbox_id, blob, internal_date_s=1, structure=STRUCTURE)


def retained(mail: MailStore, account: Account) -> list[Retained]:
    return list(mail.retained.page(account.id, limit=1000))


async def test_expunge_and_delete_retain_and_a_move_does_not(mail: MailStore, account: Account) -> None:
    archive = mail.mailboxes.get(account.id, "Archive")
    assert archive is not None
    await put(mail, account.inbox_id, 3)
    await mail.mailboxes.copy(account.inbox_id, array("I", [1]), archive.id, move=True)
    await mail.mailboxes.expunge(account.inbox_id, array("I", [2]), only_deleted=False)
    await mail.mailboxes.expunge(account.inbox_id, array("I", [3]), only_deleted=False, for_good=True)
    assert [each.mailbox for each in retained(mail, account)] == ["INBOX"]
    await mail.mailboxes.delete(archive.id)
    assert sorted(each.mailbox for each in retained(mail, account)) == ["Archive", "INBOX"]
    assert mail.mailboxes.usage(account.id)[:2] == (0, 0)


async def test_a_replaced_message_is_retained(mail: MailStore, account: Account) -> None:
    from fastmta.model.appended import Appended

    await put(mail, account.inbox_id)
    new = Appended(blob_of(mail.raw), STRUCTURE, 1, 0, 0, b"", b"")
    await mail.mailboxes.append_many(account.inbox_id, [new], replaced=(account.inbox_id, 1))
    assert len(retained(mail, account)) == 1


async def test_without_the_setting_nothing_is_retained(mail: MailStore, account: Account) -> None:
    mail.retained_bytes = 0
    await put(mail, account.inbox_id)
    await mail.mailboxes.expunge(account.inbox_id, only_deleted=False)
    assert retained(mail, account) == []


async def test_what_was_expunged_before_a_moment_is_released(mail: MailStore, account: Account) -> None:
    await put(mail, account.inbox_id, 2)
    await mail.mailboxes.expunge(account.inbox_id, array("I", [1]), only_deleted=False)
    (one,) = retained(mail, account)
    assert await mail.retained.release(account.id, one.expunged_s) == 0
    assert await mail.retained.release(account.id, one.expunged_s + 1) == 1
    assert mail.retained.accounts() == 0


async def test_what_an_account_retains_goes_with_it(mail: MailStore, account: Account) -> None:
    other = await mail.accounts.add("other@example.org", "hash")
    for each in (account, other):
        await put(mail, each.inbox_id, GONE + 5)
        await mail.mailboxes.expunge(each.inbox_id, only_deleted=False)
    await mail.accounts.delete("user@example.org")
    assert (len(retained(mail, account)), len(retained(mail, other))) == (0, GONE + 5)
    assert mail.retained.accounts() == other.id
    assert await mail.retained.release(other.id, NEVER_S) == GONE + 5


async def test_a_quota_refuses_what_would_come_back(mail: MailStore, account: Account) -> None:
    await put(mail, account.inbox_id)
    await mail.mailboxes.expunge(account.inbox_id, only_deleted=False)
    await mail.accounts.set_quota("user@example.org", 5, 0)
    (message,) = retained(mail, account)
    unit = mail.retained.restoring(account.id, message, account.inbox_id, STRUCTURE)
    with pytest.raises(Refused, match="quota"):
        await mail.commit(unit)
    assert len(retained(mail, account)) == 1
