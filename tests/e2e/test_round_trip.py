"""The way of a letter over two servers, as a textbook draws it.

Mark hands it in at relay.example.net, with AUTH over STARTTLS. That server asks DNS for the MX of example.org, connects
to smtp.example.org, which stores it in Bill's mailbox. Bill fetches it once over POP3, and another over IMAP. Both are
byte for byte what Mark wrote, below the trace fields of the two servers.
"""

import poplib
import smtplib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.dns_stub import DnsStub
from tests.support.dns_thread import dns_stub
from tests.support.mail import imap, letter, unverified, wait_for_messages
from tests.support.ports import free_port
from tests.support.server import Server

RELAY_HOST, SMTP_HOST = "127.0.0.2", "127.0.0.3"
MARK, BILL = "mark@example.net", "bill@example.org"
PASSWORD = "round-trip"
ZONES = {
    "example.org": {"MX": [(10, "smtp.example.org"), (20, "backup.example.org")]},
    "smtp.example.org": {"A": [SMTP_HOST]},
    "example.net": {"MX": [(10, "relay.example.net")]},
    "relay.example.net": {"A": [RELAY_HOST]},
    "null.example": {"MX": [(0, ".")]},
}


class World(NamedTuple):
    dns: DnsStub
    relay: Server
    smtp: Server


def _site(directory: Path, host: str, name: str, domain: str, port: int, dns: str) -> Server:
    return Server(
        directory,
        afresh=True,
        host=host,
        hostname=name,
        domains=[domain],
        ports={"smtp": port},
        settings={
            "mynetworks": [f"{host}/32"],  # clients and the other server are strangers
            "dns": {"nameservers": [dns]},
            "delivery": {"smtp_tcp_port": port},
        },
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    port = free_port("0.0.0.0")
    base = tmp_path_factory.mktemp("round-trip")
    with dns_stub(ZONES) as dns:
        relay = _site(base / "relay", RELAY_HOST, "relay.example.net", "example.net", port, dns.address)
        smtp = _site(base / "smtp", SMTP_HOST, "smtp.example.org", "example.org", port, dns.address)
        try:
            for server, user in ((relay, MARK), (smtp, BILL)):
                server.start()
                server.add_user(user, PASSWORD)
            yield World(dns, relay, smtp)
        finally:
            relay.stop()
            smtp.stop()


def _submit(server: Server, user: str, to: str, message: bytes) -> None:
    with smtplib.SMTP(server.host, server.port("submission"), local_hostname="pc.example.net", timeout=60) as client:
        client.starttls(context=unverified())
        client.login(user, PASSWORD)
        refused = client.sendmail(user, [to], message, ["BODY=8BITMIME"])
    assert refused == {}


def _assert_travelled(found: bytes, message: bytes) -> None:
    """The letter as written, and on top of it the trace of both servers, the last one first (RFC 5321 §4.4)."""
    assert found.endswith(message)
    trace = found.removesuffix(message).decode("ascii")
    assert trace.startswith(f"Return-Path: <{MARK}>\r\n")
    assert f"Delivered-To: {BILL}\r\n" in trace
    received = trace.split("Received: ")[1:]
    assert len(received) == 2
    assert "by smtp.example.org" in received[0]
    assert "relay.example.net" in received[0]
    assert "by relay.example.net" in received[1]
    assert "ESMTPSA" in received[1]


def test_a_letter_reaches_bill_over_pop3(world: World) -> None:
    message = letter("to be fetched by POP3", sender=MARK, to=BILL)
    _submit(world.relay, MARK, BILL, message)
    wait_for_messages(world.smtp, BILL, PASSWORD, 1)
    assert world.dns.queries["example.org", "MX"] >= 1
    assert world.dns.queries["smtp.example.org", "A"] >= 1

    found, left = _fetch_and_delete(world.smtp)
    _assert_travelled(found, message)
    assert left == 0


def _fetch_and_delete(server: Server) -> tuple[bytes, int]:
    """Bill's POP3 client: takes his one letter away; gives it, and how many are left in a new session."""
    client = poplib.POP3(server.host, server.port("pop3"), timeout=60)
    client.stls(unverified())
    client.user(BILL)
    client.pass_(PASSWORD)
    _, lines, _ = client.retr(1)
    client.dele(1)
    client.quit()
    again = poplib.POP3(server.host, server.port("pop3"), timeout=60)
    again.user(BILL)
    again.pass_(PASSWORD)
    count, _ = again.stat()
    again.quit()
    return b"".join(line + b"\r\n" for line in lines), count


def test_a_letter_reaches_bill_over_imap(world: World) -> None:
    message = letter("to be read by IMAP", sender=MARK, to=BILL)
    _submit(world.relay, MARK, BILL, message)
    wait_for_messages(world.smtp, BILL, PASSWORD, 1)
    _assert_travelled(_read(world.smtp), message)


def _read(server: Server) -> bytes:
    with imap(server, BILL, PASSWORD, tls=True) as client:
        client.select("INBOX")
        _, found = client.search(None, "SUBJECT", '"to be read by IMAP"')
        newest = found[0].split()[-1].decode()
        _, parts = client.fetch(newest, "(RFC822.SIZE BODY[])")
        described, body = next(part for part in parts if isinstance(part, tuple))
        assert f"RFC822.SIZE {len(body)}".encode() in described
        client.store(newest, "+FLAGS.SILENT", r"(\Deleted)")
        client.expunge()
        return body


def test_bill_answers(world: World) -> None:
    message = letter("an answer", sender=BILL, to=MARK)
    _submit(world.smtp, BILL, MARK, message)
    found = wait_for_messages(world.relay, MARK, PASSWORD, 1, subject="an answer")
    assert found[0].endswith(message)
    assert world.dns.queries["example.net", "MX"] >= 1


@pytest.mark.parametrize(
    ("to", "status"),
    [
        ("nobody@example.org", b"Status: 5.1.1"),
        ("x@null.example", b"Status: 5.1.10"),
        ("x@not-there.example", b"Status: 5.4.4"),
    ],
    ids=["unknown-user", "null-mx", "no-such-domain"],
)
def test_a_letter_that_can_not_arrive_comes_back(world: World, to: str, status: bytes) -> None:
    message = letter(f"for {to}", sender=MARK, to=to)
    _submit(world.relay, MARK, to, message)

    # the DSN carries the letter, and so its subject
    (returned,) = wait_for_messages(world.relay, MARK, PASSWORD, 1, subject=f"for {to}")
    assert returned.startswith(b"Return-Path: <>\r\n")
    assert b"multipart/report" in returned
    assert f"Final-Recipient: rfc822; {to}".encode() in returned
    assert status in returned
    assert b"Auto-Submitted: auto-replied" in returned
