"""`user rename`, `disable` and `enable` with the server down; with it up: tests/e2e/test_closed_accounts.py."""

from fastmta.cli.failures import EX_DATAERR, EX_NOUSER


def test_a_renamed_account_keeps_mail_password_and_aliases(cli):
    cli.user()
    cli.user("ann@example.test")
    cli.sendmail("bill")
    cli.ok("alias", "add", "team", "bill,ann")
    cli.ok("alias", "add", "both", "bill,william")
    cli.ok("user", "rename", "bill", "William")
    assert [each["address"] for each in cli.ok("user", "list", "--json").json] == [
        "ann@example.test",
        "william@example.test",
    ]
    assert len(cli.mail("william@example.test")) == 1
    assert {each["address"]: each["targets"] for each in cli.ok("alias", "list", "--json").json} == {
        "both@example.test": ["william@example.test"],
        "team@example.test": ["william@example.test", "ann@example.test"],
    }
    assert cli.sendmail("william", "team").code == 0
    assert len(cli.mail("william@example.test")) == 2
    assert cli.ok("store", "check").out == "no problem found\n"
    cli.user("bill@example.test")  # the old address is free


def test_what_cannot_be_renamed_stays(cli):
    cli.user()
    cli.user("ann@example.test")
    cli.ok("alias", "add", "team", "bill")
    assert cli("user", "rename", "nobody", "x").code == EX_NOUSER
    for taken in ("ann", "team"):
        done = cli("user", "rename", "bill", taken)
        assert done.code == EX_DATAERR
        assert f"{taken}@example.test" in done.err
    cli.ok("user", "rename", "bill", "BILL")
    assert "elsewhere.test is not in mydestination" in cli.ok("user", "rename", "ann", "ann@elsewhere.test").err


def test_a_disabled_account_is_listed_as_such_and_refuses_mail_until_it_is_enabled(cli):
    cli.user()
    cli.ok("user", "disable", "bill")
    assert cli.ok("user", "list", "--json").json[0]["enabled"] is False
    assert cli.ok("user", "list").out.splitlines()[1].endswith("disabled")
    cli.sendmail("bill")
    assert cli.mail() == []
    cli.ok("user", "enable", "bill")
    cli.sendmail("bill")
    assert len(cli.mail()) == 1
    assert cli("user", "disable", "nobody").code == EX_NOUSER
