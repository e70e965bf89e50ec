"""Bcc and Resent-Bcc of submitted mail are not passed on, however the bytes are cut; all else stays as it came."""

import random

import pytest

from tests.support.smtp_rig import Client, SmtpRig

LOGIN = b"AUTH PLAIN AGJpbGxAZXhhbXBsZS50ZXN0AHNlY3JldA==\r\n"
OPEN = b"MAIL FROM:<bill@example.test>\r\nRCPT TO:<x@relay.test>\r\nDATA\r\n"
TAIL = b"Date: d\r\nMessage-ID: <m@x>\r\n"


def without_blind_fields(message: bytes) -> bytes:
    """The rule, slowly: the oracle."""
    header, blank, body = message.partition(b"\r\n\r\n")
    kept: list[bytes] = []
    dropping = False
    for line in header.split(b"\r\n"):
        if line[:1] not in (b" ", b"\t"):
            dropping = line.partition(b":")[0].rstrip(b" \t").lower() in (b"bcc", b"resent-bcc") and b":" in line
        if not dropping:
            kept.append(line)
    return b"\r\n".join(kept) + blank + body


def logged_in(rig: SmtpRig, service: str = "submission") -> Client:
    client = rig.connect(service, tls=True).start()
    assert client.codes(LOGIN) == [235]
    return client


def stored(client: Client, pieces: list[bytes]) -> bytes:
    assert client.codes(OPEN)[-1] == 354
    for piece in pieces:
        client.feed(piece)
    assert client.say(b".\r\n").startswith(b"250 ")
    blob = client.rig.blobs()[-1]
    head, _, rest = blob.partition(b"; ")
    assert head.startswith(b"Received: ")
    return rest.partition(b"\r\n")[2]


MESSAGES = [
    b"Bcc: a@b\r\nTo: c@d\r\n" + TAIL + b"\r\nBcc: in the body\r\n",
    b"To: c@d\r\nBCC:a@b,\r\n\tc@d,\r\n e@f\r\nSubject: s\r\n" + TAIL + b"\r\nx\r\n",
    TAIL + b"bcc : a@b\r\nResent-BCC: a@b\r\nBcc:\r\n\r\nx\r\n",
    b"Bccx: a\r\nBc: b\r\nX-Bcc: c\r\nResent-Bcc-X: d\r\nBcc-: e\r\nResent-: f\r\n" + TAIL + b"\r\nx\r\n",
    b"Bcc: a@b\r\nBcc: c@d\r\n e\r\nTo: t\r\n f\r\nbCc: g\r\n" + TAIL + b"\r\n",
    b"Subject: s\r\n Bcc: folded, not a field\r\n" + TAIL + b"\r\nx\r\n",
]


@pytest.mark.parametrize("message", MESSAGES)
def test_blind_fields_are_gone_in_one_read_byte_by_byte_and_at_every_split(rig: SmtpRig, message: bytes) -> None:
    client = logged_in(rig)
    expected = without_blind_fields(message)
    assert stored(client, [message]) == expected
    assert stored(client, [message[n : n + 1] for n in range(len(message))]) == expected
    for cut in range(1, len(message), 3):
        assert stored(client, [message[:cut], message[cut:]]) == expected


def test_random_headers_in_random_pieces_lose_their_blind_fields_alone(rig: SmtpRig) -> None:
    draw = random.Random(7)
    client = logged_in(rig)
    names = [b"Bcc", b"Resent-Bcc", b"To", b"B", b"Bcd", b"Resent-To", b"Bcc ", b"bcc\t "]
    for _ in range(60):
        fields = [
            draw.choice(names) + b":" + draw.choice([b"", b" a@b", b" a,\r\n\tb", b"\r\n Bcc: c"]) + b"\r\n"
            for _ in range(draw.randrange(1, 9))
        ]
        message = b"".join(fields) + TAIL + draw.choice([b"\r\n", b"\r\nBcc: body\r\n"])
        pieces, at = [], 0
        while at < len(message):
            size = draw.randrange(1, 40)
            pieces.append(message[at : at + size])
            at += size
        assert stored(client, pieces) == without_blind_fields(message)


def test_a_message_that_is_all_header_loses_its_last_blind_field_too(rig: SmtpRig) -> None:
    client = logged_in(rig)
    body = stored(client, [TAIL + b"Bcc: a@b\r\n"])
    assert b"a@b" not in body and body.startswith(TAIL)
    assert stored(client, [TAIL, b"Bc", b"c\r\n"]).startswith(TAIL), "a line that is no field ends the header"


@pytest.mark.parametrize(
    ("service", "tls", "gone"), [("smtp", True, True), ("smtp", False, False), ("lmtp", False, False)]
)
def test_only_submitted_mail_loses_bcc(rig: SmtpRig, service: str, tls: bool, gone: bool) -> None:
    """Logged in on port 25 is submitted; what other servers pass on stays byte for byte."""
    if tls:
        client = logged_in(rig, service)
    else:
        client = rig.connect(service).start(b"LHLO me" if service == "lmtp" else b"EHLO me")
    assert (b"Bcc: a@b" not in stored(client, [b"Bcc: a@b\r\nTo: t\r\n\r\nx\r\n"])) is gone


def test_bdat_loses_bcc_as_data_does(rig: SmtpRig) -> None:
    client = logged_in(rig)
    message = b"To: t\r\nBcc: a@b\r\n" + TAIL + b"\r\nx\r\n"
    client.say(OPEN[: -len(b"DATA\r\n")])
    first = message[:9]
    client.say(b"BDAT %d\r\n" % len(first) + first)
    rest = message[9:]
    assert client.say(b"BDAT %d LAST\r\n" % len(rest) + rest).startswith(b"250 ")
    assert rig.blobs()[-1].endswith(b"\r\nTo: t\r\n" + TAIL + b"\r\nx\r\n")
