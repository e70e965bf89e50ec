"""`fastmta mailbox undelete` with the server down; the transaction's side: tests/store/test_store_retained.py."""

import asyncio
from array import array
from pathlib import Path
from types import SimpleNamespace

import pytest

from fastmta import _mime
from fastmta.cli.failures import EX_CANTCREAT, EX_USAGE
from fastmta.config.load import load
from fastmta.operations import undeleting
from fastmta.store import MailStore
from fastmta.store.retained import RetainedMessages

BODY = b"From: Ann <ann@example.org>\r\nSubject: %d\r\n\r\ntext\r\n"


def expunged(cli, mailbox, count, *, delete=False):
    """Files messages, expunges them as a server with undelete does, and perhaps deletes their mailbox."""

    async def work():
        store = MailStore.open(Path(load(cli.config).data_directory))
        try:
            store.retained_bytes = 1 << 30
            account = store.accounts.lookup("bill@example.test")
            box = store.mailboxes.get(account.id, mailbox)
            for number in range(count):
                blob, structure = store.mailboxes.new_blob(), _mime.Structure()
                blob.feed(BODY % number)
                structure.feed(BODY % number)
                _, uid = await store.mailboxes.append(
                    box.id,
                    blob,
                    prefix=b"Return-Path: <>\r\n",
                    flags=9,
                    internal_date_s=5,
                    structure=structure.finish(),
                )
                await store.mailboxes.expunge(box.id, array("I", [uid]))
            if delete:
                await store.mailboxes.delete(box.id)
        finally:
            store.close()

    asyncio.run(work())


def test_expunged_mail_comes_back_as_it_was_and_once(cli):
    cli.user()
    expunged(cli, "INBOX", 2)
    expunged(cli, "Archive", 1, delete=True)
    listed = cli.ok("mailbox", "undelete", "bill", "--list", "--json").json
    assert [(each["mailbox"], each["subject"]) for each in listed] == [("INBOX", "0"), ("INBOX", "1"), ("Archive", "0")]
    assert cli.ok("mailbox", "expunged", "bill", "--json").json == listed
    assert cli.ok("mailbox", "undelete", "bill", "--mailbox", "inbox").out == "2 messages brought back\n"
    assert cli.mail() == [b"Return-Path: <>\r\n" + BODY % number for number in range(2)]
    assert cli.ok("mailbox", "undelete", "bill").out == "1 message brought back\n"
    assert len(cli.mail(mailbox="Archive")) == 1
    assert cli.ok("mailbox", "undelete", "bill").out == "0 messages brought back\n"
    assert cli.ok("store", "check").code in (0, None)
    (inbox, *_) = cli.ok("mailbox", "list", "bill", "--json").json
    assert (inbox["messages"], inbox["unseen"]) == (2, 0)


def test_what_comes_back_is_chosen_by_time_and_bounded_by_the_quota(cli):
    cli.user()
    expunged(cli, "INBOX", 2)
    assert cli.ok("mailbox", "undelete", "bill", "--list", "--since", "2100-01-01", "--json").json == []
    assert len(cli.ok("mailbox", "undelete", "bill", "--list", "--since", "1h", "--json").json) == 2
    assert cli("mailbox", "undelete", "bill", "--since", "yesterday").code == EX_USAGE
    cli.ok("user", "quota", "bill", "100")
    done = cli("mailbox", "undelete", "bill")
    assert done.code == EX_CANTCREAT
    assert "quota" in done.err and "1 messages were brought back" in done.err
    cli.ok("user", "quota", "bill", "0")
    assert cli.ok("mailbox", "undelete", "bill").out == "1 message brought back\n"


@pytest.mark.parametrize("moment", ["structure", "restoring"])
def test_what_goes_while_it_is_brought_back_ends_nothing(cli, monkeypatch, moment):
    """The oldest make room for what is expunged meanwhile, and mailboxes are deleted."""
    cli.user()
    expunged(cli, "Archive", 3)
    before = getattr(RetainedMessages, moment)

    async def work():
        store = MailStore.open(Path(load(cli.config).data_directory), trash_delay_ms=0)
        account = store.accounts.lookup("bill@example.test")
        raw, rows = store.raw, store.retained.page(account.id)
        events = iter(("message", "mailbox", "nothing", "nothing"))

        def meanwhile(self, *arguments):
            out, event, unit = None, next(events), raw.new_unit()
            if moment == "restoring":
                out = before(self, *arguments)
            if event == "message":
                unit.release(account.id, rows[0].key, True)
                assert raw.commit_sync(unit).failure is None
                raw.reap()
            if event == "mailbox":
                unit.mailbox_gone(rows[0].mailbox_id)
                assert raw.commit_sync(unit).failure is None
            return before(self, *arguments) if out is None else out

        async def pause():
            pass

        monkeypatch.setattr(RetainedMessages, moment, meanwhile)
        desk = SimpleNamespace(
            config=load(cli.config), store=store, pause=pause, note=lambda **_: None, progress=lambda *_: None
        )
        try:
            return await undeleting.undelete(desk, undeleting.Wanted("bill@example.test"))
        finally:
            store.close()

    assert asyncio.run(work()).messages == 2
    assert len(cli.mail(mailbox="Archive")) == 2
    assert cli.ok("store", "check").code in (0, None)


def test_a_purge_is_for_good(cli):
    cli.user()
    expunged(cli, "INBOX", 2)
    cli.ok("mailbox", "purge", "--yes", "bill")
    assert cli.ok("mailbox", "undelete", "bill", "--list", "--json").json == []
