"""Accounts with very many mailboxes: nothing about one name costs what there is of others; long work goes in units."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fastmta.model.errors import Refused
from fastmta.store import MailStore, mailbox_names
from fastmta.store.accounts import GONE, Account
from fastmta.store.check import check_store
from fastmta.store.mailbox_names import RENAMED


@pytest.fixture
def mail(tmp_path: Path) -> Iterator[MailStore]:
    store = MailStore.open(tmp_path, sync=False)
    yield store
    assert check_store(store.raw).problems == []
    store.close()


async def account_with(mail: MailStore, names: list[str]) -> Account:
    account = await mail.accounts.add("bill@example.test", "x")
    unit = mail.raw.new_unit()
    for name in names:
        unit.mailbox_new(mail.raw.new_id(), account.id, name.encode(), b"", 1)
    await mail.commit(unit)
    return account


def names_of(mail: MailStore, account: Account) -> list[str]:
    return [box.name for box in mail.mailboxes.list(account.id)]


def units(mail: MailStore) -> int:
    return int(mail.raw.stats()["units"])


async def test_a_mailbox_is_made_without_a_look_at_the_others(mail: MailStore, monkeypatch: pytest.MonkeyPatch) -> None:
    account = await account_with(mail, ["a", "a/b"])
    with monkeypatch.context() as patched:
        patched.setattr(mail.mailboxes, "list", None)  # nobody may call it
        await mail.mailboxes.create(account.id, "a/b/c/d")
        await mail.mailboxes.create(account.id, "Archive/2026")
        with pytest.raises(Refused, match="exists"):
            await mail.mailboxes.create(account.id, "a/b/c")
        assert mail.mailboxes.junk_of(account.id)
        assert mail.mailboxes.has_inferiors(account.id, "a/b") and not mail.mailboxes.has_inferiors(account.id, "b")
        assert mail.mailboxes.is_subscribed(account.id, "inbox") and not mail.mailboxes.is_subscribed(account.id, "a")
    assert {"a/b/c", "a/b/c/d"} < set(names_of(mail, account))


async def test_an_account_has_so_many_mailboxes(mail: MailStore, monkeypatch: pytest.MonkeyPatch) -> None:
    account = await account_with(mail, ["a", "b"])
    most = len(names_of(mail, account)) + 2
    monkeypatch.setattr(mailbox_names, "MAILBOXES", most)
    for name in ("under", "at"):
        await mail.mailboxes.create(account.id, name)
    with pytest.raises(Refused, match="many"):
        await mail.mailboxes.create(account.id, "over")
    with pytest.raises(Refused, match="many"):
        await mail.mailboxes.rename(account.id, "a", "new/a")  # it would make "new"
    await mail.mailboxes.rename(account.id, "a", "c")
    await mail.mailboxes.rename(account.id, "c", "b/c")
    box = mail.mailboxes.get(account.id, "at")
    assert box is not None
    await mail.mailboxes.delete(box.id)
    await mail.mailboxes.create(account.id, "again")
    assert len(names_of(mail, account)) == most


async def test_a_special_name_has_its_use_unless_another_serves_for_it(mail: MailStore) -> None:
    account = await account_with(mail, [])
    for name in ("Sent", "Drafts"):
        await mail.mailboxes.rename(account.id, name, f"My {name}")
    box = mail.mailboxes.get(account.id, "My Drafts")
    assert box is not None
    await mail.mailboxes.delete(box.id)
    assert (await mail.mailboxes.create(account.id, "Sent")).special_use == ""
    await mail.mailboxes.create(account.id, "Drafts/old")
    superior = mail.mailboxes.get(account.id, "Drafts")
    assert superior is not None and superior.special_use == "\\Drafts"


@pytest.mark.parametrize("limit", [1, 2, 250])
async def test_pages_give_every_mailbox_once_in_order(mail: MailStore, limit: int) -> None:
    account = await account_with(mail, ["a", "a/b", "a/c", "ab", "b"])
    for under, wanted in (("", names_of(mail, account)), ("a/", ["a/b", "a/c"]), ("x", [])):
        found: list[str] = []
        while page := mail.mailboxes.page(account.id, found[-1] if found else "", limit, under=under):
            assert len(page) <= limit
            found += [box.name for box in page]
        assert found == wanted


@pytest.mark.parametrize(("inferiors", "used"), [(RENAMED - 1, 1), (RENAMED, 2), (2 * RENAMED, 3)])
async def test_a_tree_is_renamed_in_units_of_bounded_size(mail: MailStore, inferiors: int, used: int) -> None:
    account = await account_with(mail, ["old", "older", *(f"old/{n:05}" for n in range(inferiors))])
    before = units(mail)
    await mail.mailboxes.rename(account.id, "old", "new/place")
    assert units(mail) - before == used
    names = names_of(mail, account)
    assert names.count("new/place") == names.count("new") == names.count("older") == 1
    assert sum(name.startswith("new/place/") for name in names) == inferiors
    assert not any(name == "old" or name.startswith("old/") for name in names)


async def test_nothing_is_renamed_where_one_cannot_be(mail: MailStore) -> None:
    inferiors = [f"old/{n:05}" for n in range(2 * RENAMED)]
    account = await account_with(mail, ["old", *inferiors, f"new/{2 * RENAMED - 1:05}"])
    before = names_of(mail, account)
    with pytest.raises(Refused, match="exists"):
        await mail.mailboxes.rename(account.id, "old", "new")
    assert names_of(mail, account) == before


async def test_what_was_renamed_goes_back_where_a_later_one_is_refused(
    mail: MailStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else makes a mailbox in the place of the last one, between two units."""
    account = await account_with(mail, ["old", *(f"old/{n:05}" for n in range(2 * RENAMED))])
    before = set(names_of(mail, account))
    commit, taken = mail.commit, f"new/{2 * RENAMED - 1:05}"

    async def commit_and_interfere(unit: object) -> object:
        done = await commit(unit)  # type: ignore[arg-type]
        monkeypatch.setattr(mail, "commit", commit)
        await mail.mailboxes.create(account.id, taken)
        return done

    monkeypatch.setattr(mail, "commit", commit_and_interfere)
    with pytest.raises(Refused, match="exists"):
        await mail.mailboxes.rename(account.id, "old", "new")
    assert before <= set(names_of(mail, account)) <= before | {"new", taken}


async def test_an_account_with_very_many_mailboxes_goes_in_units_of_bounded_size(mail: MailStore) -> None:
    account = await account_with(mail, [f"folder {n:05}" for n in range(2 * GONE + 50)])
    for n in range(GONE + 1):
        await mail.mailboxes.subscribe(account.id, f"folder {n:05}")
    before = units(mail)
    await mail.accounts.delete("bill@example.test")
    assert units(mail) - before == 5  # closed, twice mailboxes, once subscriptions, and the rest with the account
    assert mail.accounts.lookup("bill@example.test") is None
    assert mail.mailboxes.list(account.id) == []


async def test_an_accounts_mark_rises_by_all_that_changes_what_it_may_list(mail: MailStore) -> None:
    account = await account_with(mail, ["a"])
    friend = await mail.accounts.add("friend@example.test", "x")
    boxes, lists = mail.mailboxes, mail.access_lists
    a = boxes.get(account.id, "a")
    assert a is not None
    marks = [boxes.mark(account.id)]
    for act in (
        lambda: boxes.subscribe(account.id, "a"),
        lambda: boxes.unsubscribe(account.id, "a"),
        lambda: boxes.rename(account.id, "a", "b"),
        lambda: lists.change(account.id, a.id, "friend@example.test", 3),
        lambda: boxes.delete(a.id),
    ):
        await act()
        marks.append(boxes.mark(account.id))
    assert marks == sorted(set(marks))
    before = boxes.mark(friend.id)
    b = await boxes.create(account.id, "b")
    assert boxes.mark(friend.id) == before
    await lists.change(account.id, b.id, "friend@example.test", 3)
    assert boxes.mark(friend.id) == before + 1
    assert boxes.mark(b.id) == boxes.modseq(b.id) == 1


async def test_an_account_that_is_gone_gets_no_mark(mail: MailStore) -> None:
    unit = mail.raw.new_unit()
    unit.mailbox_list_changed(12345)
    await mail.commit(unit)
    assert mail.mailboxes.mark(12345) == 0


async def test_first_mailboxes_may_have_other_names(mail: MailStore) -> None:
    account = await mail.accounts.add("bill@example.test", "x", names={"Sent": "Gesendet", "Junk": "Müll"})
    uses = {box.name: box.special_use for box in mail.mailboxes.list(account.id)}
    assert (uses["Gesendet"], uses["Müll"], uses["Trash"]) == ("\\Sent", "\\Junk", "\\Trash")
    assert "Sent" not in uses
    assert mail.mailboxes.is_subscribed(account.id, "Gesendet")
    box = mail.mailboxes.get(account.id, "Müll")
    assert box is not None
    assert mail.mailboxes.junk_of(account.id) == box.id
    assert (await mail.mailboxes.create(account.id, "Sent")).special_use == ""  # Gesendet serves for it
