"""Last logins: what is noted is there at once, and an account's row is written once a minute at most."""

import asyncio

import pytest

from fastmta._store import TABLE_CREDENTIAL
from fastmta.model.limits import LAST_LOGINS_NOTED
from fastmta.runtime.clock import ManualClock
from fastmta.store import MailStore

run = asyncio.run


@pytest.fixture
def mail(tmp_path):
    store = MailStore.open(tmp_path, sync=False, map_size_bytes=1 << 28, clock=ManualClock())
    yield store
    store.close()


def _rows(mail):
    return len(mail.raw.scan(TABLE_CREDENTIAL, b"", b"", 100))


def test_a_login_is_known_at_once_and_after_it_is_written(mail):
    account = run(mail.accounts.add("user@example.test", "x"))
    assert mail.last_logins.get(account.id) is None
    mail.last_logins.note(account.id, "imap", "192.0.2.1")
    for _ in range(2):
        last = mail.last_logins.get(account.id)
        assert (last.protocol, last.address) == ("imap", "192.0.2.1")
        run(mail.last_logins.flush())
    assert not mail.last_logins.has_fresh
    assert _rows(mail) == 1
    run(mail.accounts.delete("user@example.test"))
    assert _rows(mail) == 0


def test_an_account_is_written_once_a_minute(mail):
    account = run(mail.accounts.add("user@example.test", "x"))
    mail.last_logins.note(account.id, "imap", "192.0.2.1")
    run(mail.last_logins.flush())
    before = mail.raw.last_txn_id()
    for number in range(10):
        mail.last_logins.note(account.id, "pop3", f"192.0.2.{number}")
        run(mail.last_logins.flush())
    assert mail.raw.last_txn_id() == before
    mail.clock.advance(61)
    run(mail.last_logins.flush())
    assert not mail.last_logins.has_fresh
    mail.last_logins.note(account.id, "imap", "192.0.2.77")
    run(mail.last_logins.flush(all_of_them=True))
    assert mail.last_logins.get(account.id).address == "192.0.2.77"


def test_what_waits_has_a_bound(mail):
    for number in range(LAST_LOGINS_NOTED + 5):
        mail.last_logins.note(number + 1, "imap", "192.0.2.1")
    assert mail.last_logins.get(LAST_LOGINS_NOTED) is not None
    assert mail.last_logins.get(LAST_LOGINS_NOTED + 1) is None
    mail.last_logins.note(1, "pop3", "192.0.2.1")
    assert mail.last_logins.get(1).protocol == "pop3"


def test_an_account_that_is_gone_leaves_no_row(mail):
    account = run(mail.accounts.add("user@example.test", "x"))
    mail.last_logins.note(account.id, "imap", "192.0.2.1")
    run(mail.accounts.delete("user@example.test"))
    run(mail.last_logins.flush())
    assert _rows(mail) == 0
