"""What an administrator does is a line of the server's log, with who did it."""

import json
import os
import pwd
import smtplib
from pathlib import Path

import pytest

from fastmta.admin.control import request
from tests.support.mail import letter
from tests.support.server import Server

BILL = "bill@example.test"


def lines(server: Server, prefix: str) -> list[dict[str, object]]:
    found = (json.loads(line) for line in server.log_path.read_text().splitlines() if line.startswith("{"))
    return [line for line in found if str(line["event"]).startswith(prefix)]


class Config:
    def __init__(self, directory: Path) -> None:
        self.data_directory = str(directory)


@pytest.fixture
def server(tmp_path: Path):
    with Server(tmp_path, services=("smtp",), settings={"transport": {"held.example": "hold:"}}) as server:
        server.add_user(BILL, "secret")
        yield server


def test_every_act_is_a_line_with_who_did_it(server: Server) -> None:
    with smtplib.SMTP(server.host, server.port("smtp"), timeout=60) as client:
        client.sendmail(BILL, ["one@held.example", "two@held.example"], letter("held", sender=BILL, to="x@y"))
    commands = [
        ("user", "quota", BILL, "2G"),
        ("user", "disable", BILL),
        ("user", "enable", BILL),
        ("user", "rename", BILL, "ann@example.test"),
        ("alias", "add", "sales@example.test", "ann@example.test"),
        ("alias", "delete", "--yes", "sales@example.test"),
        ("mailbox", "purge", "--yes", "ann@example.test"),
        ("user", "delete", "--yes", "ann@example.test"),
        ("queue", "hold", "--recipient", "nobody@held.example"),
        ("queue", "release", "--recipient", "nobody@held.example"),
        ("queue", "delete", "--all", "--yes"),
        ("reload",),
    ]
    for command in commands:
        server.cli(*command)
    found = lines(server, "admin.")
    me = {"uid": os.getuid(), "user": pwd.getpwuid(os.getuid()).pw_name}
    assert all({name: line[name] for name in me} == me for line in found)
    acts = [line["event"] for line in found if "recipient" not in line]
    expected = [
        "user.add", "user.quota", "user.disable", "user.enable", "user.rename", "alias.add", "alias.delete",
        "mailbox.purge", "user.delete", "queue.hold", "queue.release", "queue.delete", "reload",
    ]  # fmt: skip
    assert acts == [f"admin.{name}" for name in expected]
    told = [(line["event"], line["recipient"]) for line in found if "recipient" in line]
    assert sorted(told) == [
        ("admin.queue.delete", "one@held.example"),
        ("admin.queue.delete", "two@held.example"),
    ]
    received = lines(server, "smtp.received")
    assert {line["queue_id"] for line in found if "recipient" in line} == {received[0]["queue_id"]}
    server.cli("stop")
    assert server.process is not None
    server.process.wait(timeout=30)
    assert lines(server, "admin.stop")[0]["user"] == me["user"]


BAD_NOTES: list[dict[str, object]] = [
    {"act": "x"},
    {"act": "a.b\n"},
    {"act": "a.b", "fields": {str(n): 1 for n in range(17)}},
    {"act": "a.b", "fields": {"x": [1]}},
    {"act": "a.b", "recipients": [["x", "y"]] * 257},
    {"act": "a.b", "recipients": ["x"]},
    {"act": "a.b", "fields": {"two words": 1}},
    {},
]


def test_a_note_that_is_none_is_refused(server: Server) -> None:
    for bad in BAD_NOTES:
        assert not request(Config(server.data_directory), {"do": "note", **bad})["ok"], bad
        assert not lines(server, "admin.a"), bad


def test_fields_of_a_note_are_escaped_and_never_take_the_place_of_who(server: Server) -> None:
    fields = {"x": 'a"\n{"event":"forged"}', "uid": 7, "user": "else", "event": "other", "at": "then"}
    assert request(Config(server.data_directory), {"do": "note", "act": "a.b", "fields": fields})["ok"]
    (line,) = lines(server, "admin.a.b")
    assert (line["uid"], line["event"]) == (os.getuid(), "admin.a.b")
    assert line["at"] != "then"
    assert line["x"] == 'a"\n{"event":"forged"}'
    assert server.log_path.read_text().count("forged") == 1
