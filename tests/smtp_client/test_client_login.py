"""The dialog of a login (RFC 4954): when AUTH is sent, what it says, and how it ends."""

from base64 import b64encode

import pytest

from fastmta.auth.sasl_client import LoginError, Place, Secret, choose
from fastmta.smtp.client import Client
from fastmta.smtp.client_login import CHALLENGES
from fastmta.smtp.client_states import Event, State
from fastmta.smtp.transaction import Transaction
from tests.smtp_client.test_client_rules import transaction


class Bill:
    """Logs in by whatever is offered."""

    user = "bill"

    def __init__(self, password="secret", token=False):
        self.secret = Secret("bill", password, token=token)
        self.asked = []

    def choose(self, offered, *, tls):
        self.asked.append((tuple(offered), tls))
        return choose(offered, self.secret, Place("mx.test", 25), nonce=lambda: b"nonce")


def session(ehlo, credentials=None, **options):
    """A client that has read greeting and EHLO reply; with the event, and what it sent then."""
    client = Client("me.test", "mx.test[192.0.2.1]:25", credentials=credentials, tls_level="none", **options)
    client.receive(b"220 hi\r\n")
    client.output = b""
    event = client.receive(ehlo)
    sent, client.output = client.output, b""
    return client, event, sent


def say(client, text):
    event = client.receive(text.encode() + b"\r\n")
    if event is Event.LOGIN:
        try:
            client.answer(client.respond())
        except LoginError as error:
            client.login_failed(str(error))
            return Event.CLOSED, b""
    sent, client.output = client.output, b""
    return event, sent


@pytest.mark.parametrize(
    ("ehlo", "offered"),
    [
        (b"250-mx\r\n250 AUTH PLAIN LOGIN\r\n", ("PLAIN", "LOGIN")),
        (b"250-mx\r\n250-AUTH=LOGIN\r\n250 AUTH PLAIN\r\n", ("LOGIN", "PLAIN")),
        (b"250-mx\r\n250 auth plain\r\n", ("plain",)),
    ],
)
def test_a_login_begins_where_it_is_offered(ehlo, offered):
    bill = Bill()
    client, event, sent = session(ehlo, bill)
    assert event is Event.NOTHING and client.state is State.AUTH
    assert bill.asked == [(offered, False)]
    assert sent == b"AUTH PLAIN " + b64encode(b"\0bill\0secret") + b"\r\n"
    assert say(client, "235 2.7.0 welcome") == (Event.READY, b"")


@pytest.mark.parametrize("ehlo", [b"250 mx\r\n", b"250-mx\r\n250 AUTH\r\n"])
def test_no_login_where_none_is_offered(ehlo):
    client, event, sent = session(ehlo, Bill())
    assert event is Event.READY and not sent and client.login is None


def test_the_login_comes_after_tls_and_by_what_is_offered_there():
    bill = Bill()
    client = Client("me.test", "mx.test[192.0.2.1]:25", credentials=bill)
    client.receive(b"220 hi\r\n")
    assert client.receive(b"250-mx\r\n250-AUTH LOGIN\r\n250 STARTTLS\r\n") is Event.NOTHING
    assert client.receive(b"220 go\r\n") is Event.HANDSHAKE and not bill.asked
    client.tls_started()
    client.receive(b"250-mx\r\n250 AUTH PLAIN\r\n")
    assert bill.asked == [(("PLAIN",), True)]


@pytest.mark.parametrize(("length", "initial"), [(100, True), (2000, False)])
def test_a_long_initial_response_waits_for_the_challenge(length, initial):
    client, _, sent = session(b"250-mx\r\n250 AUTH XOAUTH2\r\n", Bill("t" * length, token=True))
    assert (sent == b"AUTH XOAUTH2\r\n") != initial and len(sent) <= 512
    if not initial:
        event, sent = say(client, "334 ")
        assert event is Event.LOGIN and len(sent) > length
    assert say(client, "235 ok")[0] is Event.READY


def test_an_oauth_refusal_is_answered_and_then_told():
    client, _, _ = session(b"250-mx\r\n250 AUTH XOAUTH2\r\n", Bill("token", token=True))
    event, sent = say(client, "334 " + b64encode(b'{"status":"400"}').decode())
    assert event is Event.LOGIN and sent == b"\r\n"
    assert say(client, "535 5.7.8 no")[0] is Event.CLOSED
    assert client.login_refused and str(client.failure).startswith("454 4.7.8")


@pytest.mark.parametrize(
    ("reply", "code", "refused"),
    [
        ("535 5.7.8 wrong", "454 4.7.8", True),
        ("504 5.5.4 what", "454 4.7.8", True),
        ("454 4.7.0 later", "454 4.7.0", False),
        ("250 what", "454 4.7.0", False),
        ("421 4.3.2 bye", "421 4.7.0", False),
    ],
)
def test_a_failed_login_is_a_temporary_failure_of_the_session(reply, code, refused):
    client, _, sent = session(b"250-mx\r\n250 AUTH PLAIN\r\n", Bill())
    said = sent.split()[2].decode()
    assert say(client, f"{reply} to {said}")[0] is Event.CLOSED
    assert str(client.failure).startswith(code) and client.failure.is_temporary
    assert client.login_refused == refused
    assert said not in str(client.failure)


@pytest.mark.parametrize("challenge", ["334 ***", "334 \u00e9"])
def test_a_challenge_that_is_not_base64_ends_the_session(challenge):
    client, _, _ = session(b"250-mx\r\n250 AUTH LOGIN\r\n", Bill())
    assert say(client, challenge)[0] is Event.CLOSED and client.failure.is_temporary


def test_challenges_without_end_end():
    class Patient(Bill):
        def choose(self, offered, *, tls):
            login = super().choose(offered, tls=tls)
            login.respond = lambda challenge: b"x"
            return login

    client, _, _ = session(b"250-mx\r\n250 AUTH LOGIN\r\n", Patient())
    events = [say(client, "334 eA==")[0] for _ in range(CHALLENGES + 1)]
    assert events == [Event.LOGIN] * CHALLENGES + [Event.CLOSED]


def test_where_nothing_fits_the_session_fails_before_anything_is_said():
    client, event, sent = session(b"250-mx\r\n250 AUTH GSSAPI\r\n", Bill())
    assert event is Event.CLOSED and not sent and client.login_refused
    assert "none of them can be used" in client.failure.text


@pytest.mark.parametrize("code", [530, 534, 535, 538])
@pytest.mark.parametrize("ours", [True, False])
def test_a_relay_of_ours_that_wants_a_login_defers(code, ours):
    client, _, _ = session(b"250 mx\r\n", own_relay=ours)
    tx: Transaction = transaction()
    client.start(tx)
    client.receive(b"%d 5.7.0 log in first\r\n" % code)
    assert tx.results[0] is not None and tx.results[0].is_temporary == ours
