"""An account that is disabled, deleted or renamed beside a running server: logins, sessions, mail."""

import imaplib
import poplib
import smtplib
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import Server

BILL, PASSWORD = "bill@example.test", "secret"
U_LABEL, A_LABEL = "m\u00fcller.test", "xn--mller-kva.test"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    found = Server(
        tmp_path, domains=["example.test", A_LABEL], services=("smtp", "submission", "imap", "pop3"), with_tls=False
    )
    found.add_user(BILL, PASSWORD)
    found.add_user(f"ann@{U_LABEL}", PASSWORD)
    with found:
        yield found


def imap(server: Server, name: str = BILL) -> imaplib.IMAP4:
    client = imaplib.IMAP4(server.host, server.port("imap"), timeout=60)
    try:
        client.authenticate("PLAIN", lambda _: f"\0{name}\0{PASSWORD}".encode())
    except imaplib.IMAP4.error:
        client.shutdown()
        raise
    return client


def pop3(server: Server, name: str = BILL) -> poplib.POP3:
    client = poplib.POP3(server.host, server.port("pop3"), timeout=60)
    client.user(name)
    try:
        client.pass_(PASSWORD)
    except poplib.error_proto:
        client.close()
        raise
    return client


def submission(server: Server, name: str = BILL) -> smtplib.SMTP:
    client = smtplib.SMTP(server.host, server.port("submission"), timeout=15, local_hostname="client.test")
    client.ehlo()
    code, said = client.docmd("AUTH", "PLAIN " + b64encode(f"\0{name}\0{PASSWORD}".encode()).decode())
    if code != 235:
        client.close()
        raise smtplib.SMTPAuthenticationError(code, said)
    return client


def ends(client: imaplib.IMAP4 | poplib.POP3) -> str:
    """What is said when the server ends a session by itself; the socket's own timeout is the limit."""
    raw = client.sock.recv(4096)
    assert client.sock.recv(4096) == b""
    client.shutdown() if isinstance(client, imaplib.IMAP4) else client.close()
    return raw.decode()


def test_disabling_ends_sessions_and_refuses_logins_and_mail_until_it_is_enabled(server: Server) -> None:
    reading, popping, sending = imap(server), pop3(server), submission(server)
    other = imap(server, f"ann@{A_LABEL}")
    server.cli("user", "disable", BILL)
    assert "* BYE This account is closed" in ends(reading)
    assert ends(popping).startswith("-ERR ")
    with pytest.raises(smtplib.SMTPSenderRefused):
        sending.sendmail(BILL, [BILL], "Subject: x\r\n\r\nx\r\n")
    for null_or_own in ("", BILL):
        assert sending.docmd(f"MAIL FROM:<{null_or_own}>")[0] == 553
    sending.close()
    for login in (imap, pop3, submission):
        with pytest.raises((imaplib.IMAP4.error, poplib.error_proto, smtplib.SMTPAuthenticationError)):
            login(server)
    with (
        smtplib.SMTP(server.host, server.port("smtp"), timeout=60) as client,
        pytest.raises(smtplib.SMTPRecipientsRefused),
    ):
        client.sendmail("x@elsewhere.test", [BILL], "Subject: x\r\n\r\nx\r\n")
    assert other.noop()[0] == "OK"  # nobody else has noticed
    other.logout()
    server.cli("user", "enable", BILL)
    imap(server).logout()


def test_deleting_ends_sessions(server: Server) -> None:
    reading = imap(server)
    server.cli("user", "delete", BILL, "--yes")
    assert "* BYE" in ends(reading)


def test_renaming_is_seen_by_the_next_login_and_ends_no_session(server: Server) -> None:
    reading = imap(server)
    server.cli("user", "rename", BILL, "william@example.test")
    imap(server, "william@example.test").logout()
    with pytest.raises(imaplib.IMAP4.error):
        imap(server)
    assert reading.noop()[0] == "OK"
    reading.logout()


def test_a_login_may_write_its_domain_in_unicode(server: Server) -> None:
    for domain in (U_LABEL, U_LABEL.upper(), A_LABEL):
        imap(server, f"ann@{domain}").logout()
        submission(server, f"Ann@{domain}").quit()


def test_deleting_an_app_password_ends_what_it_has_opened_and_nothing_else(server: Server) -> None:
    password = server.cli("app-password", "add", BILL, "phone").stdout.split()[-1]
    reader = imaplib.IMAP4(server.host, server.port("imap"), timeout=60)
    reader.login(BILL, password)
    drop = poplib.POP3(server.host, server.port("pop3"), timeout=60)
    drop.user(BILL)
    drop.pass_(password)
    sender = smtplib.SMTP(server.host, server.port("submission"), timeout=60, local_hostname="client.test")
    sender.login(BILL, password)
    other = imap(server)
    server.cli("app-password", "delete", BILL, "phone")
    assert reader.readline().startswith(b"* BYE ")
    assert drop._getline()[0].startswith(b"-ERR ")  # type: ignore[attr-defined]
    assert sender.getreply()[0] == 421
    assert other.noop()[0] == "OK"
    for client in (reader, other):
        client.shutdown()
    drop.close()
    sender.close()
