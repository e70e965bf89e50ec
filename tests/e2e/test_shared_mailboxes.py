"""Shared mailboxes at a running server of two workers, by Python's imaplib, which knows ACL."""

import imaplib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import Server
from tests.support.waiting import wait_for

BILL, ANN, PUBLIC, PASSWORD = "bill@example.test", "ann@example.test", "public@example.test", "secret"
MESSAGE = b"Subject: x\r\n\r\ntext\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    found = Server(tmp_path_factory.mktemp("sharing"), services=("imap",), workers=2, with_tls=False)
    for name in (BILL, ANN, PUBLIC):
        found.add_user(name, PASSWORD)
    found.write_config({"imap_public_account": PUBLIC})
    with found:
        yield found


def client(server: Server, name: str) -> imaplib.IMAP4:
    found = imaplib.IMAP4(server.host, server.port("imap"), timeout=60)
    found.login(name, PASSWORD)
    return found


def names(mail: imaplib.IMAP4) -> list[bytes]:
    return [line for line in mail.list('""', '"*"')[1] if isinstance(line, bytes)]


def test_what_bill_shares_ann_reads_and_hears_of(server: Server) -> None:
    with client(server, BILL) as bill, client(server, ANN) as ann:
        bill.create("Projects")
        assert bill.setacl("Projects", ANN, "lrsi")[0] == "OK"
        theirs = f'"Other Users/{BILL}/Projects"'
        assert any(theirs.encode() in line for line in names(ann))
        assert ann.myrights(theirs)[1] == [theirs.encode() + b" lrsi"]
        assert ann.select(theirs)[0] == "OK"
        ann.send(b"i IDLE\r\n")
        assert ann.readline() == b"+ idling\r\n"
        for _ in range(4):  # on either worker
            with client(server, BILL) as other:
                assert other.append("Projects", "", "", MESSAGE)[0] == "OK"
        while not re.match(rb"\* 4 EXISTS", line := ann.readline()):
            assert line
        ann.send(b"DONE\r\n")
        while not ann.readline().startswith(b"i OK"):
            pass
        bill.deleteacl("Projects", ANN)
        wait_for(lambda: not any(theirs.encode() in line for line in names_of(server)), "the list without it")


def names_of(server: Server) -> list[bytes]:
    with client(server, ANN) as ann:
        return names(ann)


def test_the_command_shares_what_the_public_account_has(server: Server, tmp_path: Path) -> None:
    with client(server, PUBLIC) as public:
        public.create("News")
    server.cli("mailbox", "share", "add", PUBLIC, "News", "anyone", "lookup,read,insert")
    with client(server, ANN) as ann:
        assert b'(("Shared/" "/"))' in ann.namespace()[1][0]
        assert ann.append("Shared/News", "", "", MESSAGE)[0] == "OK"
        assert ann.select("Shared/News")[1] == [b"1"]
        assert ann.store("1", "+FLAGS", "\\Deleted")[0] == "OK"
        assert ann.expunge() == ("OK", [None])
