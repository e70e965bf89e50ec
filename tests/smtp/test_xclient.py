"""XCLIENT and XFORWARD: from hosts that the administrator lists, and from nobody else."""

from collections.abc import Callable

import pytest

from fastmta.model.reply import Reply
from fastmta.smtp.xclient import XCLIENT_NAMES, XFORWARD_NAMES, Attributes, parse_attributes
from tests.support.smtp_rig import Client, SmtpRig

Make = Callable[..., SmtpRig]
PROXY = "192.0.2.80"


@pytest.fixture
def rig(make_rig: Make) -> SmtpRig:
    rig = make_rig(smtpd_authorized_xclient_hosts=(PROXY,), smtpd_authorized_xforward_hosts=("192.0.2.0/24",))
    rig.add_mailbox(b"bill@example.test")
    return rig


def greeted(rig: SmtpRig, ip: str = PROXY) -> Client:
    client = rig.connect(ip=ip)
    client.feed(b"EHLO proxy.test\r\n")
    return client


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"ADDR=198.51.100.7 NAME=a.test", Attributes(addr="198.51.100.7", name="a.test")),
        (b"addr=IPV6:2001:db8::1 PORT=25", Attributes(addr="2001:db8::1", port=25)),
        (b"NAME=[UNAVAILABLE] HELO=[tempunavail]", Attributes(name="", helo="")),
        (b"PROTO=esmtp LOGIN=ann+40example.test", Attributes(proto="ESMTP", login="ann@example.test")),
        (b"DESTADDR=192.0.2.1 DESTPORT=25", Attributes()),
        (b"HELO=x+20y", Attributes(helo="x y")),
    ],
)
def test_attributes_are_xtext(raw: bytes, expected: Attributes) -> None:
    assert parse_attributes(raw, XCLIENT_NAMES, "XCLIENT") == expected


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"ADDR=300.1.1.1",
        b"ADDR=x",
        b"PORT=65536",
        b"PORT=+31x",
        b"NAME=a+0Ab",
        b"NAME=a+20b",
        b"PROTO=LMTP",
        b"IDENT=1",
        b"COLOUR=red",
        b"HELO=+0D+0A",
        b"HELO=+ff",
        b"HELO=+FF",
        b"LOGIN=" + b"x" * 256,
        b"PORT=\xb2",
    ],
)
def test_bad_attributes_are_501(raw: bytes) -> None:
    reply = parse_attributes(raw, XCLIENT_NAMES, "XCLIENT")
    assert isinstance(reply, Reply) and reply.code == 501


def test_xforward_has_names_of_its_own() -> None:
    found = parse_attributes(b"IDENT=3XyZ SOURCE=remote", XFORWARD_NAMES, "XFORWARD")
    assert found == Attributes(ident="3XyZ", source="REMOTE")
    assert isinstance(parse_attributes(b"LOGIN=a", XFORWARD_NAMES, "XFORWARD"), Reply)


def test_whoever_is_not_listed_is_refused(rig: SmtpRig) -> None:
    client = greeted(rig, "198.51.100.1")
    assert b"XCLIENT" not in client.take()
    for command in (b"XCLIENT ADDR=127.0.0.1\r\n", b"XFORWARD ADDR=127.0.0.1\r\n"):
        client.feed(command)
        assert client.take() == b"550 5.7.0 Error: insufficient authorization\r\n"
    assert client.session.peer_ip == "198.51.100.1" and not client.session.trusted


def test_the_session_becomes_the_clients(rig: SmtpRig) -> None:
    client = greeted(rig)
    assert b"XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT\r\n" in client.take()
    client.feed(b"XCLIENT ADDR=198.51.100.7 NAME=mail.sender.test HELO=mail.sender.test\r\n")
    assert client.take() == b"220 mx ESMTP\r\n"
    client.say(b"EHLO mail.sender.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<bill@example.test>\r\nDATA\r\n")
    client.feed(b"\r\nx\r\n.\r\n")
    rig.settle()
    assert rig.blobs()[0].startswith(b"Received: from mail.sender.test (mail.sender.test [198.51.100.7])\r\n")


def test_trust_and_places_are_the_clients(make_rig: Make) -> None:
    rig = make_rig(
        smtpd_authorized_xclient_hosts=(PROXY,),
        mynetworks=(PROXY, "198.51.100.7"),
        smtpd_client_connection_count_limit=1,
        smtpd_client_event_limit_exceptions=(),
    )
    client = greeted(rig)
    assert client.session.trusted
    client.feed(b"XCLIENT ADDR=203.0.113.1\r\nEHLO a.test\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<x@far.test>\r\n")
    assert not client.session.trusted and b"554 5.7.1" in client.take()
    other = greeted(rig)  # the proxy's own place is free again
    other.take()
    other.feed(b"XCLIENT ADDR=203.0.113.1\r\n")
    assert other.take().startswith(b"421 4.7.0 ")
    third = greeted(rig)
    third.feed(b"XCLIENT ADDR=198.51.100.7\r\n")
    assert third.session.trusted


def test_it_may_be_said_again_but_not_in_a_transaction(rig: SmtpRig) -> None:
    client = greeted(rig)
    client.feed(b"XCLIENT ADDR=198.51.100.7\r\nXCLIENT ADDR=198.51.100.8\r\n")
    assert client.session.peer_ip == "198.51.100.8"
    client.feed(b"EHLO a.test\r\nMAIL FROM:<a@b.test>\r\n")
    client.take()
    client.feed(b"XCLIENT ADDR=198.51.100.9\r\n")
    assert client.take().startswith(b"503 ") and client.session.peer_ip == "198.51.100.8"


def test_a_login_is_the_clients(rig: SmtpRig) -> None:
    client = greeted(rig)
    client.feed(b"XCLIENT ADDR=198.51.100.7 LOGIN=ann@example.test\r\n")
    assert client.session.login == "ann@example.test"
    client.feed(b"XCLIENT LOGIN=[UNAVAILABLE]\r\n")
    assert client.session.login == "" and client.session.peer_ip == "198.51.100.7"


def test_xforward_is_for_the_log_alone(rig: SmtpRig) -> None:
    client = greeted(rig, "192.0.2.5")
    assert b"XFORWARD NAME ADDR" in client.take()
    client.feed(b"XFORWARD ADDR=198.51.100.7 IDENT=abc\r\n")
    assert client.take() == b"250 2.0.0 Ok\r\n" and client.session.peer_ip == "192.0.2.5"
    assert any(event == "smtp.xforward" and fields["orig_ident"] == "abc" for event, fields in rig.log.events)
