"""Bans: by hand and for failures, in every protocol and worker, over restarts."""

import json
import poplib
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.server import Server
from tests.support.waiting import wait_for

BOB = "bob@example.test"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {
        "mynetworks": ["127.0.0.1/32"],
        "smtpd_authentication": False,
        "smtpd_error_sleep_time": 0,
        "smtpd_peername_lookup": False,
        "ban_maxretry": 3,
        "ban_bantime": "1h",
        "auth": {"failure_delay": "0s"},
    }
    with Server(tmp_path_factory.mktemp("bans"), settings=settings, workers=2) as running:
        running.add_user(BOB, "secret")
        yield running


def first_line(server: Server, service: str, source: str) -> bytes:
    with (
        socket.create_connection((server.host, server.port(service)), 20, source_address=(source, 0)) as link,
        link.makefile("rb") as said,
    ):
        return said.readline()


def listed(server: Server) -> dict[str, Any]:
    return {row["address"]: row for row in json.loads(server.cli("ban", "list", "--json").stdout)}


def is_banned(server: Server, source: str) -> bool:
    return all(first_line(server, "smtp", source).startswith(b"554 5.7.1 ") for _ in range(6))


def test_an_address_is_banned_by_hand_in_all_protocols_and_over_a_restart(server: Server) -> None:
    server.cli("ban", "add", "127.0.0.21", "--reason", "a test")
    wait_for(lambda: is_banned(server, "127.0.0.21"), "both workers")
    assert first_line(server, "smtp", "127.0.0.21") == b"554 5.7.1 Client host [127.0.0.21] is banned\r\n"
    assert first_line(server, "imap", "127.0.0.21") == b"* BYE This address is banned\r\n"
    assert first_line(server, "pop3", "127.0.0.21") == b"-ERR [SYS/PERM] This address is banned\r\n"
    assert first_line(server, "smtp", "127.0.0.22").startswith(b"220 ")
    server.stop()
    server.start()
    assert is_banned(server, "127.0.0.21")
    row = listed(server)["127.0.0.21"]
    assert (row["reason"], row["until"]) == ("a test", "") and row["by"] and row["since"]
    assert "127.0.0.21" in server.cli("ban", "list").stdout
    server.cli("ban", "remove", "127.0.0.21")
    wait_for(lambda: first_line(server, "smtp", "127.0.0.21").startswith(b"220 "), "the end")


def test_a_network_is_banned_for_a_time(server: Server) -> None:
    server.cli("ban", "add", "127.0.5.0/24", "--time", "2s")
    wait_for(lambda: is_banned(server, "127.0.5.9"), "both workers")
    wait_for(lambda: first_line(server, "smtp", "127.0.5.9").startswith(b"220 "), "its end by itself")
    wait_for(lambda: "127.0.5.0/24" not in listed(server), "nor is it listed")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("add", "nonsense"), "neither an address nor a network"),
        (("add", "127.0.0.9", "--time", "soon"), "--time soon"),
        (("remove", "127.0.0.99"), "is not banned"),
    ],
)
def test_what_makes_no_sense_is_told(server: Server, arguments: tuple[str, ...], said: str) -> None:
    done = server.cli("ban", *arguments, check=False)
    assert done.returncode and said in done.stderr


def test_failures_in_three_protocols_count_together(server: Server) -> None:
    source = ("127.0.0.31", 0)
    with socket.create_connection((server.host, server.port("imap")), 20, source_address=source) as link:
        said = link.makefile("rb")
        said.readline()
        link.sendall(b"a LOGIN bob@example.test wrong\r\n")
        assert b"a NO" in said.readline()
    with socket.create_connection((server.host, server.port("pop3")), 20, source_address=source) as link:
        said = link.makefile("rb")
        said.readline()
        link.sendall(b"USER bob@example.test\r\nPASS wrong\r\n")
        assert said.readline().startswith(b"+OK")
        assert said.readline().startswith(b"-ERR")
    assert first_line(server, "smtp", "127.0.0.31").startswith(b"220 ")
    with socket.create_connection((server.host, server.port("smtp")), 20, source_address=source) as link:
        said = link.makefile("rb")
        said.readline()
        link.sendall(b"EHLO me\r\n" + b"BOGUS\r\n" * 20)
        assert b"421 4.7.0 mx.example.test Error: too many errors\r\n" in said.read()
    wait_for(lambda: is_banned(server, "127.0.0.31"), "both workers")
    row = listed(server)["127.0.0.31"]
    assert "3 failures" in row["reason"] and row["until"] and row["by"] == ""
    lines = [json.loads(line) for line in server.log_path.read_text().splitlines() if '"ban.added"' in line]
    assert [(each["client"], each["failures"], each["seconds"]) for each in lines] == [("127.0.0.31", 3, 3600.0)]


def test_one_of_ours_is_never_banned_for_failures(server: Server) -> None:
    for _ in range(6):
        box = poplib.POP3(server.host, server.port("pop3"))
        box.user(BOB)
        with pytest.raises(poplib.error_proto):
            box.pass_("wrong")
        box.close()
    assert first_line(server, "pop3", "127.0.0.1").startswith(b"+OK")
