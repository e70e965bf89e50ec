"""What a whole server makes of mail from strangers: refused by a DNS list, verified, and forged results not shown."""

import smtplib
from collections.abc import Iterator

import pytest

from tests.support.dns_thread import dns_stub
from tests.support.mail import imap, wait_for_messages
from tests.support.server import Server

BILL = "bill@example.test"
PASSWORD = "strangers"
ZONES = {
    "sender.test": {"TXT": ["v=spf1 ip4:127.0.0.0/8 -all"]},
    "_dmarc.sender.test": {"TXT": ["v=DMARC1; p=reject"]},
    "strict.test": {"TXT": ["v=spf1 -all"]},
    "_dmarc.strict.test": {"TXT": ["v=DMARC1; p=reject"]},
    "2.0.0.127.bl.test": {"A": ["127.0.0.2"], "TXT": ["see the list"]},
}
FORGED = "Authentication-Results: mx.example.test; dmarc=pass\r\n\theader.from=bank.test\r\n"
LETTER = (
    FORGED
    + "From: ann@sender.test\r\nTo: bill@example.test\r\nSubject: two parts\r\n"
    + FORGED
    + "MIME-Version: 1.0\r\n"
    'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\none\r\n--b\r\nContent-Type: text/html\r\n\r\n'
    "<p>two\r\n--b--\r\n"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with dns_stub(ZONES) as dns:
        settings = {
            "mynetworks": ["192.0.2.0/24"],
            "smtpd_client_restrictions": ["reject_rbl_client bl.test"],
            "dns": {"nameservers": [dns.address]},
        }
        server = Server(
            tmp_path_factory.mktemp("strangers"),
            hostname="mx.example.test",
            domains=["example.test"],
            settings=settings,
        )
        try:
            server.start()
            server.add_user(BILL, PASSWORD)
            yield server
        finally:
            server.stop()


def client(server: Server, source: str) -> smtplib.SMTP:
    return smtplib.SMTP(
        server.host, server.port("smtp"), local_hostname="mx.sender.test", timeout=20, source_address=(source, 0)
    )


def test_a_listed_client_is_refused_at_rcpt(server: Server) -> None:
    with client(server, "127.0.0.2") as listed:
        listed.ehlo()
        assert listed.mail("ann@sender.test")[0] == 250
        assert listed.rcpt(BILL) == (
            554,
            b"5.7.1 Service unavailable; Client host [127.0.0.2] blocked using bl.test; see the list",
        )


def test_a_letter_is_verified_and_its_parts_are_found_without_the_forged_fields(server: Server) -> None:
    with client(server, "127.0.0.5") as stranger:
        assert stranger.sendmail("ann@sender.test", [BILL], LETTER) == {}
    wait_for_messages(server, BILL, PASSWORD, 1)
    with imap(server, BILL, PASSWORD) as box:
        box.select("INBOX")
        whole = box.fetch("1", "(BODY[])")[1][0][1]
        assert whole.count(b"Authentication-Results:") == 1
        assert b"dmarc=pass (p=reject dis=none) header.from=sender.test" in whole.partition(b"Received:")[0]
        assert b"bank.test" not in whole
        assert box.fetch("1", "(BODY[1])")[1][0][1] == b"one"
        assert box.fetch("1", "(BODY[2])")[1][0][1] == b"<p>two"
        header = box.fetch("1", "(BODY[HEADER])")[1][0][1]
        assert whole.startswith(header) and header.endswith(b"\r\n\r\n")
        assert b"two parts" in box.fetch("1", "(ENVELOPE)")[1][0]


def test_what_a_domain_forbids_is_refused(server: Server) -> None:
    with client(server, "127.0.0.5") as stranger, pytest.raises(smtplib.SMTPDataError) as refusal:
        stranger.sendmail("ann@strict.test", [BILL], "From: ann@strict.test\r\n\r\nHello\r\n")
    assert refusal.value.smtp_code == 550
    assert refusal.value.smtp_error == b"5.7.1 Message rejected by the DMARC policy of strict.test"


def test_a_reload_changes_what_an_open_session_is_refused_for(server: Server) -> None:
    with client(server, "127.0.0.2") as listed:
        listed.ehlo()
        assert listed.mail("ann@sender.test")[0] == 250
        server.write_config({"smtpd_client_restrictions": [], "smtpd_helo_restrictions": ["reject"]})
        server.cli("reload")
        assert listed.rcpt(BILL)[0] == 554, "the transaction goes on as it began"
        listed.rset()
        assert listed.mail("ann@sender.test")[0] == 250
        assert listed.rcpt(BILL) == (554, b"5.7.1 <mx.sender.test>: Helo command rejected: Access denied")
