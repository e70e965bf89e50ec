"""Row 22: who says to be another peer, by XCLIENT, XFORWARD or the PROXY protocol, stays who it is."""

import pytest

from tests.support.smtp_rig import SmtpRig

STRANGER, NEIGHBOUR = "198.51.100.1", "127.0.0.1"


@pytest.mark.parametrize(
    "line",
    [
        b"XCLIENT ADDR=127.0.0.1 NAME=localhost\r\n",
        b"XCLIENT ADDR=127.0.0.1 LOGIN=bill@example.test\r\n",
        b"XFORWARD ADDR=127.0.0.1 NAME=localhost PROTO=ESMTP HELO=me SOURCE=LOCAL\r\n",
    ],
)
@pytest.mark.parametrize("peer", [STRANGER, NEIGHBOUR])
def test_no_command_makes_a_client_another(rig: SmtpRig, peer: str, line: bytes) -> None:
    client = rig.connect(ip=peer).start()
    assert not any(word in client.say(b"EHLO me\r\n") for word in (b"XCLIENT", b"XFORWARD"))
    assert 500 <= client.codes(line)[0] < 600
    may_relay = 250 if peer == NEIGHBOUR else 554
    assert client.codes(b"MAIL FROM:<a@b>\r\n" + line + b"RCPT TO:<x@elsewhere.test>\r\n")[::2] == [250, may_relay]


@pytest.mark.parametrize(
    "head",
    [
        b"PROXY TCP4 127.0.0.1 127.0.0.1 40000 25\r\n",
        b"PROXY UNKNOWN\r\n",
        b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01\x9c\x40\x00\x19\r\n",
    ],
)
@pytest.mark.parametrize("service", ["smtp", "submission", "lmtp"])
def test_a_proxy_header_from_nobody_that_is_listed_is_no_address(rig: SmtpRig, service: str, head: bytes) -> None:
    client = rig.connect(service, ip=STRANGER)
    client.take()
    said = client.say(head)
    assert b"250" not in said
    assert client.transport.closed or said.startswith(b"5"), said
    if not client.transport.closed:
        client.say((b"LHLO" if service == "lmtp" else b"EHLO") + b" me\r\n")
        codes = client.codes(b"MAIL FROM:<a@b>\r\nRCPT TO:<x@elsewhere.test>\r\n")
        assert not codes or codes[-1] >= 500
