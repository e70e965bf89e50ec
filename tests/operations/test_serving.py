"""Acts in a worker, asked over the control socket."""

import json
import os
import pwd
import signal
import smtplib
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fastmta.admin.control import answers
from fastmta.operations.acts import every
from tests.support.mail import letter
from tests.support.server import Server, command, environment
from tests.support.waiting import wait_for

BILL = "bill@example.test"


class Where:
    def __init__(self, server: Server) -> None:
        self.data_directory = str(server.data_directory)


def ask(server: Server, act: str, **request: Any) -> list[dict[str, Any]]:
    return list(answers(Where(server), {"do": "act", "act": act, "request": request}))


def log(server: Server, event: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in server.log_path.read_text().splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == event]


def test_an_act_is_done_by_a_worker_and_told_by_it(server: Server) -> None:
    (done,) = ask(server, "user.quota", address=BILL, size="2G")
    quota = {"used_bytes": 0, "quota_bytes": 2 * 2**30, "messages": 0, "quota_messages": 0}
    assert done == {"ok": True, "result": {"address": BILL, **quota}}
    line = log(server, "admin.user.quota")[-1]
    assert (line["address"], line["quota"], line["uid"]) == (BILL, "2G", os.getuid())
    assert line["user"] == pwd.getpwuid(os.getuid()).pw_name
    assert line["pid"] != server.process.pid  # type: ignore[union-attr]
    rows, end = ask(server, "user.list")
    assert [each["address"] for each in rows["rows"]] == [BILL]
    assert end == {"ok": True, "result": None}


def test_a_worker_explains_by_its_own_parts(server: Server) -> None:
    *rows, end = ask(server, "mail.explain", sender="<>", recipient=BILL)
    steps = {each["rows"][0]["step"]: each["rows"][0] for each in rows}
    assert steps["mailbox"]["values"]["mailbox"] == BILL
    assert steps["outcome"]["values"] == {"outcome": "accepted", "reply": ""}
    assert end == {"ok": True, "result": None}
    *rows, _ = ask(server, "mail.explain", sender=BILL, recipient="ann@example.net", client="192.0.2.1")
    assert rows[-1]["rows"][0]["values"]["outcome"] == "refused"
    (failed,) = ask(server, "mail.explain", sender=BILL, recipient=BILL, client="no address")
    assert (failed["ok"], failed["kind"]) == (False, "usage")


def test_what_needs_files_of_the_caller_is_not_for_a_worker(server: Server, tmp_path: Path) -> None:
    for act, request in (("store.backup", {"path": str(tmp_path / "copy")}), ("store.check", {}), ("mail.trace", {})):
        (refused,) = ask(server, act, **request)
        assert (refused["ok"], "by whoever asks" in refused["error"]) == (False, True)
    server.cli("store", "backup", str(tmp_path / "copy"))
    line = log(server, "admin.store.backup")[-1]
    assert (line["path"], line["bytes"]) == (str(tmp_path / "copy"), (tmp_path / "copy" / "data.mdb").stat().st_size)
    assert json.loads(server.cli("store", "check", "--json").stdout) == {"ok": True, "problems": []}


def test_the_command_opens_no_store_where_a_server_runs(server: Server) -> None:
    program = (
        "import sys; from fastmta.cli.main import main; code = main(['user', 'list', '--json']);"
        "assert not {'fastmta.store', 'asyncio', 'fastmta.config.schema'} & set(sys.modules); sys.exit(code)"
    )
    environ = environment({"FASTMTA_CONFIG": str(server.config_path)})
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environ, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["address"] == BILL


def counts(server: Server) -> dict[str, int]:
    """Recipients by state."""
    found: dict[str, int] = json.loads(server.cli("queue", "stats", "--json").stdout)["recipients"]
    return found


def test_a_worker_that_is_killed_or_stopped_in_the_middle_is_said_as_such(tmp_path: Path) -> None:
    settings = {"transport": {"held.example": "hold:"}}
    with Server(tmp_path, services=("smtp",), workers=1, settings=settings) as server:
        with smtplib.SMTP(server.host, server.port("smtp"), timeout=60) as client:
            for n in range(60):
                to = [f"u{n}-{k}@held.example" for k in range(100)]
                client.sendmail(BILL, to, letter("x", sender=BILL, to="x@y"))

        def broken(act: str, number: int) -> tuple[int, str, str]:
            """Begins an act, and ends with a signal the worker that is at it, or the server."""
            told = server.log_path.open()
            told.seek(0, os.SEEK_END)
            process = subprocess.Popen(
                command("queue", act, "--all", *(["--yes"] if act == "delete" else [])),
                env=environment({"FASTMTA_CONFIG": str(server.config_path)}),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            with told:
                line = ""
                while f'"admin.queue.{act}"' not in line or line[-1] != "\n":  # without a pause: the act is quick
                    line = ("" if line.endswith("\n") else line) + told.readline()
                    assert line or process.poll() is None
            os.kill(server.pid if number == signal.SIGTERM else json.loads(line)["pid"], number)
            said, error = process.communicate(timeout=240)
            return process.returncode, said, error

        for _ in range(10):  # it may have come to its end before the signal comes
            code, _, error = broken("release", signal.SIGKILL)
            # what was released is routed again, and what is on its way is not deleted
            wait_for(lambda: counts(server)["active"] == 0, "the route holds all again")
            if code:
                break
        assert code == 75 and "has ended" in error, error
        code, said, error = broken("delete", signal.SIGTERM)
        if code:
            assert code == 75 and "the server is stopping" in error, error
        else:  # a server that stops lets an act end that is nearly done
            assert "recipients deleted" in said


def test_passwords_are_in_no_log(server: Server) -> None:
    ask(server, "user.add", address="ann@example.test", password="un-sagbar")
    ask(server, "user.passwd", address="ann@example.test", password="un-sagbar")
    ask(server, "user.add", address="ann@example.test", password="un-sagbar")
    assert log(server, "admin.user.passwd")[-1]["address"] == "ann@example.test"
    assert "un-sagbar" not in server.log_path.read_text()
    ask(server, "user.delete", address="ann@example.test")


@pytest.mark.parametrize(
    ("act", "request_", "kind", "error"),
    [
        ("user.nothing", {}, "usage", "no such act"),
        ("", {}, "usage", "no such act"),
        ("user.show", {}, "usage", "address"),
        ("user.show", {"address": 1}, "usage", "str"),
        ("user.show", {"address": BILL, "more": 1}, "usage", "more"),
        ("user.show", {"address": "nobody"}, "no_user", "no such user: nobody@"),
        ("user.show", {"address": "a b"}, "invalid", "not an address"),
        ("user.quota", {"address": BILL, "size": "huge"}, "usage", "a size"),
        ("user.list", {"x": {}}, "usage", "act:"),
        ("mailbox.export", {"user": BILL, "path": "/etc/shadow"}, "usage", "his own rights"),
        ("user.list", {"x": [[1]]}, "usage", "act:"),
    ],
)
def test_what_cannot_be_done_is_said_with_its_kind(
    server: Server, act: str, request_: dict[str, Any], kind: str, error: str
) -> None:
    (answer,) = ask(server, act, **request_)
    assert (answer["ok"], answer["kind"]) == (False, kind)
    assert error in answer["error"]


def test_a_request_that_is_a_tower_of_brackets_harms_nobody(server: Server) -> None:
    depth = 20_000
    line = b'{"do":"act","act":"user.list","request":{"x":' + b"[" * depth + b"]" * depth + b"}}\n"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(server.data_directory / "control.sock"))
        sock.sendall(line)
        assert b'"ok":false' in sock.makefile("rb").readline()
    assert ask(server, "user.list")[-1]["ok"]


def test_every_act_refuses_what_it_does_not_know(server: Server) -> None:
    """No act of the table is done by an empty question with a field that nobody has."""
    for act in every():
        (answer,) = ask(server, act.name, no_such_field=1)
        assert (answer["ok"], answer["kind"]) == (False, "usage"), act.name
