"""Access lists in the store: the lists, their index, and what becomes of them with mailboxes and accounts."""

import asyncio

import pytest

from fastmta._store import TABLE_ACL, TABLE_ACL_INDEX
from fastmta.model import rights
from fastmta.model.actor import Actor
from fastmta.model.errors import Refused
from fastmta.model.limits import ACL_ENTRIES, GROUPS_OF_ACCOUNT
from fastmta.store import MailStore
from fastmta.store.acl import ADD, TAKE
from fastmta.store.check import check_store

READ = rights.LOOKUP | rights.READ
run = asyncio.run


@pytest.fixture
def mail(tmp_path):
    store = MailStore.open(tmp_path, sync=False, map_size_bytes=1 << 28)
    yield store
    store.close()


@pytest.fixture
def account(mail):
    return run(mail.accounts.add("user@example.test", "hash"))


def _rows(mail, table):
    return len(mail.raw.scan(table, b"", b"", 1000))


def test_rights_are_added_and_taken(mail, account):
    ann = run(mail.accounts.add("ann@example.test", "x"))
    lists = mail.access_lists
    box = mail.mailboxes.get(account.id, "Archive")
    run(lists.change(account.id, box.id, "ann@example.test", READ))
    run(lists.change(account.id, box.id, "ANN@example.test", rights.SEEN, ADD))
    run(lists.change(account.id, box.id, "user=ann@example.test", rights.LOOKUP, TAKE))
    assert lists.rights(ann.id, account.id, box.id) == rights.READ | rights.SEEN
    run(lists.change(account.id, box.id, "-authenticated", rights.SEEN))
    assert lists.rights(ann.id, account.id, box.id) == rights.READ | rights.SEEN  # his own entry goes last
    run(lists.change(account.id, box.id, "-ann@example.test", rights.SEEN))
    assert lists.rights(ann.id, account.id, box.id) == rights.READ
    assert [each.identifier for each in lists.entries(account.id, box.id)] == [
        "ann@example.test",
        "-ann@example.test",
        "-authenticated",
    ]
    assert run(lists.remove(account.id, box.id, "-ann@example.test"))
    assert not run(lists.remove(account.id, box.id, "-ann@example.test"))


def test_nobody_and_the_owner_are_refused(mail, account):
    box = mail.mailboxes.get(account.id, "INBOX")
    for identifier, code in (("nobody@example.test", "unknown"), (account.address, "owner")):
        with pytest.raises(Refused) as refused:
            run(mail.access_lists.change(account.id, box.id, identifier, READ))
        assert refused.value.code == code


def test_a_list_has_a_bound(mail, account):
    box = mail.mailboxes.get(account.id, "INBOX")
    for number in range(ACL_ENTRIES):
        run(mail.accounts.add(f"u{number}@example.test", "x"))
        run(mail.access_lists.change(account.id, box.id, f"u{number}@example.test", READ))
    with pytest.raises(Refused, match="limit"):
        run(mail.access_lists.change(account.id, box.id, "anyone", READ))
    run(mail.access_lists.change(account.id, box.id, "u0@example.test", rights.ALL))


def test_lists_go_with_their_mailbox_and_with_either_account(mail, account):
    run(mail.accounts.add("ann@example.test", "x"))
    run(mail.accounts.add("bob@example.test", "x"))
    for name in ("Archive", "Sent"):
        box = mail.mailboxes.get(account.id, name)
        for identifier in ("ann@example.test", "anyone"):
            run(mail.access_lists.change(account.id, box.id, identifier, READ))
    assert (_rows(mail, TABLE_ACL), _rows(mail, TABLE_ACL_INDEX)) == (2, 4)
    run(mail.mailboxes.delete(mail.mailboxes.get(account.id, "Sent").id))
    assert (_rows(mail, TABLE_ACL), _rows(mail, TABLE_ACL_INDEX)) == (1, 2)
    bob = Actor(mail.accounts.lookup("bob@example.test").id)
    assert [box.name for page in mail.access.pages(bob) for box in page if "/" in box.name] == [
        f"Other Users/{account.address}/Archive"
    ]
    run(mail.accounts.delete("ann@example.test"))
    assert [each.identifier for each in mail.access_lists.entries(account.id, box.id)] == []
    assert check_store(mail.raw).problems == []
    run(mail.accounts.delete(account.address))
    assert (_rows(mail, TABLE_ACL), _rows(mail, TABLE_ACL_INDEX)) == (0, 0)
    assert not [box for page in mail.access.pages(bob) for box in page if "/" in box.name]


# --- groups ---


def _given(mail, account_id):
    return {mailbox_id for page in mail.access_lists.given_to(account_id) for _, mailbox_id in page}


def test_a_groups_rights_stand_between_everybodys_and_ones_own(mail, account):
    ann, bob = (run(mail.accounts.add(f"{name}@example.test", "x")) for name in ("ann", "bob"))
    lists, box = mail.access_lists, mail.mailboxes.get(account.id, "Archive")
    run(mail.groups.add("sales", ann.id))
    run(mail.groups.add("staff", ann.id))
    run(mail.groups.add("staff", bob.id))
    run(lists.change(account.id, box.id, "authenticated", rights.LOOKUP | rights.WRITE))
    run(lists.change(account.id, box.id, "group=Sales", rights.READ | rights.SEEN))
    run(lists.change(account.id, box.id, "-$staff", rights.SEEN | rights.WRITE))
    assert lists.rights(ann.id, account.id, box.id) == READ  # of several groups what is taken goes last
    assert lists.rights(bob.id, account.id, box.id) == rights.LOOKUP
    run(lists.change(account.id, box.id, ann.address, rights.SEEN))
    assert lists.rights(ann.id, account.id, box.id) == READ | rights.SEEN
    shown = {each.identifier for each in lists.entries(account.id, box.id)}
    assert shown == {"$sales", "-$staff", "ann@example.test", "authenticated"}
    assert run(lists.remove(account.id, box.id, "$sales"))
    assert lists.rights(ann.id, account.id, box.id) == rights.LOOKUP | rights.SEEN


def test_only_members_have_what_a_group_was_given_and_only_while_it_is_there(mail, account):
    ann, bob = (run(mail.accounts.add(f"{name}@example.test", "x")) for name in ("ann", "bob"))
    lists, box = mail.access_lists, mail.mailboxes.get(account.id, "Archive")
    run(mail.groups.add("sales", ann.id))
    run(lists.change(account.id, box.id, "$sales", READ))
    assert (_given(mail, ann.id), _given(mail, bob.id)) == ({box.id}, set())
    assert run(mail.groups.remove("sales", ann.id))
    assert not run(mail.groups.remove("sales", ann.id))
    assert lists.rights(ann.id, account.id, box.id) == 0
    run(mail.groups.add("sales", ann.id))
    assert lists.rights(ann.id, account.id, box.id) == READ
    assert run(mail.groups.delete("sales"))
    assert lists.rights(ann.id, account.id, box.id) == 0
    run(mail.groups.add("sales", bob.id))  # another one of that name
    assert lists.rights(bob.id, account.id, box.id) == 0
    assert lists.entries(account.id, box.id) == []
    assert check_store(mail.raw).problems == []


def test_groups_go_with_their_account_and_are_bounded(mail, account):
    for number in range(GROUPS_OF_ACCOUNT):
        run(mail.groups.add(f"g{number}", account.id))
    with pytest.raises(Refused, match="limit"):
        run(mail.groups.add("more", account.id))
    run(mail.groups.add("g0", account.id))
    run(mail.groups.delete("g7"))
    run(mail.groups.add("more", account.id))  # instead of the one that is gone
    assert len(mail.groups.of(account.id)) == GROUPS_OF_ACCOUNT
    for name in ("", "-x", "a b", "a/b", "x" * 65, "Upper"):
        with pytest.raises(Refused, match="invalid"):
            run(mail.groups.add(name, account.id))
    with pytest.raises(Refused, match="unknown"):
        run(mail.access_lists.change(account.id, account.inbox_id, "$nobody", READ, any_name=True))
    run(mail.accounts.delete(account.address))
    assert mail.groups.of(account.id) == []
