"""What POP3 calls messages stays over export and import, and over a move from Dovecot."""

import pytest

from fastmta.pop3.maildrop import MaildropReader
from tests.cli.test_mailbox_io import put, whole, with_store

ANN = "ann@example.test"


def names(cli, address="bill@example.test"):
    """As UIDL lists them."""
    from fastmta.model.actor import Actor

    async def work(store, _):
        account = store.accounts.lookup(address)
        drop = next(each for each in MaildropReader(store).open(Actor(account.id)) if each is not None)
        return [drop.unique_id(index) for index in range(len(drop.uids))]

    return with_store(cli, work)


@pytest.mark.parametrize("form", ["mbox", "maildir"])
def test_names_stay_over_export_and_import(cli, tmp_path, form):
    cli.user()
    cli.user(ANN)
    for number in range(3):
        put(cli, b"X-Uidl: of its own\r\nSubject: %d\r\nX-UIDL: another\r\n\r\ntext\r\n" % number, date_s=10 + number)
    before, content = names(cli), whole(cli)
    for path, of, into in ((tmp_path / "a", "bill", "ann"), (tmp_path / "b", "ann", "bill")):
        if form == "maildir":
            path.mkdir()
        cli.ok("mailbox", "export", of, str(path))
        cli.ok("mailbox", "purge", "--yes", into)
        cli.ok("mailbox", "import", into, str(path))
        assert names(cli, ANN) == before
    assert names(cli)[0] != before[0]  # a name of this mailbox's own form is not taken by another message
    assert whole(cli) == content
    cli.ok("mailbox", "import", "ann", str(tmp_path / "a"))
    assert names(cli, ANN)[:3] == before
    assert len(set(names(cli, ANN))) == 6
    cli.ok("user", "delete", "--yes", "ann")
    assert cli.ok("store", "check").code in (0, None)


def test_a_maildir_that_is_added_to_keeps_its_list(cli, tmp_path):
    cli.user()
    cli.user(ANN)
    path = tmp_path / "m"
    path.mkdir()
    for number in range(2):
        put(cli, b"Subject: %d\r\n\r\n" % number, date_s=100 + number)
        cli.ok("mailbox", "export", "bill", str(path))
    head, *lines = (path / "dovecot-uidlist").read_bytes().splitlines()
    assert head.endswith(b" N4")
    assert [line.split()[0] for line in lines] == [b"1", b"2", b"3"]
    cli.ok("mailbox", "import", "ann", str(path))
    assert set(names(cli, ANN)) > set(names(cli))


def test_mail_of_dovecot_is_called_as_dovecot_called_it(cli, tmp_path):
    """By `%08Xu%08Xv`, its default, but where the list has a name of its own."""
    cli.user()
    for part in ("cur", "new", "tmp"):
        (tmp_path / "m" / part).mkdir(parents=True)
    for number in range(3):
        (tmp_path / "m" / "cur" / f"{number}.x:2,S").write_bytes(b"Subject: %d\n\n" % number)
    (tmp_path / "m" / "dovecot-uidlist").write_bytes(
        b"3 V1543503873 N30 Gd1a2\n10 W18 :0.x\n11 Pof-its-own W18 :1.x:2,\nrubbish\n"
    )
    cli.ok("mailbox", "import", "bill", str(tmp_path / "m"))
    found = names(cli)
    assert found[:2] == [b"0000000a5c000001", b"of-its-own"]
    assert found[2].endswith(b".3")
    (tmp_path / "box").write_bytes(
        b"From x Thu Jan  1 00:00:00 1970\nX-IMAPbase: 1543503873 30\nX-UID: 12\nSubject: a\n\n\n"
        b"From x Thu Jan  1 00:00:00 1970\nX-UID: 13\nX-UIDL: kept\nSubject: b\n\n\n"
        b"From x Thu Jan  1 00:00:00 1970\nX-UID: 14\nSubject: c\nX-UIDL: two words\n\n\n"
    )
    cli.ok("mailbox", "import", "bill", str(tmp_path / "box"))
    assert names(cli)[3:] == [b"0000000c5c000001", b"kept", b"0000000e5c000001"]
    assert whole(cli)[-1][0] == b"Subject: c\r\nX-UIDL: two words\r\n\r\n"
