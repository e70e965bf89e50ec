"""The queue's commands, mailq, postmap and newaliases."""

import asyncio
from base64 import b64decode
from pathlib import Path

import pytest

from fastmta.cli.failures import EX_NOINPUT, EX_USAGE
from fastmta.cli.queue_quick import quick
from fastmta.config.load import load
from fastmta.model.ids import parse_queue_id
from fastmta.store import MailStore
from fastmta.store.queue import Queue


@pytest.fixture
def full(cli):
    """Four recipients of three messages."""
    cli.user()
    cli.sendmail("-f", "bulk@example.test", "one@a.test", "two@b.test")
    cli.sendmail("-f", "bulk@example.test", "three@a.test")
    cli.sendmail("-f", "", "Four@C.test")
    return cli


def recipients(cli, *selectors):
    return sorted(each["recipient"] for each in cli.ok("queue", "list", "--json", *selectors).json)


def test_an_empty_queue(cli):
    assert cli.ok("queue", "list", "--json").json == []
    assert cli.ok("queue", "list").out == "the queue is empty\n"
    assert cli.mailq().out == "Mail queue is empty\n"
    assert cli.ok("queue", "stats", "--json").json["messages"] == 0
    assert cli.ok("queue", "flush", "--json").json == {"changed": 0}


@pytest.mark.parametrize(
    ("selectors", "found"),
    [
        ((), ["Four@c.test", "one@a.test", "three@a.test", "two@b.test"]),
        (("--all",), ["Four@c.test", "one@a.test", "three@a.test", "two@b.test"]),
        (("--domain", "A.test"), ["one@a.test", "three@a.test"]),
        (("--sender", "Bulk@example.test"), ["one@a.test", "three@a.test", "two@b.test"]),
        (("--sender", "<>"), ["Four@c.test"]),
        (("--sender", ""), ["Four@c.test"]),
        (("--recipient", "four@c.test"), ["Four@c.test"]),
        (("--sender", "bulk@example.test", "--domain", "b.test"), ["two@b.test"]),
        (("--state", "active"), ["Four@c.test", "one@a.test", "three@a.test", "two@b.test"]),
        (("--state", "held"), []),
        (("--older", "1h"), []),
        (("--hop", "smtp:a.test"), ["one@a.test", "three@a.test"]),
        (("--hop", "A.test"), ["one@a.test", "three@a.test"]),
        (("--hop", "[a.test]"), []),
        (("--hop", "smtp:b.test", "--sender", "bulk@example.test"), ["two@b.test"]),
        (("--error", "try again"), []),
        (("--tenant", "Example.test"), ["one@a.test", "three@a.test", "two@b.test"]),
        (("--tenant", "example.test", "--domain", "a.test"), ["one@a.test", "three@a.test"]),
        (("--tenant", "a.test"), []),
        (("--domain", "absent.test"), []),
        (("--id", "000000000001"), []),
    ],
)
def test_selectors(full, selectors, found):
    assert recipients(full, *selectors) == found


@pytest.mark.parametrize(
    "words",
    [
        ["--json"],
        ["--hop", "a.test", "--json"],
        ["--state", "held", "--json"],
        ["--limit", "2", "--json"],
        ["--older", "0s", "--json"],
    ],
)
def test_the_quick_listing_without_a_server_is_the_same(full, capsys, words):
    full.ok("queue", "hold", "--sender", "<>")
    assert quick(["-c", str(full.config), "queue", "list", *words]) == 0
    quickly = sorted(capsys.readouterr().out.replace("[{", "{").replace("}]", "}").replace("},", "}").splitlines())
    done = full.ok("queue", "list", *words).out
    assert sorted(done.replace("[{", "{").replace("}]", "}").replace("},", "}").splitlines()) == quickly


def test_ids_select_and_a_limit_ends_the_list(full):
    number = full.ok("queue", "list", "--json", "--recipient", "two@b.test").json[0]["queue_id"]
    assert recipients(full, "--id", number) == ["one@a.test", "two@b.test"]
    assert recipients(full, "--id", number, "--domain", "b.test") == ["two@b.test"]
    assert len(full.ok("queue", "list", "--limit", "2", "--json").json) == 2


def test_hold_and_release(full):
    assert full.ok("queue", "hold", "--domain", "a.test", "--json").json == {"changed": 2, "in_flight": 0}
    assert recipients(full, "--state", "held") == ["one@a.test", "three@a.test"]
    assert recipients(full, "--state", "held", "--domain", "a.test") == ["one@a.test", "three@a.test"]
    assert recipients(full, "--state", "active") == ["Four@c.test", "two@b.test"]
    assert full.ok("queue", "flush", "--all", "--json").json == {"changed": 0}
    assert full.ok("queue", "release", "--recipient", "one@a.test").out == "1 recipient released\n"
    assert full.ok("queue", "requeue", "--all", "--json").json == {"changed": 1}
    assert recipients(full, "--state", "held") == []


def test_delete_takes_recipients_and_at_last_the_message(full):
    full.ok("queue", "delete", "--recipient", "one@a.test", "--yes")
    assert recipients(full) == ["Four@c.test", "three@a.test", "two@b.test"]
    full.ok("queue", "delete", "--all", "--yes")
    assert recipients(full) == []
    assert full.ok("store", "check").out == "no problem found\n"


def test_requeue_routes_again(full):
    full.ok("queue", "hold", "--all")
    full.change("[transport] ", '[transport]\n"a.test" = "smtp:[192.0.2.1]:2525"\n# ')
    full.ok("queue", "requeue", "--domain", "a.test")
    hops = {each["recipient"]: each["next_hop"] for each in full.ok("queue", "list", "--json").json}
    assert hops["one@a.test"] == hops["three@a.test"] == "smtp:[192.0.2.1]:2525"
    assert hops["two@b.test"] == "smtp:b.test"


def test_show_gives_envelope_and_content(full):
    number = full.ok("queue", "list", "--json", "--recipient", "two@b.test").json[0]["queue_id"]
    shown = full.ok("queue", "show", number, "--json").json
    assert shown["sender"] == "bulk@example.test"
    assert [each["recipient"] for each in shown["recipients"]] == ["one@a.test", "two@b.test"]
    assert {shown["tenant"], *(each["tenant"] for each in shown["recipients"])} == {"example.test"}
    assert "two@b.test" in full.ok("queue", "show", number).out
    content = full.ok("queue", "show", number, "--content").out
    assert content.startswith("Received: by mx.example.test")
    assert len(content.encode()) <= shown["size"]
    assert full.ok("queue", "content", number).out == content
    assert b64decode(full.ok("queue", "content", number, "--json").json).decode() == content


def test_stats_count_by_state_and_domain(full):
    stats = full.ok("queue", "stats", "--json").json
    assert stats["messages"] == 3
    assert stats["recipients"] == {"active": 4, "deferred": 0, "held": 0}
    assert stats["domains"][0] == {"domain": "a.test", "recipients": 2, "deferred": 0}
    assert "a.test" in full.ok("queue", "stats").out


def test_mailq_has_the_form_that_scripts_read(full):
    full.ok("queue", "hold", "--sender", "<>")
    lines = full.mailq().out.splitlines()
    assert lines[0] == "-Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------"
    assert lines[-1].startswith("-- ")
    assert lines[-1].endswith(" Kbytes in 3 Requests.")
    assert any(line.split()[0].endswith("!") and line.endswith("MAILER-DAEMON") for line in lines if line)
    assert sum(line.split()[0].endswith("*") for line in lines if line) == 2
    objects = full.mailq("--json").out.splitlines()
    assert len(objects) == 3


def test_postmap_compiles_and_queries(cli, tmp_path):
    path = tmp_path / "virtual"
    path.write_text("Bill@example.test ann\n@x.test  bill,\n  ann\nbill@example.test again\n")
    done = cli.postmap(f"hash:{path}")
    assert done.code == 0
    assert "virtual:4: duplicate entry" in done.err
    assert cli.postmap("-q", "BILL@example.test", str(path)).out == "ann\n"
    missing = cli.postmap("-q", "absent", f"hash:{path}")
    assert (missing.code, missing.out, missing.err) == (1, "", "")
    assert cli.postmap("-q", "-", str(path), stdin="@x.test\nabsent\n").out == "@x.test\tbill, ann\n"
    assert "@x.test\tbill, ann" in cli.postmap("-s", str(path)).out


def test_postmap_tells_a_bad_line_and_goes_on(cli, tmp_path):
    path = tmp_path / "bad"
    path.write_text('a b\nlonely\n"open x\nc d\n')
    for arguments in ((), ("-s",), ("-q", "c")):
        if arguments:
            (tmp_path / "bad.fmap").unlink(missing_ok=True)
        done = cli.postmap(*arguments, str(path))
        assert done.code == 0
        assert "bad:2: lonely: no value" in done.err
        assert "bad:3: expected a closing quote" in done.err
        if not arguments:
            assert cli.postmap("-q", "c", str(path)).out == "d\n"
    assert cli.postmap("-s", str(path)).out == "a\tb\nc\td\n"


def test_newaliases_tells_a_bad_line_and_goes_on(cli, tmp_path):
    (tmp_path / "aliases").write_text("root: bill\nno colon\nann: bill\n")
    cli.change("alias_maps = []   ", 'alias_maps = "hash:aliases"')
    done = cli.newaliases()
    assert (done.code, done.out) == (0, f"{tmp_path}/aliases: 2 aliases, longest 4 bytes\n")
    assert "aliases:2: no colon" in done.err


def test_postmap_says_what_is_wrong(cli, tmp_path):
    assert cli.postmap(str(tmp_path / "absent")).code == EX_NOINPUT
    assert cli.postmap(f"mysql:{tmp_path}/bad").code == EX_USAGE


def test_newaliases_compiles_alias_database(cli, tmp_path):
    (tmp_path / "aliases").write_text("root: bill\npostmaster: root\n")
    cli.change("alias_maps = []   ", 'alias_maps = "hash:aliases"')
    done = cli.newaliases()
    assert done.out == f"{tmp_path}/aliases: 2 aliases, longest 4 bytes\n"
    assert (tmp_path / "aliases.fmap").exists()
    assert cli.sendmail("-bi").out == done.out


@pytest.mark.parametrize("act", ["hold", "delete", "flush", "release"])
def test_a_move_costs_what_it_moves_and_not_its_square(cli, act, monkeypatch):
    """4,000 recipients of one message: each of them is read a few times, not once for each other."""

    count = 4000
    cli.user()
    cli.sendmail("-f", "bulk@example.test", *(f"r{n}@a.test" for n in range(count)))
    if act == "release":
        cli.ok("queue", "hold", "--all")
    read = 0
    recipients = Queue.recipients

    def counted(self, queue_id, numbers=None):
        nonlocal read
        found = recipients(self, queue_id, numbers)
        read += len(found)
        return found

    monkeypatch.setattr(Queue, "recipients", counted)
    yes = ["--yes"] if act == "delete" else []
    changed = cli.ok("queue", act, "--all", *yes, "--json").json["changed"]
    assert changed == (0 if act == "flush" else count)
    assert read <= 2 * count


def test_stats_are_kept_counts_and_those_of_a_walk(full, monkeypatch):
    full.ok("queue", "hold", "--sender", "<>")
    number = full.ok("queue", "list", "--json", "--recipient", "two@b.test").json[0]["queue_id"]
    full.ok("queue", "delete", "--yes", "--id", number)
    kept = full.ok("queue", "stats", "--json").json
    assert kept["recipients"] == {"active": 1, "deferred": 0, "held": 1}
    monkeypatch.setattr(Queue, "has_counts", False)
    monkeypatch.setattr(Queue, "has_tenants", False)
    walked = full.ok("queue", "stats", "--exact", "--json").json
    assert walked | {"oldest_seconds": kept["oldest_seconds"]} == kept


def test_hold_and_release_what_is_one_tenants(full):
    assert full.ok("queue", "hold", "--tenant", "example.test", "--json").json["changed"] == 3
    assert recipients(full, "--state", "held", "--tenant", "EXAMPLE.test") == [
        "one@a.test",
        "three@a.test",
        "two@b.test",
    ]
    assert full.ok("queue", "delete", "--yes", "--tenant", "example.test", "--domain", "b.test", "--json").json == {
        "changed": 1,
        "in_flight": 0,
    }
    assert full.ok("queue", "release", "--tenant", "example.test", "--json").json == {"changed": 2}
    assert recipients(full, "--state", "active") == ["Four@c.test", "one@a.test", "three@a.test"]


def test_shape_by_kept_counts_is_that_of_a_walk(full, monkeypatch):
    full.ok("queue", "hold", "--sender", "<>")
    calls = [(), ("--all",), ("--state", "held"), ("--state", "active", "-s"), ("--senders", "-b", "4"), ("--tenants",)]
    kept = [full.ok("queue", "shape", "--json", *call).json for call in calls]
    assert kept[0]["total"]["total"] == 4
    assert [(each["domain"], each["total"]) for each in kept[-1]["domains"]] == [("example.test", 3)]
    number = full.ok("queue", "list", "--json", "--sender", "<>").json[0]["queue_id"]
    store = MailStore.open(Path(load(str(full.config)).data_directory))
    asyncio.run(store.queue.index([(parse_queue_id(number), 0)]))
    store.close()
    for at_once in (1, 10_000):
        monkeypatch.setattr("fastmta.store.queue.COUNTS_AT_ONCE", at_once)
        assert [full.ok("queue", "shape", "--json", *call).json for call in calls] == kept
    monkeypatch.setattr(Queue, "has_counts", False)
    monkeypatch.setattr(Queue, "has_tenants", False)
    assert [full.ok("queue", "shape", "--json", *call).json for call in calls] == kept


def test_stats_of_a_long_queue_come_from_the_counts_by_next_hop(full, monkeypatch):
    from fastmta.operations import listing

    monkeypatch.setattr(Queue, "has_counts", False)  # as in a store of the format before
    monkeypatch.setattr(listing, "COUNTED", 3)
    stats = full.ok("queue", "stats", "--json").json
    assert stats["messages"] is None and stats["size"] is None
    assert stats["domains"][0] == {"domain": "a.test", "recipients": 2, "deferred": 0}
    hop = {"next_hop": "smtp:a.test", "recipients": 2, "active": 2, "deferred": 0, "held": 0}
    assert stats["next_hops"][0] == hop
    exact = full.ok("queue", "stats", "--exact", "--json").json
    assert (exact["messages"], exact["domains"], exact["next_hops"]) == (3, stats["domains"], stats["next_hops"])
    assert "--exact" in full.ok("queue", "stats").out and "smtp:a.test" in full.ok("queue", "stats").out
