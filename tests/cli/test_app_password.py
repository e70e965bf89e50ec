"""`fastmta app-password` with the server down; that it opens a running one: tests/e2e/test_logins.py."""

from fastmta.cli.failures import EX_DATAERR, EX_NOUSER, EX_USAGE


def test_app_passwords_are_made_listed_and_deleted(cli):
    cli.user()
    first = cli.ok("app-password", "add", "bill", "phone", "--protocol", "imap", "--protocol", "smtp").out.strip()
    second = cli.ok("app-password", "add", "bill@example.test", "desk", "--json").json["password"]
    assert first != second
    assert [len(each) for each in first.split("-")] == [4] * 6
    listed = cli.ok("app-password", "list", "bill", "--json").json
    assert [(each["name"], each["protocols"]) for each in listed] == [("desk", []), ("phone", ["imap", "smtp"])]
    cli.ok("app-password", "delete", "bill", "phone")
    assert "phone" not in cli.ok("app-password", "list", "bill").out


def test_what_is_wrong_is_said(cli):
    cli.user()
    cli.ok("app-password", "add", "bill", "phone")
    assert cli("app-password", "add", "nobody", "phone").code == EX_NOUSER
    assert cli("app-password", "add", "bill", "phone").code == EX_DATAERR
    assert cli("app-password", "add", "bill", "").code == EX_DATAERR
    assert cli("app-password", "add", "bill", "x\ny").code == EX_DATAERR
    done = cli("app-password", "add", "bill", "x", "--protocol", "ftp")
    assert done.code == EX_USAGE
    assert "imap, pop3, smtp" in done.err
    assert cli("app-password", "delete", "bill", "desk").code == EX_NOUSER
