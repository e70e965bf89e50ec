"""Changes of an account over all of its mailboxes: one counter, what is forgotten, and a store of the level before."""

import lzma
from array import array
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fastmta._store import TABLE_CHANGE, TABLE_USAGE, usage_counter
from fastmta.model.errors import Refused
from fastmta.store import MailStore
from fastmta.store.accounts import Account
from fastmta.store.check import check_store
from fastmta.store.mailbox_names import Mailbox
from fastmta.store.upgrade import finish, plan_finish
from tests.store.composing import append, blob_of, file, run, uids

OLD_STORES = Path(__file__).parent / "old_stores"


@pytest.fixture
async def mail(tmp_path: Path) -> AsyncIterator[MailStore]:
    mail = MailStore.open(tmp_path / "store", sync=False)
    yield mail
    assert check_store(mail.raw).problems == []
    mail.close()


@pytest.fixture
async def account(mail: MailStore) -> Account:
    return await mail.accounts.add("ann@example.org", "hash")


def box(mail: MailStore, account: Account, name: str) -> Mailbox:
    found = mail.mailboxes.get(account.id, name)
    assert found is not None
    return found


def state(mail: MailStore, account: Account) -> int:
    found = mail.account_changes.modseq(account.id)
    assert found is not None
    return found


def changed(mail: MailStore, account: Account, since: int) -> list[int]:
    out, after = mail.account_changes.mailboxes(account.id, since)
    while after:
        page, after = mail.account_changes.mailboxes(account.id, since, after)
        out += page
    return out


async def test_each_change_in_any_mailbox_is_the_accounts_next(mail: MailStore, account: Account) -> None:
    sent, trash = box(mail, account, "Sent"), box(mail, account, "Trash")
    other = await mail.accounts.add("bob@example.org", "hash")
    seen = [state(mail, account)]
    for act in (
        lambda: file(mail.raw, sent.id),
        lambda: file(mail.raw, trash.id),
        lambda: file(mail.raw, account.inbox_id),
    ):
        act()
        seen.append(state(mail, account))
    await mail.mailboxes.set_flags(trash.id, array("I", [1]), 1, 1)
    seen.append(state(mail, account))
    await mail.mailboxes.copy(trash.id, array("I", [1]), sent.id)
    seen.append(state(mail, account))
    await mail.mailboxes.expunge(sent.id, array("I", [1]), only_deleted=False)
    seen.append(state(mail, account))
    assert seen == list(range(seen[0], seen[0] + len(seen)))
    assert changed(mail, account, seen[0]) == [account.inbox_id, sent.id, trash.id]
    assert changed(mail, account, seen[3]) == [sent.id, trash.id]
    assert changed(mail, account, seen[-1]) == []
    assert box(mail, account, "Sent").highest_modseq == seen[-1]
    assert state(mail, other) == 1


async def test_what_changes_nothing_is_no_change(mail: MailStore, account: Account) -> None:
    file(mail.raw, account.inbox_id)
    before = state(mail, account)
    await mail.mailboxes.set_flags(account.inbox_id, array("I", [1]), 2, 1)
    await mail.mailboxes.take_recent(account.inbox_id)
    await mail.mailboxes.expunge(account.inbox_id, array("I", [7]), only_deleted=False)
    unit = mail.raw.new_unit()
    blob = blob_of(mail.raw)
    unit.blob(blob)
    unit.quota(account.id, 1)
    append(unit, account.inbox_id, blob.blob_id)
    mail.raw.commit_sync(unit)
    assert unit.failure == "quota"
    assert state(mail, account) == before


async def test_an_expunged_message_keeps_its_id_also_when_it_was_moved(mail: MailStore, account: Account) -> None:
    sent = box(mail, account, "Sent")
    for number in range(4):
        unit = mail.raw.new_unit()
        blob = blob_of(mail.raw)
        unit.blob(blob)
        append(unit, sent.id, blob.blob_id, prefix=b"Delivered-To: ann\r\n" if number % 2 else b"", keywords=b"a b")
        mail.raw.commit_sync(unit)
    since = state(mail, account)
    ids = mail.mailboxes.email_ids(sent.id, array("I", [1, 2, 3, 4]))
    assert len(set(ids)) == 4
    await mail.mailboxes.expunge(sent.id, array("I", [1, 2]), only_deleted=False)
    await mail.mailboxes.copy(sent.id, array("I", [3, 4]), account.inbox_id, move=True)
    changes = mail.account_changes
    gone, until = changes.expunged(sent.id, since, 100)
    assert ([(each.uid, each.email_id) for each in gone], until) == (list(zip([1, 2, 3, 4], ids, strict=True)), 0)
    assert mail.mailboxes.email_ids(account.inbox_id, array("I", [1, 2])) == ids[2:]
    first, until = changes.expunged(sent.id, since, 1)  # what one unit did is never cut
    assert [each.uid for each in first] == [1, 2]
    assert [each.uid for each in changes.expunged(sent.id, until, 1)[0]] == [3, 4]


async def test_pages_of_mailboxes(mail: MailStore, account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastmta.store.account_changes.LOOKED", 2)
    since = state(mail, account)
    assert changed(mail, account, since) == []
    for name in ("Sent", "Trash"):
        file(mail.raw, box(mail, account, name).id)
    assert changed(mail, account, since) == [box(mail, account, "Sent").id, box(mail, account, "Trash").id]


async def test_a_mailbox_that_goes_takes_its_expunged_messages_along(mail: MailStore, account: Account) -> None:
    before = state(mail, account)
    await mail.mailboxes.delete((await mail.mailboxes.create(account.id, "Never used")).id)
    assert changed(mail, account, before) == []
    used = await mail.mailboxes.create(account.id, "Used")
    file(mail.raw, used.id)
    since = state(mail, account)
    await mail.mailboxes.delete(used.id)
    with pytest.raises(Refused, match="missing"):
        mail.account_changes.mailboxes(account.id, since)
    assert changed(mail, account, state(mail, account)) == []


def test_what_a_mailbox_has_forgotten_is_refused(mail: MailStore, account: Account) -> None:
    since = state(mail, account)
    blob = blob_of(mail.raw)
    for start in range(0, 20_500, 500):
        unit = mail.raw.new_unit()
        if start == 0:
            unit.blob(blob)
            append(unit, account.inbox_id, blob.blob_id)  # one that stays, so that the body does
        for _ in range(500):
            append(unit, account.inbox_id, blob.blob_id)
        unit.expunge(account.inbox_id, uids(*range(start + 2, start + 502)), False)
        assert run(mail.raw, unit) == ""
        last = state(mail, account)
        if start < 19_000:
            assert changed(mail, account, since) == [account.inbox_id]
    with pytest.raises(Refused, match="missing"):
        mail.account_changes.mailboxes(account.id, since)
    assert changed(mail, account, last - 1) == [account.inbox_id]


def test_nobodys_account_has_no_state(mail: MailStore) -> None:
    assert mail.account_changes.modseq(4711) is None
    with pytest.raises(Refused, match="missing"):
        mail.account_changes.mailboxes(4711, 0)


# --- the level before ---


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """The directory of a store of level 3: two accounts, messages in INBOX and Sent."""
    directory = tmp_path / "old"
    directory.mkdir()
    (directory / "data.mdb").write_bytes(lzma.decompress((OLD_STORES / "format_3.mdb.xz").read_bytes()))
    return directory


async def test_a_store_of_the_level_before_has_no_state_until_it_is_finished(old: Path) -> None:
    mail = MailStore.open(old, create=False, sync=False)
    account = mail.accounts.lookup("first@example.org")
    assert account is not None
    sent = box(mail, account, "Sent")
    inbox = box(mail, account, "INBOX")
    assert inbox.highest_modseq > sent.highest_modseq
    file(mail.raw, sent.id)
    await mail.mailboxes.expunge(sent.id, array("I", [1]), only_deleted=False)
    assert box(mail, account, "Sent").highest_modseq == sent.highest_modseq + 2  # counted by the mailbox alone
    assert mail.account_changes.modseq(account.id) is None
    assert {len(value) for _, value in mail.raw.scan(TABLE_CHANGE, b"", b"", 1000)} == {0}
    assert check_store(mail.raw).problems == []
    mail.raw.raise_level()
    file(mail.raw, sent.id)  # under way: the account's modseq may be below that of another mailbox
    assert mail.account_changes.modseq(account.id) is None
    assert check_store(mail.raw).problems == []
    mail.close()
    assert plan_finish(old).records["accounts"] == 2
    finish(old)
    mail = MailStore.open(old, create=False, sync=False)
    since = state(mail, account)
    assert since >= inbox.highest_modseq
    file(mail.raw, sent.id)
    assert changed(mail, account, since) == [sent.id]
    assert box(mail, account, "Sent").highest_modseq == since + 1
    with pytest.raises(Refused, match="missing"):
        mail.account_changes.mailboxes(account.id, since - 1)
    assert {usage_counter(value)[2] for _, value in mail.raw.scan(TABLE_USAGE, b"")} == {True}
    assert check_store(mail.raw).problems == []
    mail.close()
