"""Three servers: an author's, one where an alias passes mail on, and a receiver that is strict about DMARC.

The author's domain publishes SPF with -all and DMARC with p=reject and strict alignment, and signs nothing, so that
what is passed on has nothing to show but what the forwarder says of it, whose ARC seals the receiver believes.
"""

import json
import smtplib
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest

from tests.support import postfix
from tests.support.dns_thread import dns_stub
from tests.support.mail import wait_for_messages
from tests.support.ports import free_port
from tests.support.server import Server
from tests.support.waiting import wait_for

AUTHOR_IP, FORWARD_IP = "127.0.0.11", "127.0.0.12"
PASSWORD = "forwarded"
ANN, BILL = "ann@author.test", "bill@strict.test"
ZONES: dict[str, Any] = {
    "author.test": {"TXT": [f"v=spf1 ip4:{AUTHOR_IP} -all"]},
    "_dmarc.author.test": {"TXT": ["v=DMARC1; p=reject; adkim=s; aspf=s"]},
    "forward.test": {"TXT": [f"v=spf1 ip4:{FORWARD_IP} -all"]},
}


@pytest.fixture(scope="module")
def zones() -> Iterator[tuple[MutableMapping[str, Any], str]]:
    with dns_stub(ZONES) as dns:
        yield dns.zones, dns.address


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory, zones: tuple[MutableMapping[str, Any], str]) -> Iterator[Server]:
    settings = {
        "mynetworks": ["192.0.2.0/24"],
        "arc_trusted_sealers": ["forward.test"],
        "dns": {"nameservers": [zones[1]]},
    }
    directory = tmp_path_factory.mktemp("receiver")
    with Server(directory, hostname="mx.strict.test", domains=["strict.test"], settings=settings) as server:
        server.add_user(BILL, PASSWORD)
        yield server


@pytest.fixture(scope="module")
def author_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def forwarder(
    tmp_path_factory: pytest.TempPathFactory,
    author_port: int,
    zones: tuple[MutableMapping[str, Any], str],
    receiver: Server,
) -> Iterator[Server]:
    settings = {
        "mynetworks": ["192.0.2.0/24"],
        "srs_domain": "forward.test",
        "arc_sealing": True,
        "virtual_alias_maps": [
            "inline:{ list@forward.test = bill@strict.test, list2@forward.test = nobody@strict.test }"
        ],
        "dns": {"nameservers": [zones[1]]},
        "transport": {
            "strict.test": f"smtp:[{receiver.host}]:{receiver.port('smtp')}",
            "author.test": f"smtp:[127.0.0.1]:{author_port}",
        },
        "delivery": {"smtp_bind_address": FORWARD_IP},
    }
    directory = tmp_path_factory.mktemp("forwarder")
    server = Server(directory, hostname="mx.forward.test", domains=["forward.test"], settings=settings)
    with server:
        server.cli("dkim", "add", "forward.test")
        shown = json.loads(server.cli("dkim", "publish", "forward.test", "--json").stdout)
        zones[0].update({row["name"].rstrip("."): {"TXT": [row["record"]]} for row in shown})
        yield server


@pytest.fixture(scope="module")
def author(
    tmp_path_factory: pytest.TempPathFactory,
    author_port: int,
    zones: tuple[MutableMapping[str, Any], str],
    forwarder: Server,
) -> Iterator[Server]:
    settings = {
        "dns": {"nameservers": [zones[1]]},
        "transport": {
            "forward.test": f"smtp:[{forwarder.host}]:{forwarder.port('smtp')}",
        },
        "delivery": {"smtp_bind_address": AUTHOR_IP},
    }
    directory = tmp_path_factory.mktemp("author")
    ports = {"smtp": author_port}
    with Server(
        directory, hostname="mx.author.test", domains=["author.test"], settings=settings, ports=ports
    ) as server:
        server.add_user(ANN, PASSWORD)
        yield server


def send(server: Server, to: str, subject: str) -> None:
    with smtplib.SMTP(server.host, server.port("smtp"), timeout=60) as client:
        date = "Fri, 27 Nov 2026 12:00:00 +0000"
        text = f"From: Ann <{ANN}>\r\nTo: {to}\r\nSubject: {subject}\r\nDate: {date}\r\n\r\n.dot\r\n"
        client.sendmail(ANN, [to], text + "text\r\n" * 20)


def test_mail_that_an_alias_passes_on_gets_through_to_a_strict_receiver(
    author: Server, forwarder: Server, receiver: Server
) -> None:
    send(author, "list@forward.test", "passed on")
    (raw,) = wait_for_messages(receiver, BILL, PASSWORD, 1)
    results = raw.partition(b"Received:")[0]
    assert raw.startswith(b"Return-Path: <SRS0=")
    assert b"=author.test=ann@forward.test>" in raw.partition(b"\r\n")[0]
    assert b"spf=pass smtp.mailfrom=" in results
    assert b"dkim=pass" in results and b"header.d=forward.test" in results
    assert b"arc=pass" in results and b"dmarc=fail" in results
    assert b"\r\nARC-Seal: " in raw and b"cv=none" in raw
    assert b"dmarc=pass (p=reject dis=none) header.from=author.test" in raw.partition(b"ARC-Authentication-Results:")[2]
    assert raw.endswith(b"\r\n\r\n.dot\r\n" + b"text\r\n" * 20)
    assert "vouched=forward.test" in receiver.log_path.read_text()


def test_a_refusal_of_the_receiver_comes_back_to_the_author(
    author: Server, forwarder: Server, receiver: Server
) -> None:
    send(author, "list2@forward.test", "to nobody")
    (bounce,) = wait_for_messages(author, ANN, PASSWORD, 1)
    assert b"multipart/report" in bounce and b"5.1.1" in bounce


def test_a_report_to_the_rewritten_sender_finds_the_author(author: Server, forwarder: Server, receiver: Server) -> None:
    """As another server sends it: from the null sender to the address that it was given."""
    send(author, "list@forward.test", "to be reported")
    (raw,) = wait_for_messages(receiver, BILL, PASSWORD, 1, subject="to be reported")
    sender = raw.partition(b"<")[2].partition(b">")[0].decode()
    before = len(wait_for_messages(author, ANN, PASSWORD, 0))
    with smtplib.SMTP(
        forwarder.host, forwarder.port("smtp"), local_hostname="mx.strict.test", source_address=("127.0.0.13", 0)
    ) as client:
        client.ehlo()
        assert client.mail("")[0] == 250
        forged = client.rcpt(sender.replace("=ann@", "=eve@"))
        assert forged[0] == 550 and b"SRS" in forged[1]
        assert client.rcpt(sender)[0] == 250
        assert client.data(b"From: MAILER-DAEMON@strict.test\r\nSubject: undelivered\r\n\r\nSorry\r\n")[0] == 250
    found = wait_for_messages(author, ANN, PASSWORD, before + 1)
    assert any(b"Subject: undelivered" in each for each in found)


def test_the_same_with_postfix_as_forwarder_fails(
    receiver: Server, zones: tuple[MutableMapping[str, Any], str]
) -> None:
    """Postfix has neither SRS nor ARC: the receiver refuses what it passes on, by the author's own wish."""
    reason = postfix.missing()
    if reason:
        pytest.skip(f"{reason} (tests/install_packages.sh)")
    parameters = {
        "virtual_alias_domains": "forward.test",
        "virtual_alias_maps": "inline:{list@forward.test=bill@strict.test}",
        "relayhost": f"[{receiver.host}]:{receiver.port('smtp')}",
        "smtp_bind_address": FORWARD_IP,
        "smtp_bind_address_enforce": "yes",
        "mynetworks": "192.0.2.0/24",
    }
    before = len(wait_for_messages(receiver, BILL, PASSWORD, 0))
    with postfix.Postfix(parameters) as forwarding:
        with smtplib.SMTP(forwarding.host, forwarding.port, timeout=20, source_address=(AUTHOR_IP, 0)) as client:
            text = f"From: Ann <{ANN}>\r\nTo: list@forward.test\r\nSubject: by postfix\r\n\r\ntext\r\n"
            client.sendmail(ANN, ["list@forward.test"], text)
        refused = "550 5.7.1 Message rejected by the DMARC policy of author.test"
        wait_for(lambda: refused in forwarding.log_path.read_text(), forwarding.log_tail)
    assert len(wait_for_messages(receiver, BILL, PASSWORD, before)) == before
