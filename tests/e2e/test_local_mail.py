"""`sendmail` and `mailq` beside a whole server: every way in gives the same outcome, for root and for anybody."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastmta.cli.failures import EX_UNAVAILABLE
from fastmta.cli.main import main
from fastmta.cli.queue_quick import quick
from fastmta.cli.quick_acts import quick as quick_act
from tests.support.local_user import run_as
from tests.support.mail import wait_for_messages
from tests.support.server import Server
from tests.support.waiting import wait_for

PASSWORD = "secret-password"
BOSS, BILL = "boss@example.test", "bill@example.test"
MESSAGE = "From: boss\nTo: bill@example.test, nosuch@example.test\nSubject: local\n\nhello\n.\nnot read\n"
SESSION = (
    "EHLO here\nMAIL FROM:<boss@example.test>\nRCPT TO:<bill@example.test>\nRCPT TO:<nosuch@example.test>\nDATA\n"
    "Subject: local\n\nhello\n.\nQUIT\n"
)
SETTINGS = {"mynetworks": ["192.0.2.1/32"], "transport": {"parked.test": "hold:"}}
USERS = ("", "nobody") if os.geteuid() == 0 else ("",)
WAYS = {
    "arguments": (["-f", BOSS, BILL, "nosuch@example.test"], MESSAGE),
    "header": (["-t", "-f", BOSS], MESSAGE),
    "session": (["-bs"], SESSION),
}


@pytest.fixture
def server() -> Iterator[Server]:
    """Nobody is in mynetworks, and its files lie where every user may pass."""
    directory = Path(tempfile.mkdtemp(prefix="fastmta-local-"))
    directory.chmod(0o755)
    made = Server(directory, services=("smtp", "pop3"), workers=2, settings=SETTINGS)
    made.add_user(BOSS, PASSWORD)
    made.add_user(BILL, PASSWORD)
    yield made
    made.stop()
    shutil.rmtree(directory, ignore_errors=True)


def hand_in(server: Server) -> int:
    """One message by each user and each way; how many."""
    for user in USERS:
        for arguments, stdin in WAYS.values():
            done = run_as(user, server.config_path, "sendmail", *arguments, stdin=stdin)
            assert done.returncode == 0, done.stderr
    return len(USERS) * len(WAYS)


def test_every_way_gives_the_mail_and_the_report_with_the_server_up_and_down(server: Server) -> None:
    server.start()  # makes the spool
    server.stop()
    sent = hand_in(server)
    spool = server.data_directory / "public" / "maildrop"
    assert len(list(spool.iterdir())) == sent
    for user in USERS[1:]:
        down = run_as(user, server.config_path, "mailq")
        assert (down.returncode, "the mail system is down" in down.stderr) == (EX_UNAVAILABLE, True)
    server.start()
    wait_for_messages(server, BILL, PASSWORD, sent)
    wait_for_messages(server, BOSS, PASSWORD, sent)
    sent += hand_in(server)
    found = wait_for_messages(server, BILL, PASSWORD, sent)
    reports = wait_for_messages(server, BOSS, PASSWORD, sent)
    assert all(raw.endswith(b"\r\n\r\nhello\r\n") for raw in found)
    assert all(b"5.1.1" in raw and b"nosuch@example.test" in raw for raw in reports)
    assert list(spool.iterdir()) == []
    metrics = server.metrics()
    assert metrics["fastmta_messages_received_total"] == sent
    assert metrics['fastmta_deliveries_total{result="bounced",transport="error"}'] == sent
    assert metrics['fastmta_deliveries_total{result="delivered",transport="local"}'] >= sent


def test_everybody_may_read_the_queue_and_have_it_flushed(server: Server) -> None:
    server.start()
    for user in USERS:
        assert run_as(user, server.config_path, "sendmail", "-f", BOSS, "x@parked.test", stdin="\n").returncode == 0
    for user in USERS:
        listed = run_as(user, server.config_path, "mailq")
        tries = 0
        while listed.stdout.count("x@parked.test") < len(USERS) and tries < 50:
            listed = run_as(user, server.config_path, "mailq")
            tries += 1
        assert listed.returncode == 0, listed.stderr
        assert listed.stdout.endswith(f"in {len(USERS)} Request{'' if len(USERS) == 1 else 's'}.\n")
        assert len(run_as(user, server.config_path, "mailq", "--json").stdout.splitlines()) == len(USERS)
        assert run_as(user, server.config_path, "sendmail", "-q").returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--json"],
        ["--state", "held", "--json"],
        ["--state=active"],
        ["--domain", "@Parked.test", "--json"],
        ["--recipient=nobody@parked.test"],
        ["--sender", f"<{BOSS}>", "--limit", "2", "--json"],
        ["--all", "--limit=1"],
        ["--hop", "parked.test", "--json"],
        ["--hop=hold:", "--error", "Nothing"],
        ["--error=", "--json"],
        ["--older", "0s", "--json"],
        ["--older", "9d"],
    ],
    ids=" ".join,
)
def test_the_quick_listing_of_the_queue_is_the_same(
    listed: Server, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["-c", str(listed.config_path), "queue", "list", *arguments]
    assert quick(call) == 0
    quickly = ageless(capsys.readouterr().out)
    assert main(call) == 0
    assert ageless(capsys.readouterr().out) == quickly


@pytest.mark.parametrize(
    "words",
    [
        ["queue", "stats"],
        ["queue", "stats", "--exact", "--json"],
        ["queue", "flush"],
        ["queue", "hold", "--domain", "nosuch.test", "--json"],
        ["queue", "release", "--id=K", "--state=ACTIVE"],
        ["queue", "requeue", "--older", "odd"],
        ["queue", "list", "--older", "odd"],
        ["queue", "delete", "--yes", "--recipient", "nobody@parked.test", "--all"],
        ["queue", "delete", "--yes", "--id", "!"],
        ["alias", "list"],
        ["user", "list", "--json"],
    ],
    ids=" ".join,
)
def test_a_quick_act_is_the_same(listed: Server, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    call = ["-c", str(listed.config_path), *words]
    code = (quick if "list" in words and "queue" in words else quick_act)(call)
    quickly = capsys.readouterr()
    assert code is not None
    assert main(call) == code
    whole = capsys.readouterr()
    assert (quickly.out, quickly.err) == (whole.out, whole.err)


def test_quick_acts_move_what_is_selected_and_the_log_says_who_did_it(
    listed: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    def act(*words: str) -> dict[str, int]:
        assert quick_act(["-c", str(listed.config_path), "queue", *words, "--json"]) == 0
        found: dict[str, int] = json.loads(capsys.readouterr().out)
        return found

    assert act("hold", "--domain", "parked.test") == {"changed": 0, "in_flight": 0}, "they are held already"
    chosen = ("--sender", "Other@away.test", "--recipient=Z@parked.test")
    assert act("delete", "--yes", *chosen) == {"changed": 1, "in_flight": 0}
    assert act("delete", "--yes", *chosen) == {"changed": 0, "in_flight": 0}
    lines = [json.loads(line) for line in listed.log_path.read_text().splitlines() if '"admin.queue.delete"' in line]
    told = [line for line in lines if "queue_id" in line]
    assert [(line["recipient"], line["uid"]) for line in told] == [("z@parked.test", os.getuid())]
    assert {line["selection"] for line in lines if line not in told and line["changed"]} == {
        "sender='Other@away.test' recipient='Z@parked.test'"
    }


def test_quick_acts_leave_what_they_do_not_know_to_the_command(listed: Server) -> None:
    for words in (
        ["queue", "hold"],
        ["queue", "delete", "--domain", "x"],
        ["queue", "delete", "--yes"],
        ["queue", "hold", "--domain", "\xe4.test"],
        ["queue", "hold", "--odd", "x"],
        ["queue", "hold", "--domain"],
        ["queue", "release", "--state", "odd"],
        ["queue", "show", "hold"],
        ["user", "delete", "a@example.test"],
    ):
        assert quick_act(["-c", str(listed.config_path), *words]) is None
    assert quick_act(["queue", "hold", "--all", "-c", "/nonexistent"]) is None


def ageless(listing: str) -> object:
    """What it says, without the ages, which grow from one listing to the next."""
    if listing.startswith("["):
        return json.loads(listing)
    return re.sub(r"(?<= )\d+[smh](?= )", "AGE", re.sub(r" +", " ", listing))


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that holds some messages for ever."""
    with Server(tmp_path_factory.mktemp("listed"), services=("smtp",), settings=SETTINGS | {"mynetworks": []}) as made:
        for sender in (BOSS, "other@away.test", ""):
            arguments = ["-f", sender, "x@parked.test", "y@parked.test", "--", "z@parked.test"]
            assert run_as("", made.config_path, "sendmail", *arguments, stdin="\n").returncode == 0
        wait_for(lambda: len(made.queue()) == 9, "nine recipients are held")
        yield made


def test_the_quick_listing_leaves_what_it_does_not_know_to_the_command(tmp_path: Path) -> None:
    for arguments in (["--odd", "4h"], ["--id", "X"], ["--limit", "0"], ["--state", "odd"], ["--help"], ["--json=1"]):
        assert quick(["queue", "list", *arguments, "-c", str(tmp_path / "absent")]) is None
    assert quick(["queue", "show", "list"]) is None
    assert quick(["queue", "list", "-c", str(tmp_path / "absent")]) is None


def test_mail_handed_in_while_workers_are_killed_is_never_lost(server: Server) -> None:
    server.start()
    for _ in range(2):
        for _ in range(4):
            run_as("", server.config_path, "sendmail", "-f", BOSS, BILL, stdin="Subject: kept\n\nhello\n")
        server.kill()
        run_as("", server.config_path, "sendmail", "-f", BOSS, BILL, stdin="Subject: kept\n\nhello\n")
        server.start()
    found = wait_for_messages(server, BILL, PASSWORD, 10)
    assert 10 <= len(found) <= 12  # once more where we were killed between commit and removal
