"""A server over a store with a damaged page: an error in every protocol, a line, /readyz red; other mail goes on."""

import poplib
import smtplib
from pathlib import Path

import pytest

from fastmta._store import TABLE_MESSAGE, Store
from tests.support.mail import imap, letter, messages, send
from tests.support.server import Server
from tests.support.waiting import wait_for

VICTIM, OTHER, PASSWORD = "victim@example.test", "other@example.test", "secret"
PAGE = 4096
MESSAGES = 150


def damage(store_path: Path) -> None:
    """Eight bytes of ff over the header of a leaf page with messages of the first mailbox that has many."""
    store = Store(str(store_path), create=False)
    rows = store.scan(TABLE_MESSAGE, b"", b"", 10_000)
    store.close()
    key, value = rows[len(rows) // 2]
    file = store_path / "data.mdb"
    page = file.read_bytes().rindex(bytes((TABLE_MESSAGE,)) + key + value) // PAGE
    with file.open("r+b") as opened:
        opened.seek(page * PAGE + 8)
        opened.write(b"\xff" * 8)


@pytest.fixture
def server(tmp_path: Path) -> Server:
    """Stopped, with much mail for one user and none for the other; a page of the first is damaged."""
    server = Server(tmp_path, workers=1)
    with server:
        server.add_user(VICTIM, PASSWORD)
        server.add_user(OTHER, PASSWORD)
        with imap(server, VICTIM, PASSWORD) as client:
            for number in range(MESSAGES):
                client.append("INBOX", None, None, b"Subject: %d\r\n\r\nx\r\n" % number)
        assert server.stop() == 0
    damage(server.data_directory)
    return server


def test_damage_is_an_error_in_every_protocol_and_others_are_served(server: Server) -> None:
    with server:
        with imap(server, VICTIM, PASSWORD) as client:
            status, said = client.select("INBOX")
            assert status == "NO"
            assert b"SERVERBUG" in said[0]
            assert client.noop()[0] == "OK"  # the session lives
        pop = poplib.POP3("127.0.0.1", server.port("pop3"), timeout=60)
        pop.user(VICTIM)
        with pytest.raises(poplib.error_proto, match="SYS/TEMP"):
            pop.pass_(PASSWORD)
        pop.close()
        export = server.cli("mailbox", "export", VICTIM, str(server.directory / "out.mbox"), check=False)
        assert export.returncode == 74, export.stderr
        assert "table=message" in export.stderr
        send(server, OTHER, letter("for another"))
        assert len(messages(server, OTHER, PASSWORD)) == 1
        wait_for(lambda: not server.is_ready(), server.log_tail)
        assert server.log_path.read_text().count('"store.damaged"') <= 10
        checked = server.cli("store", "check", check=False)
        assert checked.returncode == 65
        assert "table=message" in checked.stdout
        try:
            send(server, VICTIM, letter("for the victim"))
        except (smtplib.SMTPDataError, smtplib.SMTPRecipientsRefused) as refusal:
            assert "451" in str(refusal)
        assert server.stop() == 0


def test_a_damaged_meta_page_is_one_line_and_an_end(server: Server) -> None:
    with (server.data_directory / "data.mdb").open("r+b") as opened:
        opened.seek(16)
        opened.write(b"\xff" * 8)
    process = server.cli("serve", check=False)
    assert process.returncode == 74, process.stderr
    assert (process.stdout + process.stderr).count("store.unreadable") == 1
