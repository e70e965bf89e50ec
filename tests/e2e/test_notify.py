"""NOTIFY (RFC 5465) at a running server of two workers: what happens at either is told."""

import imaplib
import re
from collections.abc import Iterator

import pytest

from tests.support.server import Server

BILL, PASSWORD = "bill@example.test", "secret"
MESSAGE = b"Subject: x\r\n\r\ntext\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("notify"), services=("imap",), workers=2, with_tls=False)
    found.add_user(BILL, PASSWORD)
    with found:
        yield found


def client(server: Server) -> imaplib.IMAP4:
    found = imaplib.IMAP4(server.host, server.port("imap"), timeout=60)
    found.login(BILL, PASSWORD)
    return found


def until(mail: imaplib.IMAP4, pattern: bytes) -> list[bytes]:
    lines = []
    while not re.match(pattern, line := mail.readline()):
        assert line, lines
        lines.append(line)
    return [*lines, line]


def test_what_happens_at_any_worker_is_told_without_a_command(server: Server) -> None:
    with client(server) as watching:
        watching.select("INBOX")
        message = b"(MessageNew MessageExpunge)"
        watching.send(b"n NOTIFY SET (selected (MessageNew (UID) MessageExpunge)) (personal (MailboxName)) ")
        watching.send(b"(mailboxes Sent %b)\r\n" % message)
        until(watching, rb"n OK ")
        for number in range(1, 7):  # by sessions on either worker
            with client(server) as other:
                other.append("INBOX", "", "", MESSAGE)
                other.append("Sent", "", "", MESSAGE)
                other.create(f"new{number}")
                other.delete(f"new{number}")
        lines = until(watching, rb"\* STATUS Sent \(UIDNEXT 7 MESSAGES 6")
        if not any(re.match(rb"\* 6 FETCH", line) for line in lines):
            until(watching, rb"\* 6 FETCH \(UID 6\)")
        with client(server) as other:
            other.create("last")
            other.select("INBOX")
            other.store("1", "+FLAGS", "\\Deleted")
            other.expunge()
        lines = until(watching, rb"\* 1 EXPUNGE")
        if not any(b" last" in line for line in lines):
            until(watching, rb'\* LIST \(\\HasNoChildren\) "/" last')
