"""reject_unverified_recipient and _sender beside Debian's Postfix: another Postfix is the next hop of both."""

import smtplib
from collections.abc import Iterator

import pytest

from tests.support import postfix
from tests.support.ports import free_port
from tests.support.server import Server

pytestmark = pytest.mark.interop
KEYS = {
    "smtpd_recipient_restrictions": "reject_unverified_sender, reject_unverified_recipient, reject_unauth_destination",
    "unverified_recipient_reject_code": "550",
    "unverified_sender_reject_reason": "no such sender",
    "address_verify_poll_delay": "1s",
}


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, postfix.Postfix, postfix.Postfix]]:
    reason = postfix.missing()
    if reason:
        pytest.skip(f"{reason} (tests/install_packages.sh)")
    behind = postfix.Postfix(
        {
            "virtual_mailbox_domains": "back.example",
            "virtual_mailbox_maps": "inline:{known@back.example=known/}",
            "myhostname": "back.example.test",
        }
    )
    dead = free_port()
    with behind:
        routes = {
            "back.example": f"smtp:[{behind.host}]:{behind.port}",
            "dead.example": f"smtp:[{behind.host}]:{dead}",
        }
        table = ", ".join(f"{{{domain}={route}}}" for domain, route in routes.items())
        keys = {**KEYS, "relay_domains": "back.example, dead.example", "smtpd_relay_restrictions": ""}
        settings = {
            **{key: [value] if "restrictions" in key else value for key, value in KEYS.items()},
            "relay_domains": ["back.example", "dead.example"],
            "smtpd_relay_restrictions": [],
            "unverified_recipient_reject_code": 550,
            "transport": routes,
        }
        front = postfix.Postfix({**keys, "transport_maps": f"inline:{{{table}}}", "address_verify_sender": "<>"})
        with front, Server(tmp_path_factory.mktemp("verification"), settings=settings, workers=2) as server:
            yield server, front, behind


def _said(host: str, port: int, sender: str, recipient: str) -> str:
    with smtplib.SMTP(host, port, timeout=60) as client:
        client.ehlo("client.example")
        client.mail(sender)
        code, text = client.rcpt(recipient)
    return f"{code} {text.decode()}"


@pytest.mark.parametrize(
    ("sender", "recipient", "expected"),
    [
        ("known@back.example", "known@back.example", "250 2.1.5 Ok"),
        (
            "known@back.example",
            "unknown@back.example",
            "550 5.1.1 <unknown@back.example>: Recipient address rejected: undeliverable address: host ",
        ),
        (
            "unknown@back.example",
            "known@back.example",
            "450 4.1.7 <unknown@back.example>: Sender address rejected: unverified address: no such sender",
        ),
        (
            "known@back.example",
            "x@dead.example",
            "450 4.1.1 <x@dead.example>: Recipient address rejected: unverified address: connect to ",
        ),
        ("", "known@back.example", "250 2.1.5 Ok"),
    ],
)
def test_both_say_the_same(
    servers: tuple[Server, postfix.Postfix, postfix.Postfix], sender: str, recipient: str, expected: str
) -> None:
    server, front, _ = servers
    for host, port in ((server.host, server.port("smtp")), (front.host, front.port)):
        for _ in range(2):  # asked, and known
            said = _said(host, port, sender, recipient)
            assert said.startswith(expected), (host, port, said)


def test_nothing_is_delivered_and_the_answer_outlives_a_restart(
    servers: tuple[Server, postfix.Postfix, postfix.Postfix],
) -> None:
    server, _, behind = servers
    _said(server.host, server.port("smtp"), "", "known@back.example")
    server.stop()
    server.start()
    behind.stop()
    assert _said(server.host, server.port("smtp"), "", "known@back.example") == "250 2.1.5 Ok"
    assert "removed" not in behind.log_tail()  # its queue manager never had a message
