"""`fastmta mailbox share` with the server down; what rights do: tests/imap/test_acl.py."""

from fastmta.cli.failures import EX_DATAERR, EX_NOUSER, EX_USAGE


def _listed(cli, *of):
    found = cli.ok("mailbox", "share", "list", "bill", *of, "--json").json
    return [(each["mailbox"], each["identifier"], each["rights"]) for each in found]


def test_mailboxes_are_shared_and_listed(cli):
    cli.user()
    cli.user("ann@example.test")
    cli.ok("mailbox", "share", "add", "bill", "Archive", "ann", "lrs")
    cli.ok("mailbox", "share", "add", "bill", "INBOX", "anyone", "lookup,read")
    cli.ok("mailbox", "share", "add", "bill", "INBOX", "user=ann", "all")
    cli.ok("mailbox", "share", "add", "bill", "Archive", "ann", "+ie")
    assert _listed(cli) == [
        ("Archive", "ann@example.test", "lrsie"),
        ("INBOX", "ann@example.test", "lrswipkxtea"),
        ("INBOX", "anyone", "lr"),
    ]
    cli.ok("mailbox", "share", "remove", "bill", "INBOX", "ann")
    assert _listed(cli, "--mailbox", "INBOX") == [("INBOX", "anyone", "lr")]
    cli.ok("mailbox", "share", "add", "bill", "Archive", "ann", "")
    assert _listed(cli)[0] == ("Archive", "ann@example.test", "")


def test_what_is_wrong_is_said(cli):
    cli.user()
    assert cli("mailbox", "share", "add", "bill", "INBOX", "nobody", "lr").code == EX_DATAERR
    assert cli("mailbox", "share", "add", "bill", "INBOX", "bill", "lr").code == EX_DATAERR
    assert cli("mailbox", "share", "add", "bill", "Nowhere", "anyone", "lr").code == EX_NOUSER
    assert cli("mailbox", "share", "list", "bill", "--mailbox", "Nowhere").code == EX_NOUSER
    assert cli("mailbox", "share", "remove", "bill", "INBOX", "anyone").code == EX_NOUSER
    done = cli("mailbox", "share", "add", "bill", "INBOX", "anyone", "read,see")
    assert done.code == EX_USAGE
    assert "lrswipkxtea" in done.err


def test_mailboxes_are_shared_with_groups(cli):
    cli.user()
    cli.user("ann@example.test")
    assert cli("mailbox", "share", "add", "bill", "Archive", "group=sales", "lr").code == EX_DATAERR
    cli.ok("user", "group", "add", "Sales", "ann", "bill")
    cli.ok("mailbox", "share", "add", "bill", "Archive", "group=sales", "lr")
    assert _listed(cli) == [("Archive", "$sales", "lr")]
    members = [(each["group"], each["address"]) for each in cli.ok("user", "group", "list", "--json").json]
    assert sorted(members) == [("sales", "ann@example.test"), ("sales", "bill@example.test")]
    cli.ok("user", "group", "remove", "sales", "bill")
    assert [each["address"] for each in cli.ok("user", "group", "list", "sales", "--json").json] == ["ann@example.test"]
    assert cli("user", "group", "remove", "sales", "bill").code == EX_NOUSER
    assert cli("user", "group", "list", "nobody").code == EX_NOUSER
    cli.ok("mailbox", "share", "remove", "bill", "Archive", "$sales")
    cli.ok("user", "group", "delete", "sales")
    assert cli("user", "group", "delete", "sales").code == EX_NOUSER
