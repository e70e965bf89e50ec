"""Quotas of accounts and of mailboxes, in the transaction; how rules are written: tests/config/test_quota_rule.py."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fastmta._store import Store, quota_fields
from fastmta._unit import Unit
from fastmta.config.values import parse_quota_rules
from fastmta.model.quota import NO_QUOTA, NO_QUOTA_MESSAGES
from fastmta.runtime.clock import ManualClock
from fastmta.store import MailStore
from fastmta.store.accounts import Account
from tests.store.composing import append, blob_of, new_mailbox, run, uids

SIZE = 1000


def rule(store: Store, *texts: str) -> None:
    unit = MailStore(store).quota_rules.change(parse_quota_rules(texts))
    if unit is not None:
        assert run(store, unit) == ""


def appending(store: Store, box: int, size: int = SIZE) -> Unit:
    unit, blob = store.new_unit(), blob_of(store, b"x" * size)
    unit.blob(blob)
    append(unit, box, blob.blob_id)
    return unit


def fill(store: Store, box: int, size: int = SIZE) -> int:
    """How many messages the mailbox takes."""
    count = 0
    while count < 50 and run(store, appending(store, box, size)) == "":
        count += 1
    return count


def test_the_rule_of_all_holds_for_who_has_no_quota_of_his_own(store: Store) -> None:
    own, ruled, free = (new_mailbox(store, account) for account in (1, 2, 3))
    unit = store.new_unit()
    unit.quota(1, 7 * SIZE)
    unit.quota(3, NO_QUOTA, NO_QUOTA_MESSAGES)
    assert run(store, unit) == ""
    rule(store, f"*:bytes={5 * SIZE}:messages=20")
    assert [fill(store, box) for box in (own, ruled, free)] == [7, 5, 50]
    assert [quota_fields(store, account)[2:] for account in (1, 2, 3)] == [(7 * SIZE, 20), (5 * SIZE, 20), (0, 0)]
    rule(store, f"*:bytes={6 * SIZE}")
    assert fill(store, ruled) == 1
    rule(store)
    assert fill(store, ruled) == 50


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        (f"Trash:bytes=+{5 * SIZE}", 5),
        (f"Trash:bytes={5 * SIZE}", 5),
        ("Tr*h:storage=+50%", 5),
        ("T????:storage=+50%", 5),
        ("*rash:messages=+3", 0),
        ("Trash:ignore", 50),
        ("Tras:ignore", 0),
        ("trash:ignore", 0),
        ("*a*b*:bytes=+1G", 0),
        (f"Trash:bytes=-{5 * SIZE}", 0),
    ],
)
def test_a_mailboxs_rule_adds_to_its_accounts_limit(store: Store, text: str, taken: int) -> None:
    inbox, trash = new_mailbox(store), new_mailbox(store, 1, b"Trash")
    rule(store, f"*:bytes={10 * SIZE}", text)
    assert fill(store, inbox) == 10
    assert fill(store, trash) == taken
    assert fill(store, inbox) == 0


def test_less_than_nothing_is_nothing(store: Store) -> None:
    trash = new_mailbox(store, 1, b"Trash")
    rule(store, "*:bytes=5000", "Trash:bytes=-1G")
    assert fill(store, trash) == 0


def test_a_limit_of_messages_is_raised_too(store: Store) -> None:
    inbox, trash = new_mailbox(store), new_mailbox(store, 1, b"Trash")
    rule(store, "*:messages=4", "Trash:messages=+3")
    assert (fill(store, inbox), fill(store, trash)) == (4, 3)


@pytest.mark.parametrize(("percent", "taken"), [("+10", 5), ("+199", 99), ("-10", -5), ("-1", 0)])
def test_a_part_of_a_limit_is_of_all_of_it(store: Store, percent: str, taken: int) -> None:
    """Of a limit of 50, too: ten per cent are 5, not ten times what each whole hundred gives."""
    trash = new_mailbox(store, 1, b"Trash")
    rule(store, "*:messages=50:bytes=1050", f"Trash:messages={percent}%:bytes={percent}%")
    wanted = 1050 * int(percent) / 100
    assert quota_fields(store, 1, trash)[2:] == (1050 + int(wanted), 50 + taken)


def test_the_first_rule_for_a_mailbox_is_the_one_that_holds(store: Store) -> None:
    """What is counted by the first is counted though a later one says otherwise; and what is not, is taken off once."""
    inbox, trash = new_mailbox(store), new_mailbox(store, 1, b"Trash")
    rule(store, f"*:bytes={10 * SIZE}", f"Tr*:bytes=+{2 * SIZE}", "Trash:ignore")
    assert (fill(store, trash), quota_fields(store, 1)[:2]) == (12, (12 * SIZE, 12))
    rule(store, f"*:bytes={10 * SIZE}", "Trash:ignore", "Trash:ignore")
    assert (fill(store, inbox), quota_fields(store, 1)[:2]) == (10, (10 * SIZE, 10))


def test_what_is_not_counted_takes_no_room_and_counts_once_it_is_moved(store: Store) -> None:
    inbox, spam = new_mailbox(store), new_mailbox(store, 1, b"Spam")
    rule(store, f"*:bytes={10 * SIZE}", "Spam:ignore")
    assert fill(store, spam) == 50
    assert quota_fields(store, 1) == (0, 0, 10 * SIZE, 0)
    assert quota_fields(store, 1, spam)[2:] == (0, 0)
    unit = store.new_unit()
    unit.copy(spam, uids(1, 2, 3), inbox, True)  # within an account nobody asks, as in Dovecot
    assert run(store, unit) == ""
    assert quota_fields(store, 1) == (3 * SIZE, 3, 10 * SIZE, 0)
    assert fill(store, inbox) == 7
    unit = store.new_unit()
    unit.copy(spam, uids(4), inbox, False)
    assert run(store, unit) == "quota"


def test_a_copy_is_asked_by_the_rule_of_its_target(store: Store) -> None:
    inbox, trash = new_mailbox(store), new_mailbox(store, 1, b"Trash")
    rule(store, f"*:bytes={2 * SIZE}", f"Trash:bytes=+{SIZE}")
    assert fill(store, inbox) == 2
    for target, answer in ((inbox, "quota"), (trash, ""), (trash, "quota")):
        unit = store.new_unit()
        unit.copy(inbox, uids(1), target, False)
        assert run(store, unit) == answer


def test_rules_are_those_of_another_process_as_soon_as_it_has_written_them(store: Store) -> None:
    """By what a transaction sees of `meta`; and a record that is cut has no more rules than fit."""
    box = new_mailbox(store, 1, b"Trash")
    rule(store, f"*:bytes={SIZE}", "Trash:ignore")
    kept = store.get(22, b"quota_rules")
    assert kept is not None
    unit = store.new_unit()
    unit.put(22, b"quota_rules", kept[:-1])
    assert run(store, unit) == ""
    assert fill(store, box) == 1


@pytest.fixture
async def mail(tmp_path: Path) -> AsyncIterator[MailStore]:
    mail = MailStore.open(tmp_path / "store", sync=False, clock=ManualClock(), engine="memory")
    yield mail
    mail.close()


async def test_the_face_tells_what_the_transaction_obeys(mail: MailStore) -> None:
    account: Account = await mail.accounts.add("user@example.org", "hash")
    trash = mail.mailboxes.get(account.id, "Trash")
    assert trash is not None
    unit = mail.quota_rules.change(parse_quota_rules(["*:bytes=100", "Trash:bytes=+50"]))
    assert unit is not None
    await mail.commit(unit)
    assert mail.quota_rules.change(parse_quota_rules(["*:bytes=100", "Trash:bytes=+50"])) is None
    assert mail.mailboxes.usage(account.id) == (0, 0, 100, 0)
    assert mail.mailboxes.room(account.id, trash.id) == 150
    assert mail.mailboxes.room(account.id, account.inbox_id) == 100
    assert not mail.accounts.is_full(account.id, account.inbox_id)
