"""`fastmta simulate`: two columns, JSON, where the mail comes from, and that it needs no server and no store."""

import json
import time

import pytest

from fastmta.cli.main import main

MAIL = '{"at":"2026-11-27T10:00","sender":"ann@example.test","recipients":["bill@b.test"]}\n'


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FASTMTA_CONFIG", raising=False)
    text = 'myhostname = "mx.example.test"\nmydestination = ["example.test"]\ndata_directory = "data"\n'
    (tmp_path / "fastmta.toml").write_text(text)
    (tmp_path / "new.toml").write_text(text + 'relayhost = "[relay.example.test]:25"\n')
    (tmp_path / "mail").write_text(MAIL)
    (tmp_path / "late").write_text(MAIL.replace("2026", "9999"))
    (tmp_path / "early").write_text(MAIL.replace("2026", "0001"))
    (tmp_path / "wide").write_text(MAIL + MAIL.replace("2026", "2036"))
    return tmp_path


def test_two_configurations_stand_side_by_side(here, capsys):
    assert main(["simulate", "--config", "new.toml", "--envelopes", "mail"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == ["present", "changed"]
    (route,) = (line for line in out.splitlines() if line.strip().startswith("route"))
    assert route.split()[1:] == ["smtp:b.test", "smtp:[relay.example.test]:25"]
    assert not (here / "data").exists()


def test_json_has_both_and_a_lone_configuration_stands_alone(here, capsys):
    assert main(["simulate", "--config", "new.toml", "--envelopes", "mail", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["present", "changed"]
    assert found["changed"]["destinations"]["b.test"]["routes"] == {"smtp:[relay.example.test]:25": 1}
    assert main(["simulate", "--envelopes", "mail", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["present"]
    (here / "fastmta.toml").unlink()
    assert main(["-c", "new.toml", "simulate", "--envelopes", "mail", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["changed"]


def test_yesterday_is_read_from_the_trace(here, capsys):
    day = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 86_400))
    before = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 2 * 86_400))
    lines = []
    for number, at in enumerate((f"{before}T23:59:59.000Z", f"{day}T00:00:01.000Z", f"{day}T23:59:00.000Z")):
        queue_id = f"0000000BCD{number}"
        base = {"at": at, "level": "info", "queue_id": queue_id}
        lines.append(base | {"event": "smtp.received", "from": "ann@example.test", "to": ["bill@b.test"], "size": 900})
        lines.append(
            base
            | {
                "event": "delivery.bounced",
                "recipient": "bill@b.test",
                "next_hop": "smtp:b.test",
                "relay": "mx.b.test[203.0.113.9]:25",
                "reply": "550 5.1.1 no such user",
            }
        )
    (here / "data" / "trace").mkdir(parents=True)
    for name in (before, day):
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines if line["at"].startswith(name))
        (here / "data" / "trace" / f"{name}.000.jsonl").write_text(text)
    assert main(["simulate", "--yesterday", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["present"]["destinations"]
    assert list(found) == ["b.test"]
    assert (found["b.test"]["recipients"], found["b.test"]["bounced"]) == (2, 2)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 64, "which mail?"),
        (["--yesterday", "--envelopes", "mail"], 64, "which mail?"),
        (["--envelopes", "nothing"], 66, "nothing: No such file"),
        (["--envelopes", "new.toml"], 65, "line 1 is no JSON"),
        (["--envelopes", "late"], 65, "line 1: no message"),
        (["--envelopes", "early"], 65, "line 1: no message"),
        (["--envelopes", "wide"], 65, "the mail is of 3653 days"),
        (["--yesterday"], 66, "there is no trace"),
        (["--envelopes", "mail", "--config", "nothing.toml"], 78, "nothing.toml"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_said(here, capsys, arguments, code, said):
    assert main(["simulate", *arguments]) == code
    assert said in capsys.readouterr().err


def test_no_mail_is_an_error(here, capsys):
    (here / "mail").write_text("\n")
    assert main(["simulate", "--envelopes", "mail"]) == 66
    assert "there was no mail" in capsys.readouterr().err
