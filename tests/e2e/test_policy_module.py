"""A site's own policy in Python: its verdicts, its failures and stalls, and its reload, in a whole server."""

import json
import smtplib
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.support.mail import wait_for_messages
from tests.support.server import Server
from tests.support.waiting import assert_within, wait_for

BOB = "bob@example.test"
MODULE = """
import asyncio, os, time
from fastmta.policy.api import Context, Verdict, accept, reject, defer, discard

API = 1

async def rcpt(context: Context) -> Verdict:
    match context.sender.partition("@")[0]:
        case "raise": raise ValueError("as told")
        case "wait": await asyncio.sleep(100)
        case "busy":
            while True: pass
        case "exit": os._exit(3)
        case "nonsense": return 17
        case "refuse": return reject("5.7.9", "by the site", reason="refused")
        case "later": return defer("4.7.9", "come back")
    return accept()

async def message(context: Context) -> Verdict:
    if context.field("Subject") == "drop": return discard("dropped")
    return accept().adding("X-Site", f"{context.sender} {context.recipients[0]} {len(context.body)}")
"""


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("module") / "site_policy.py"
    path.write_text(MODULE)
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, module: Path) -> Iterator[Server]:
    settings = {
        "smtpd_peername_lookup": False,
        "smtpd_authentication": False,
        "policy_module": str(module),
        "policy_timeout": "1s",
        "smtpd_client_restrictions": [],
    }
    with Server(tmp_path_factory.mktemp("site"), settings=settings) as running:
        running.add_user(BOB, "secret")
        yield running


def rcpt(server: Server, sender: str) -> tuple[int, bytes]:
    with smtplib.SMTP(server.host, server.port("smtp"), timeout=60) as client:
        client.ehlo()
        client.mail(f"{sender}@sender.test")
        return client.rcpt(BOB)


FAILED = (451, b"4.3.5 Server configuration problem")


def test_verdicts_and_fields(server: Server) -> None:
    assert rcpt(server, "ann")[0] == 250
    assert rcpt(server, "refuse") == (550, b"5.7.9 by the site")
    assert rcpt(server, "later") == (450, b"4.7.9 come back")
    with smtplib.SMTP(server.host, server.port("smtp"), timeout=60) as client:
        for subject in ("drop", "keep"):
            client.sendmail("ann@sender.test", [BOB], f"Subject: {subject}\r\n\r\n12345\r\n")
    (raw,) = wait_for_messages(server, BOB, "secret", 1)
    assert b"X-Site: ann@sender.test bob@example.test 7\r\n" in raw and b"Subject: keep" in raw


@pytest.mark.parametrize(("sender", "cause"), [("raise", "ValueError: as told"), ("nonsense", "not a Verdict")])
def test_a_failure_defers_and_is_told(server: Server, sender: str, cause: str) -> None:
    assert rcpt(server, sender) == FAILED
    assert cause in server.log_path.read_text()
    assert rcpt(server, "ann")[0] == 250


@pytest.mark.parametrize("sender", ["wait", "busy", "exit"])
def test_a_stall_holds_no_worker_and_the_next_question_is_answered(server: Server, sender: str) -> None:
    with ExitStack() as sessions:
        other, *clients = (
            sessions.enter_context(smtplib.SMTP(server.host, server.port("smtp"), timeout=60)) for _ in range(6)
        )
        for client in clients:
            client.ehlo()
            client.mail(f"{sender}@sender.test")
        stalled = []

        def noop() -> None:
            stalled.append(clients.pop())
            stalled[-1].putcmd("rcpt", f"TO:<{BOB}>")
            assert other.noop()[0] == 250

        assert_within(0.5, noop, "another session's command")
        assert {client.getreply() for client in stalled} == {FAILED}
    wait_for(lambda: rcpt(server, "ann")[0] == 250, "the module again")


def test_a_changed_module_is_taken_up_and_a_broken_one_not(server: Server, module: Path) -> None:
    with smtplib.SMTP(server.host, server.port("smtp"), timeout=60) as client:
        client.ehlo()
        module.write_text(MODULE.replace("by the site", "by the new site"))
        wait_for(lambda: rcpt(server, "refuse") == (550, b"5.7.9 by the new site"), "the new file")
        module.write_text("def rcpt(:\n")
        wait_for(lambda: "policy.module_not_loaded" in server.log_path.read_text(), "the broken file")
        assert rcpt(server, "refuse") == (550, b"5.7.9 by the new site"), "the old one goes on"
        module.write_text(MODULE)
        assert client.noop()[0] == 250


def test_messages_are_played_through_it_by_hand(server: Server, tmp_path: Path) -> None:
    letter = tmp_path / "letter.eml"
    letter.write_text("From: refuse@sender.test\nTo: a@example.test, b@example.test\nSubject: drop\n\ntext\n")
    done = server.cli("policy", "test", str(letter), "--json")
    rows = json.loads(done.stdout)
    assert [(row["stage"], row["recipient"], row["verdict"]) for row in rows] == [
        ("rcpt", "a@example.test", "reject"),
        ("rcpt", "b@example.test", "reject"),
        ("message", "", "discard"),
    ]
    done = server.cli("policy", "test", str(letter), "--sender", "raise@x.test", check=False)
    assert done.returncode == 1 and "ValueError: as told" in done.stderr


@pytest.mark.parametrize(
    ("example", "arguments", "body", "wanted"),
    [
        ("office_hours", ["--recipient", "bob@example.test"], "text", {"rcpt": "none"}),
        ("attachments", [], 'Content-Disposition: attachment; filename="a.exe"', {"message": "quarantine"}),
        ("partners", ["--sender", "x@partner.example", "--client", "198.51.100.1"], "text", {"mail": "reject"}),
        ("partners", ["--sender", "x@partner.example", "--client", "192.0.2.1"], "text", {"mail": "none"}),
    ],
)
def test_the_examples_do_what_they_say(
    server: Server, tmp_path: Path, example: str, arguments: list[str], body: str, wanted: dict[str, str]
) -> None:
    letter = tmp_path / "letter.eml"
    letter.write_text(f"From: ann@sender.test\nTo: bob@example.test\n\n{body}\n")
    module = Path(__file__).parents[2] / "docs" / "examples" / f"{example}.py"
    rows = json.loads(server.cli("policy", "test", str(letter), "--module", str(module), "--json", *arguments).stdout)
    found = {row["stage"]: row["verdict"] for row in rows}
    assert wanted.items() <= found.items()
    assert not any(row["error"] for row in rows)


def test_mail_of_the_trace_is_played_through_it(server: Server, tmp_path: Path) -> None:
    began = datetime.now(UTC).isoformat()
    with smtplib.SMTP(server.host, server.port("smtp"), timeout=60) as client:
        client.sendmail("traced@sender.test", [BOB], "Subject: traced\r\n\r\n12345\r\n")
    server.cli("sendmail", "-f", BOB, BOB, stdin="Subject: from a program\n\nx\n")
    assert rcpt(server, "refuse")[0] == 550
    strict = tmp_path / "strict.py"
    strict.write_text(MODULE.replace('case "refuse"', 'case "traced"'))
    arguments = ("policy", "test", "--since", began, "--module", str(strict))
    rows = [row for row in json.loads(server.cli(*arguments, "--json").stdout) if row["stage"] == "rcpt"]
    assert [(row["recipient"], row["verdict"], row["then"]) for row in rows] == [
        (BOB, "reject", "delivered"),  # what it would refuse now, of mail that was taken
        (BOB, "none", "rejected"),
    ]
    assert "THEN" in server.cli(*arguments).stdout
    assert server.cli("policy", "test", "--module", str(strict), check=False).returncode == 64
