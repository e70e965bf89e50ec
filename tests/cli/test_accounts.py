"""`user rename`, `disable` and `enable` with the server down; with it up: tests/e2e/test_closed_accounts.py."""

import pytest

from fastmta.cli.failures import EX_DATAERR, EX_NOUSER
from fastmta.operations import users
from fastmta.store.aliases import Aliases


@pytest.fixture
def few_at_a_time(monkeypatch):
    """Aliases are changed two in a unit; gives the sizes of the units."""
    monkeypatch.setattr(users, "RETARGETED", 2)
    monkeypatch.setattr(users, "ALIASES_AT_ONCE", 3)
    sizes = []
    retarget_some = Aliases.retarget_some

    async def noted(self, names, old, new):
        sizes.append(len(names))
        await retarget_some(self, names, old, new)

    monkeypatch.setattr(Aliases, "retarget_some", noted)
    return sizes


def targets(cli):
    return {each["address"].partition("@")[0]: each["targets"] for each in cli.ok("alias", "list", "--json").json}


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


def test_very_many_aliases_are_changed_some_at_a_time(cli, few_at_a_time):
    cli.user()
    for n in range(7):
        cli.ok("alias", "add", f"a{n}", "bill")
    cli.ok("alias", "add", "bill", "bill,ann@elsewhere.test")
    cli.ok("user", "rename", "bill", "william")
    assert few_at_a_time == [2, 2, 2, 2]
    assert targets(cli) == {f"a{n}": ["william@example.test"] for n in range(7)} | {
        "bill": ["william@example.test", "ann@elsewhere.test"]
    }


def test_a_rename_that_is_interrupted_loses_no_mail_and_is_ended_by_another_call(cli, few_at_a_time, monkeypatch):
    cli.user()
    for n in range(5):
        cli.ok("alias", "add", f"a{n}", "bill")
    noted = Aliases.retarget_some

    async def interrupted(self, names, old, new):
        if len(few_at_a_time) == 1:
            raise KeyboardInterrupt
        await noted(self, names, old, new)

    monkeypatch.setattr(Aliases, "retarget_some", interrupted)
    with pytest.raises(BaseException):  # noqa: B017 - whatever the command line makes of ^C
        assert cli("user", "rename", "bill", "william").code == 0
    assert targets(cli)["bill"] == ["william@example.test"]
    assert cli.sendmail("a0", "a4", "bill").code == 0
    assert len(cli.mail("william@example.test")) == 1
    monkeypatch.setattr(Aliases, "retarget_some", noted)
    cli.ok("user", "rename", "bill", "william")
    assert targets(cli) == {f"a{n}": ["william@example.test"] for n in range(5)}
    assert cli("user", "rename", "bill", "william").code == EX_NOUSER


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
