"""One function in one file is a command, a request of the control socket, and a line of the log."""

import json
import syslog
from typing import Any

import click
import pytest

from fastmta.cli import derived
from fastmta.cli import main as program
from fastmta.operations import acts


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(syslog, "syslog", lambda level, line: lines.append(line))
    monkeypatch.setitem(acts.FAMILIES, "trial", ("tests.cli.trial_acts",))
    group = click.Group("trial")
    derived.add_missing(group, "trial")
    monkeypatch.setitem(program.COMMANDS, "trial", ("tests.cli.test_derived", "GROUP", "A trial."))
    monkeypatch.setitem(globals(), "GROUP", group)
    return lines


GROUP: click.Group


def test_the_command_follows_from_the_function(cli: Any, told: list[str]) -> None:
    text = cli.ok("trial", "greet", "--help").out
    for part in ("Greet somebody.", "NAME WORD", "--times", "How often.", "1<=x<=3", "--loud", "--json"):
        assert part in text, part
    assert (
        cli.ok("trial", "greet", "bill", "x", "--times", "2", "--loud").out
        == "said              hello bill hello bill!\n"
    )
    assert cli.ok("trial", "greet", "bill", "x", "--json").json == {"said": "hello bill"}
    assert cli("trial", "greet", "bill", "x", "--times", "9").code == 64
    assert cli("trial", "greet", "nobody", "x").code == 67
    assert cli.ok("trial", "count-up").out.split() == ["SAID", "0", "1", "2"]
    assert [each["said"] for each in cli.ok("trial", "count-up", "--upto", "250", "--json").json][-1] == "249"
    assert len(told) == 2
    assert told[0].startswith("admin.trial.greet name='bill' uid=")


def test_an_act_that_fails_half_way_is_told(cli: Any, told: list[str]) -> None:
    assert cli("trial", "greet", "half", "x").code == 75
    assert told[0].startswith("admin.trial.greet name='half' failed='only half of it' uid=")


def test_the_row_of_the_table_has_the_types(told: list[str]) -> None:
    found = acts.find("trial.greet")
    assert found is not None
    assert (found.request.__name__, found.result.__name__, found.changes, found.who) == (
        "Greet",
        "Greeted",
        True,
        "owner",
    )
    assert json.dumps([each.name for each in acts.in_family("trial")]) == '["trial.greet", "trial.count_up"]'
