"""`fastmta session` at a running server of two workers: who is connected, and an end to it in each protocol's words."""

import imaplib
import json
import poplib
import smtplib
from collections.abc import Iterator

import pytest

from tests.support.server import Server
from tests.support.waiting import wait_for

BILL, ANN, PASSWORD = "bill@example.test", "ann@example.test", "secret"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(
        tmp_path_factory.mktemp("sessions"), services=("submission", "imap", "pop3"), workers=2, with_tls=False
    )
    for name in (BILL, ANN):
        found.add_user(name, PASSWORD)
    found.write_config({"mail_max_userip_connections": 0})
    with found:
        yield found


def listed(server: Server, *of: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(server.cli("session", "list", "--json", *of).stdout)
    return found


def imap(server: Server, name: str = BILL) -> imaplib.IMAP4:
    client = imaplib.IMAP4(server.host, server.port("imap"), timeout=15)
    client.login(name, PASSWORD)
    return client


def submission(server: Server) -> smtplib.SMTP:
    client = smtplib.SMTP(server.host, server.port("submission"), timeout=15)
    client.login(BILL, PASSWORD)
    return client


def pop3(server: Server) -> poplib.POP3:
    client = poplib.POP3(server.host, server.port("pop3"), timeout=15)
    client.user(BILL)
    client.pass_(PASSWORD)
    return client


def test_who_is_connected_is_listed(server: Server) -> None:
    reader, sender, fetcher = imap(server), submission(server), pop3(server)
    reader.select("INBOX")
    found = listed(server, "--login", BILL)
    assert {(each["protocol"], each["mailbox"]) for each in found} == {
        ("imap", "INBOX"),
        ("submission", ""),
        ("pop3", "INBOX"),
    }
    for each in found:
        assert (each["login"], each["address"], each["tls"]) == (BILL, "127.0.0.1", False)
        assert isinstance(each["sent_bytes"], int)
        assert each["sent_bytes"] > 20
        assert str(each["since"]).endswith("Z")
    assert len({each["id"] for each in found}) == 3
    assert [each["protocol"] for each in listed(server, "--protocol", "pop3")] == ["pop3"]
    assert listed(server, "--address", "192.0.2.0/24") == []
    assert BILL in server.cli("session", "list").stdout
    for client in (reader, sender, fetcher):
        client.close() if client is sender else (client.logout() if client is reader else client.quit())


def test_each_protocol_has_its_farewell(server: Server) -> None:
    reader, sender, fetcher = imap(server), submission(server), pop3(server)
    keeper = imap(server, ANN)
    done = server.cli("session", "kill", "--login", BILL)
    assert "3 sessions ended" in done.stdout
    assert b"* BYE Session ended by the administrator" in reader.readline()
    assert sender.getreply()[0] == 421
    assert fetcher._getline()[0].startswith(b"-ERR [SYS/PERM] Session ended")  # type: ignore[attr-defined]
    assert keeper.noop()[0] == "OK"
    reader.shutdown(), sender.close(), fetcher.close()
    (ann,) = listed(server, "--login", ANN)
    server.cli("session", "kill", str(ann["id"]))
    assert b"* BYE" in keeper.readline()
    keeper.shutdown()
    wait_for(lambda: listed(server) == [], "an empty list")


def test_very_many_sessions_come_in_pieces(server: Server) -> None:
    clients = [imap(server) for _ in range(150)]
    try:
        assert len(listed(server)) == 150
        assert len({each["id"] for each in listed(server)}) == 150
        assert json.loads(server.cli("session", "kill", "--address", "127.0.0.0/8", "--json").stdout) == {
            "sessions": 150
        }
        wait_for(lambda: listed(server) == [], "an empty list")
    finally:
        for client in clients:
            client.shutdown()


def test_a_mailbox_of_somebody_else_is_told_as_such(server: Server) -> None:
    server.cli("mailbox", "share", "add", BILL, "INBOX", ANN, "lr")
    ann = imap(server, ANN)
    assert ann.select(f'"Other Users/{BILL}/INBOX"', readonly=True)[0] == "OK"
    assert [each["mailbox"] for each in listed(server, "--login", ANN)] == [f"Other Users/{BILL}/INBOX"]
    ann.logout()


def test_the_last_login_is_kept(server: Server) -> None:
    server.add_user("carl@example.test", PASSWORD)

    def told() -> list[str]:
        found = json.loads(server.cli("user", "list", "--json").stdout)
        (carl,) = (each for each in found if each["address"] == "carl@example.test")
        return [carl["last_login_address"], carl["last_login_protocol"]]

    assert told() == ["", ""]
    imap(server, "carl@example.test").logout()
    wait_for(lambda: told() == ["127.0.0.1", "imap"], "the last login")


def test_what_is_wrong_is_said(server: Server) -> None:
    keeper = imap(server)
    for ids in ([""], [" "], ["", "--login", BILL]):
        assert server.cli("session", "kill", *ids, check=False).returncode == 64
    assert keeper.noop()[0] == "OK"
    keeper.logout()
    assert server.cli("session", "kill", check=False).returncode == 64
    assert server.cli("session", "kill", "1-imap-1", check=False).returncode == 67
    assert server.cli("session", "list", "--address", "x", check=False).returncode == 64


def test_a_client_that_never_reads_is_ended_too(server: Server) -> None:
    with imap(server) as filler:
        filler.append("INBOX", "", "", b"Subject: x\r\n\r\n" + b"x" * 3_000_000)
    client = imap(server)
    client.select("INBOX")
    client.send(b"a FETCH 1 (BODY[] BODY[TEXT] BODY[1] RFC822)\r\n" * 10)  # and none of it is read
    wait_for(lambda: any(int(str(each["sent_bytes"])) > 100_000 for each in listed(server)), "a full socket")
    server.cli("session", "kill", "--login", BILL)
    wait_for(lambda: listed(server, "--login", BILL) == [], "the end of the session", timeout_s=15)
    client.shutdown()
