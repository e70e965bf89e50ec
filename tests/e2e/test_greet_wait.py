"""Strangers wait for the greeting; who speaks before it is dropped, or his recipients are refused; and greylisting."""

import smtplib
import socket
import time
from collections.abc import Iterator

import pytest

from tests.support.server import Server
from tests.support.waiting import assert_within, wait_for

BOB = "bob@example.test"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {
        "mynetworks": ["192.0.2.0/24", "127.0.0.99/32"],
        "smtpd_authentication": False,
        "postscreen_greet_action": "enforce",
        "postscreen_greet_wait": "1s",
        "greylisting": True,
        "smtpd_peername_lookup": False,
        "greylist_delay": "1s",
    }
    with Server(tmp_path_factory.mktemp("greet"), settings=settings, workers=2) as running:
        running.add_user(BOB, "secret")
        yield running


def connect(server: Server, source: str) -> socket.socket:
    return socket.create_connection((server.host, server.port("smtp")), 20, source_address=(source, 0))


def read_line(link: socket.socket) -> bytes:
    got = b""
    while not got.endswith(b"\n"):
        piece = link.recv(1)
        if not piece:
            break
        got += piece
    return got


def test_a_stranger_waits_once_and_one_of_ours_never(server: Server) -> None:
    strangers = iter(("127.0.0.5", "127.0.0.6", "127.0.0.7", "127.0.0.8", "127.0.0.2"))
    links = []

    def greeted() -> None:
        links.append(connect(server, next(strangers)))
        assert read_line(links[-1]).startswith(b"220-mx.example.test ")

    began = time.monotonic()
    assert_within(0.9, greeted, "the first line")
    assert read_line(links[-1]).startswith(b"220 mx.example.test ")
    assert time.monotonic() - began >= 0.95
    for link in links:
        link.close()
    for source in ("127.0.0.5", "127.0.0.99"):
        for _ in range(4):  # whichever worker has it
            with connect(server, source) as link:
                assert read_line(link).startswith(b"220 ")  # who waits is told 220- first


def test_who_speaks_first_has_his_recipients_refused(server: Server) -> None:
    with connect(server, "127.0.0.3") as link:
        link.sendall(b"EHLO me\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<bob@example.test>\r\nQUIT\r\n")
        said = b""
        while piece := link.recv(4096):
            said += piece
    assert b"\r\n550 5.5.1 Protocol error\r\n" in said
    assert said.index(b"220-") < said.index(b"220 ") < said.index(b"550 ")
    began = time.monotonic()
    with connect(server, "127.0.0.3") as link:  # and he has not waited
        read_line(link), read_line(link)
    assert time.monotonic() - began > 0.95
    assert '"smtp.pregreet"' in server.log_path.read_text()


def test_drop_ends_the_session(server: Server) -> None:
    server.write_config({"postscreen_greet_action": "drop", "postscreen_greet_banner": ""})
    server.cli("reload")
    try:

        def dropped() -> bool:
            with connect(server, "127.0.0.4") as link:
                link.sendall(b"EHLO me\r\n")
                said = b""
                while piece := link.recv(4096):
                    said += piece
            return said == b"521 5.5.1 Protocol error\r\n"

        wait_for(dropped, "the reload")
    finally:
        server.write_config({"postscreen_greet_action": "ignore"})
        server.cli("reload")


def test_the_first_try_is_put_off_and_a_later_one_taken_by_another_worker(server: Server) -> None:
    def reply(recipient: str = BOB) -> tuple[int, bytes]:
        with smtplib.SMTP(server.host, server.port("smtp"), source_address=("127.0.0.5", 0)) as client:
            client.ehlo()
            client.mail("ann@sender.test")
            return client.rcpt(recipient)

    assert reply() == (450, b"4.2.0 <bob@example.test>: Recipient address rejected: Greylisted")
    assert reply("nobody@example.test")[0] == 550
    wait_for(lambda: reply()[0] == 250, "a later try")
    for _ in range(4):
        assert reply()[0] == 250
