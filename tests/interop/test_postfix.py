"""Postfix on either side: it relays into us, and we relay into it."""

import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.interop.conftest import Account
from tests.support import postfix
from tests.support.mail import letter, send, wait_for_messages
from tests.support.ports import free_port
from tests.support.server import Server
from tests.support.waiting import wait_for

COUNT = 20


@pytest.fixture(scope="module", autouse=True)
def _postfix_is_there() -> None:
    reason = postfix.missing()
    if reason:
        pytest.skip(f"{reason} (tests/install_packages.sh)")


def test_postfix_relays_into_us(server: Server, account: Account) -> None:
    parameters = {
        "relayhost": f"[{server.host}]:{server.port('smtp')}",
        "smtp_tls_security_level": "may",
        "smtp_bind_address": server.host,
    }
    sent = [letter(f"through postfix {number}") for number in range(COUNT)]
    with postfix.Postfix(parameters) as upstream:
        with smtplib.SMTP(upstream.host, upstream.port, timeout=60) as client:
            for message in sent:
                client.sendmail("sender@client.example", [account.user], message, ["BODY=8BITMIME"])
        upstream.wait_empty()
    found = wait_for_messages(server, *account, COUNT)
    assert len(found) == COUNT
    for message in sent:
        assert sum(one.endswith(message) for one in found) == 1
    assert all(b"(Postfix)" in one and b"\r\nReceived: " in b"\r\n" + one for one in found)


def test_postfix_learns_that_a_recipient_is_unknown(server: Server, account: Account) -> None:
    """The 5xx of our RCPT makes Postfix bounce at once, to a mailbox of ours."""
    parameters = {"relayhost": f"[{server.host}]:{server.port('smtp')}"}
    with postfix.Postfix(parameters) as upstream:
        with smtplib.SMTP(upstream.host, upstream.port, timeout=60) as client:
            client.sendmail(account.user, ["nobody-here@example.test"], letter("to nobody"))
        (bounce,) = wait_for_messages(server, *account, 1)
    assert b"5.1.1" in bounce
    assert b"multipart/report" in bounce


@pytest.fixture(scope="module")
def downstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, postfix.Postfix, Path]]:
    """FastMTA with Postfix behind it; Postfix keeps what it gets in a Maildir for all its users."""
    parameters = {
        "virtual_mailbox_domains": "postfix.example",
        "virtual_mailbox_maps": "inline:{kept@postfix.example=kept/}",
        "virtual_mailbox_base": "$queue_directory/mail",
        "virtual_uid_maps": "static:65534",
        "virtual_gid_maps": "static:65534",
        "virtual_minimum_uid": "1000",
        "smtpd_relay_restrictions": "reject_unauth_destination",
    }
    relay = postfix.Postfix(parameters)
    spool = relay.queue / "mail"
    spool.mkdir()
    spool.chmod(0o777)
    with relay:
        settings = {
            "transport": {
                "postfix.example": f"smtp:[{relay.host}]:{relay.port}",
                "away.example": f"smtp:[127.0.0.1]:{free_port()}",
            }
        }
        with Server(tmp_path_factory.mktemp("downstream"), settings=settings, workers=2) as server:
            server.add_user("sender@example.test", "secret")
            yield server, relay, spool


def test_we_relay_into_postfix(downstream: tuple[Server, postfix.Postfix, Path]) -> None:
    server, relay, spool = downstream
    sent = [letter(f"into postfix {number}") for number in range(COUNT)]
    for message in sent:
        send(server, "kept@postfix.example", message)
    _wait_for_files(spool / "kept" / "new", COUNT, server)
    relay.wait_empty()
    found = [path.read_bytes().replace(b"\n", b"\r\n") for path in (spool / "kept" / "new").iterdir()]
    assert len(found) == COUNT
    for message in sent:
        assert sum(one.endswith(message) for one in found) == 1


def test_what_postfix_refuses_comes_back(downstream: tuple[Server, postfix.Postfix, Path]) -> None:
    """A 550 to RCPT becomes one DSN to the sender, with Postfix's own words in it."""
    server, _, _ = downstream
    send(server, "unknown@postfix.example", letter("refused"), sender="sender@example.test")
    (bounce,) = wait_for_messages(server, "sender@example.test", "secret", 1)
    assert bounce.startswith(b"Return-Path: <>")
    assert b"multipart/report" in bounce
    assert b"Final-Recipient: rfc822;" in bounce
    assert b"Action: failed" in bounce
    assert b"Status: 5.1.1" in bounce
    assert b"User unknown in virtual mailbox table" in bounce


def test_a_dead_next_hop_defers(downstream: tuple[Server, postfix.Postfix, Path]) -> None:
    server, _, _ = downstream
    send(server, "someone@away.example", letter("waits"), sender="sender@example.test")
    deferred = 'fastmta_queue_messages{state="deferred"}'
    wait_for(lambda: server.metrics().get(deferred) == 1.0, server.log_tail)
    assert "away.example" in server.cli("queue", "list").stdout


def _wait_for_files(directory: Path, count: int, server: Server) -> None:
    wait_for(lambda: directory.exists() and len(list(directory.iterdir())) >= count, server.log_tail)
