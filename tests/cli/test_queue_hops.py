"""`queue suspend`, `resume`, `top` and `shape`, without a server."""

import time

import pytest

from fastmta.cli.failures import EX_DATAERR, EX_USAGE
from fastmta.cli.quick_acts import quick


@pytest.fixture
def full(cli):
    """Four recipients of three messages."""
    cli.user()
    cli.sendmail("-f", "bulk@example.test", "one@a.test", "two@b.test")
    cli.sendmail("-f", "bulk@example.test", "three@a.test")
    cli.sendmail("-f", "", "Four@C.test")
    return cli


def suspended(cli):
    return sorted(each["recipient"] for each in cli.ok("queue", "list", "--json").json if each["suspended"])


def test_a_domain_is_suspended_and_resumed_by_its_hop(full):
    assert full.ok("queue", "suspend", "A.test").out == "smtp:a.test suspended\n"
    assert suspended(full) == ["one@a.test", "three@a.test"]
    assert "suspended" in full.ok("queue", "list").out
    row = full.ok("queue", "list", "--json", "--recipient", "three@a.test").json[0]
    assert row["suspended_since"] and row["suspended_by"]
    assert "suspended_since" in full.ok("queue", "show", row["queue_id"]).out
    assert full.ok("queue", "suspend", "a.test", "--json").json == []
    full.ok("queue", "flush", "--all")
    assert suspended(full) == ["one@a.test", "three@a.test"]
    assert full.ok("queue", "resume", "a.test", "--json").json == [{"name": "a.test", "next_hop": "smtp:a.test"}]
    assert suspended(full) == []
    done = full("queue", "resume", "a.test")
    assert done.code == EX_DATAERR and "is not suspended" in done.err


def test_everything_is_suspended_and_resumed(full):
    full.ok("queue", "suspend", "b.test")
    full.ok("queue", "suspend", "--all")
    assert len(suspended(full)) == 4
    done = full("queue", "resume", "a.test")
    assert done.code == EX_DATAERR and "--all" in done.err
    full.ok("queue", "resume", "--all")
    assert suspended(full) == []
    assert full.ok("queue", "resume", "--all").out == "nothing was suspended\n"


def test_a_routed_domain_is_resumed_though_its_route_has_changed(full):
    full.change("[transport] ", '[transport]\n"a.test" = "smtp:[192.0.2.1]:2525"\n# ')
    assert full.ok("queue", "suspend", "a.test", "--json").json == [
        {"name": "a.test", "next_hop": "smtp:[192.0.2.1]:2525"}
    ]
    full.change('"a.test" = "smtp:[192.0.2.1]:2525"', "")
    assert full.ok("queue", "resume", "a.test").out == "smtp:[192.0.2.1]:2525 resumed\n"


def test_what_has_no_hop_of_its_own_is_refused_with_a_remedy(full):
    full.change('relayhost = ""', 'relayhost = "[192.0.2.9]:25"') if 'relayhost = ""' in full.config.read_text() else (
        full.config.write_text('relayhost = "[192.0.2.9]:25"\n' + full.config.read_text())
    )
    done = full("queue", "suspend", "a.test")
    assert done.code == EX_DATAERR and "smtp:[192.0.2.9]:25" in done.err
    assert full.ok("queue", "suspend", "smtp:[192.0.2.9]:25").out == "smtp:[192.0.2.9]:25 suspended\n"
    assert full("queue", "suspend", "example.test").code == EX_DATAERR
    assert full("queue", "suspend", "nonsense:x").code == EX_DATAERR
    for arguments in (("suspend",), ("resume",), ("suspend", "--all", "a.test")):
        assert full("queue", *arguments).code == EX_USAGE


def test_top_has_the_counts_and_what_is_suspended_first(full):
    assert [(each["next_hop"], each["waiting"]) for each in full.ok("queue", "top", "--json").json] == [
        ("smtp:a.test", 2),
        ("smtp:b.test", 1),
        ("smtp:c.test", 1),
    ]
    full.ok("queue", "suspend", "c.test", "d.test")
    full.ok("queue", "hold", "--domain", "b.test")
    rows = full.ok("queue", "top", "--json").json
    assert [(each["next_hop"], each["waiting"], each["held"], each["state"]) for each in rows] == [
        ("smtp:c.test", 1, 0, "suspended"),
        ("smtp:d.test", 0, 0, "suspended"),
        ("smtp:a.test", 2, 0, "waiting"),
        ("smtp:b.test", 0, 1, "waiting"),
    ]
    assert rows[0]["in_flight"] is None and rows[2]["oldest_seconds"] < 3600
    assert len(full.ok("queue", "top", "--limit", "1", "--json").json) == 1
    assert "smtp:a.test" in full.ok("queue", "top").out


def test_an_empty_queue_has_no_top_and_an_empty_shape(cli):
    assert cli.ok("queue", "top").out == "no mail waits for any next hop, and none is suspended\n"
    shape = cli.ok("queue", "shape", "--json").json
    assert shape["total"] == {"domain": "TOTAL", "total": 0, "ages": [0] * 10} and shape["domains"] == []


def test_shape_counts_by_age_and_domain_as_qshape_does(full, monkeypatch):
    table = full.ok("queue", "shape").out.splitlines()
    assert table[0].split() == ["T", "5", "10", "20", "40", "80", "160", "320", "640", "1280", "1280+"]
    assert table[1].split() == ["TOTAL", "4", "4", *["0"] * 9]
    assert [line.split()[:2] for line in table[2:]] == [["a.test", "2"], ["b.test", "1"], ["c.test", "1"]]
    now = time.time()
    for minutes, column in ((4, 0), (6, 1), (39, 3), (1279, 8), (1281, 9), (100_000, 9)):
        monkeypatch.setattr(time, "time", lambda minutes=minutes: now + minutes * 60)
        total = full.ok("queue", "shape", "--json").json["total"]["ages"]
        assert total[column] == 4 and sum(total) == 4
    monkeypatch.undo()


def test_shape_by_senders_with_selectors_and_columns_of_choice(full):
    senders = full.ok("queue", "shape", "-s", "--json").json
    assert [(each["domain"], each["total"]) for each in senders["domains"]] == [
        ("example.test", 3),
        ("MAILER-DAEMON", 1),
    ]
    chosen = full.ok("queue", "shape", "--domain", "a.test", "-b", "3", "-t", "60", "--json").json
    assert chosen["minutes"] == [60, 120] and chosen["total"] == {"domain": "TOTAL", "total": 2, "ages": [2, 0, 0]}
    assert len(full.ok("queue", "shape", "-l", "1", "--json").json["domains"]) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["top"],
        ["top", "--json", "--limit", "2"],
        ["shape"],
        ["shape", "--json"],
        ["shape", "-s", "-l", "1", "-t", "7", "-b", "3"],
        ["shape", "--senders", "--json", "--recipient", "one@a.test"],
        ["shape", "--state", "active", "--buckets=4"],
    ],
    ids=" ".join,
)
def test_the_quick_way_says_the_same(full, capsys, words):
    assert quick(["-c", str(full.config), "queue", *words]) == 0
    quickly = capsys.readouterr().out
    assert full.ok("queue", *words).out == quickly != ""


@pytest.mark.parametrize("words", [["top", "--limit", "many"], ["shape", "-z"], ["top", "--senders"]], ids=" ".join)
def test_the_quick_way_leaves_what_it_does_not_know(full, words):
    assert quick(["-c", str(full.config), "queue", *words]) is None


def test_the_quick_way_refuses_a_number_that_the_act_does(full, capsys):
    assert quick(["-c", str(full.config), "queue", "shape", "--limit", "0"]) == EX_USAGE
    assert ">= 1" in capsys.readouterr().err
