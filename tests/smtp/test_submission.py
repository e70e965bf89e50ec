"""Submission: login first, the sender is one's own, what a message lacks is added; and AUTH."""

import asyncio
import base64
import re

import pytest

from tests.support.smtp_rig import Client, SmtpRig

OPEN = b"MAIL FROM:<bill@example.test>\r\nRCPT TO:<x@elsewhere.test>\r\n"


def plain(user: str, password: str, authzid: str = "") -> bytes:
    return base64.b64encode(f"{authzid}\0{user}\0{password}".encode())


GOOD = b"AUTH PLAIN " + plain("bill@example.test", "secret") + b"\r\n"


def submit(rig: SmtpRig, ip: str = "198.51.100.1") -> Client:
    client = rig.connect("submission", ip, tls=True).start()
    assert client.codes(GOOD) == [235]
    return client


def test_mail_needs_a_login_even_from_a_neighbour(rig: SmtpRig) -> None:
    client = rig.connect("submission", "127.0.0.1").start()
    assert client.say(b"MAIL FROM:<bill@example.test>\r\n") == b"530 5.7.0 Authentication required\r\n"


def test_who_is_logged_in_may_relay(rig: SmtpRig) -> None:
    assert submit(rig).codes(OPEN) == [250, 250]


def test_a_foreign_sender_is_553(rig: SmtpRig) -> None:
    answer = submit(rig).say(b"MAIL FROM:<ted@example.test>\r\n")
    assert answer.startswith(b"553 5.7.1 <ted@example.test>: Sender address rejected")


@pytest.mark.parametrize(
    ("header", "added"),
    [
        (b"Subject: x\r\n", {b"Date", b"Message-ID"}),
        (b"date: today\r\n", {b"Message-ID"}),
        (b"Message-Id: <1@x>\r\nDate: today\r\n", set()),
    ],
)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_missing_date_and_message_id_are_added(rig: SmtpRig, header: bytes, added: set[bytes], step: int) -> None:
    client = submit(rig)
    client.say(OPEN + b"DATA\r\n")
    message = header + b"\r\nDate: in the body\r\n.\r\n"
    for i in range(0, len(message), step):
        client.say(message[i : i + step])
    (blob,) = rig.blobs()
    found, _, body = blob.partition(b"\r\n\r\n")
    fields = re.findall(rb"^([A-Za-z-]+):", found, re.M)
    assert set(fields) - {b"Received"} - set(re.findall(rb"^([A-Za-z-]+):", header, re.M)) == added
    assert found.count(header.strip()) == 1 and body == b"Date: in the body\r\n"


def test_a_message_without_header_gets_one(rig: SmtpRig) -> None:
    client = submit(rig)
    client.say(OPEN + b"DATA\r\nhello there\r\n.\r\n")
    assert rig.blobs()[0].partition(b"\r\n\r\n")[2] == b"hello there\r\n"


def test_a_header_without_body_gets_its_fields_too(rig: SmtpRig) -> None:
    client = submit(rig)
    client.say(OPEN + b"DATA\r\nSubject: x\r\n.\r\n")
    assert re.search(rb"\r\nDate: .*\r\nMessage-ID: <.*@mx.example.test>\r\nSubject: x\r\n\Z", rig.blobs()[0])


def test_nothing_is_added_on_the_smtp_port(rig: SmtpRig) -> None:
    client = rig.connect().start()
    client.say(OPEN + b"DATA\r\nSubject: x\r\n\r\n.\r\n")
    assert rig.blobs()[0].endswith(b"\r\nSubject: x\r\n\r\n")


# --- AUTH ---


def test_plain_with_and_without_initial_response(rig: SmtpRig) -> None:
    client = rig.connect().start()
    assert client.say(b"AUTH PLAIN\r\n") == b"334 \r\n"
    assert client.codes(plain("bill@example.test", "secret") + b"\r\n") == [235]
    assert client.session.login == "bill@example.test"


def test_login_asks_for_name_and_password(rig: SmtpRig) -> None:
    client = rig.connect().start()
    assert client.say(b"AUTH LOGIN\r\n") == b"334 VXNlcm5hbWU6\r\n"
    assert client.say(base64.b64encode(b"bill@example.test") + b"\r\n") == b"334 UGFzc3dvcmQ6\r\n"
    assert client.codes(base64.b64encode(b"secret") + b"\r\n") == [235]


def test_a_second_login_is_503(rig: SmtpRig) -> None:
    assert rig.connect().start().codes(GOOD + GOOD) == [235, 503]


def test_login_in_a_transaction_is_503(rig: SmtpRig) -> None:
    assert rig.connect().start().codes(b"MAIL FROM:<a@b>\r\n" + GOOD) == [250, 503]


def test_login_after_helo_is_503(rig: SmtpRig) -> None:
    assert rig.connect().start(b"HELO x").codes(GOOD) == [503]


def test_without_tls_from_afar_a_password_is_538_and_auth_is_not_offered(rig: SmtpRig) -> None:
    client = rig.connect(ip="198.51.100.1")
    assert b"AUTH" not in client.say(b"EHLO x.test\r\n")
    assert client.codes(GOOD) == [538]


@pytest.mark.parametrize(
    ("lines", "codes"),
    [
        (b"AUTH\r\n", [501]),
        (b"AUTH CRAM-MD5\r\n", [504]),
        (b"AUTH PLAIN !!!\r\n", [501]),
        (b"AUTH PLAIN AAAA\r\n", [501]),
        (b"AUTH PLAIN x y\r\n", [501]),
        (b"AUTH PLAIN =\r\n", [501]),
        (b"AUTH PLAIN\r\n*\r\n", [334, 501]),
        (b"AUTH LOGIN\r\n*\r\n", [334, 501]),
        (b"AUTH PLAIN\r\n" + b"A" * 12_276 + b"\r\n", [334, 501]),
        (b"AUTH PLAIN\r\n" + b"A" * 20_000 + b"\r\n", [334, 500]),
    ],
)
def test_bad_exchanges_leave_the_session_usable(rig: SmtpRig, lines: bytes, codes: list[int]) -> None:
    client = rig.connect().start()
    assert client.codes(lines) == codes
    assert client.codes(GOOD) == [235]


def test_an_unknown_user_and_a_wrong_password_read_the_same(rig: SmtpRig) -> None:
    answers = set()
    for user in ("bill@example.test", "nobody@example.test"):
        client = rig.connect().start()
        client.feed(b"AUTH PLAIN " + plain(user, "wrong") + b"\r\n")
        asyncio.run(rig.tasks.spawned.pop())
        answers.add(client.take())
    assert answers == {b"535 5.7.8 Authentication credentials invalid\r\n"}


def test_a_third_failed_login_ends_the_session(rig: SmtpRig) -> None:
    client = rig.connect().start()
    bad = b"AUTH PLAIN " + plain("bill@example.test", "wrong") + b"\r\n"
    for expected in (535, 535, 421):
        client.feed(bad)
        asyncio.run(rig.tasks.spawned.pop())
        assert int(client.take()[:3]) == expected
    assert client.ended


def test_commands_behind_a_slow_check_wait_for_it(rig: SmtpRig) -> None:
    rig.authenticator.slow = True
    client = rig.connect().start()
    client.feed(GOOD + b"NOOP\r\n")
    client.feed(b"MAIL FROM:<bill@example.test>\r\n")
    assert client.take() == b""
    asyncio.run(rig.tasks.spawned.pop())
    assert re.findall(rb"^\d\d\d", client.take(), re.M) == [b"235", b"250", b"250"]


def test_a_client_that_leaves_during_a_check_is_forgotten(rig: SmtpRig) -> None:
    rig.authenticator.slow = True
    client = rig.connect().start()
    client.feed(GOOD)
    client.lose()
    asyncio.run(rig.tasks.spawned.pop())
    assert client.take() == b"" and rig.server.checks == {}


def test_a_password_never_reaches_the_log(rig: SmtpRig) -> None:
    client = rig.connect().start()
    client.say(GOOD)
    client.say(OPEN + b"DATA\r\nx\r\n.\r\n")
    assert "secret" not in repr(rig.log.events) + repr(rig.log.lines)
    assert b'"login":"bill@example.test"' in rig.log.lines[0]
