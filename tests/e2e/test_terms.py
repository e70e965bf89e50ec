"""REQUIRETLS, DELIVERBY and FUTURERELEASE at the server: offered, refused where badly said, kept and told."""

import contextlib
import datetime
import smtplib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mail import wait_for_messages
from tests.support.server import Server
from tests.support.waiting import wait_for

ANN, BOB = "ann@example.test", "bob@example.test"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {
        "transport": {"away.example": "hold:"},
        "smtpd_future_release_limit": "1d",
        "smtpd_hard_error_limit": 1000,
    }
    with Server(tmp_path_factory.mktemp("terms"), settings=settings) as running:
        for user in (ANN, BOB):
            running.add_user(user, "secret")
        yield running


@contextlib.contextmanager
def session(server: Server, service: str = "submission", *, tls: bool = True) -> Iterator[smtplib.SMTP]:
    with smtplib.SMTP("127.0.0.1", server.port(service), timeout=60) as client:
        client.ehlo()
        if tls:
            client.starttls(context=ssl._create_unverified_context())
            client.ehlo()
        if service == "submission":
            client.login(ANN, "secret")
        yield client


def test_each_is_offered_where_it_can_be_kept(server: Server) -> None:
    with session(server, "smtp", tls=False) as client:
        assert client.has_extn("deliverby") and not client.has_extn("requiretls")
        assert not client.has_extn("futurerelease")
    with session(server, "smtp") as client:
        assert client.has_extn("requiretls")
    with session(server) as client:
        assert client.has_extn("requiretls") and client.has_extn("deliverby")
        seconds, until = client.esmtp_features["futurerelease"].split()
        assert seconds == "86400" and datetime.datetime.fromisoformat(until) > datetime.datetime.now(datetime.UTC)


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("REQUIRETLS", 250),
        ("REQUIRETLS=1", 501),
        ("REQUIRETLS REQUIRETLS", 501),
        ("BY=100;R", 250),
        ("by=-5;nt", 250),
        ("BY=+5;RT", 250),
        ("BY=0;R", 501),
        ("BY=-1;R", 501),
        ("BY=1", 501),
        ("BY", 501),
        ("BY=1;X", 501),
        ("BY=1234567890;N", 501),
        ("BY=1;N;T", 501),
        ("HOLDFOR=86400", 250),
        ("HOLDFOR=86401", 501),
        ("HOLDFOR=-1", 501),
        ("HOLDFOR=1e3", 501),
        ("HOLDFOR=99999999999999999999", 501),
        ("HOLDFOR", 501),
        ("HOLDUNTIL=2001-01-01T00:00:00Z", 250),
        ("HOLDUNTIL=9999-12-31T23:59:59Z", 501),
        ("HOLDUNTIL=0000-00-00T00:00:00Z", 501),
        ("HOLDUNTIL=0001-01-01T00:00:00+23:59", 501),
        ("HOLDUNTIL=2030-01-01", 501),
        ("HOLDUNTIL=2030-01-01T00:00:00", 501),
        ("HOLDFOR=1 HOLDUNTIL=2001-01-01T00:00:00Z", 501),
        ("HOLDFOR=1 BY=5;N REQUIRETLS SIZE=100", 250),
    ],
)
def test_what_is_said_is_taken_or_refused(server: Server, said: str, code: int) -> None:
    with session(server) as client:
        assert client.docmd(f"MAIL FROM:<{ANN}> {said}")[0] == code
        assert client.docmd("RCPT", f"TO:<{BOB}>")[0] == (250 if code == 250 else 503)


@pytest.mark.parametrize(
    ("service", "tls", "said"), [("smtp", False, "REQUIRETLS"), ("smtp", True, "HOLDFOR=1"), ("lmtp", False, "BY=5;N")]
)
def test_what_is_not_offered_is_unknown(server: Server, service: str, tls: bool, said: str) -> None:
    with smtplib.SMTP("127.0.0.1", server.port(service), timeout=60) as client:
        client.docmd("LHLO" if service == "lmtp" else "EHLO", "x")
        if tls:
            client.starttls(context=ssl._create_unverified_context())
            client.docmd("EHLO", "x")
        assert client.docmd(f"MAIL FROM:<a@b.example> {said}")[0] == 555


def test_mail_that_is_to_wait_waits_and_all_of_it_is_told(server: Server) -> None:
    with session(server) as client:
        for recipient in (BOB, "someone@away.example"):
            client.sendmail(
                ANN, [recipient], "Subject: later\r\n\r\ntext\r\n", ["HOLDFOR=7200", "BY=60;R", "REQUIRETLS"]
            )
    rows = server.queue()
    (local,) = [row for row in rows if row["recipient"] == BOB]
    assert local["state"] == "active"
    shown = server.cli("queue", "show", local["queue_id"]).stdout
    assert "requiretls        yes" in shown and " R\n" in shown.partition("deliver_by")[2]
    assert "release_at" in shown
    told = server.cli("explain", "--id", local["queue_id"]).stdout
    assert "FUTURERELEASE" in told and "deliver_by" in told and "until" in told
    wait_for(lambda: "smtp.terms" in server.cli("trace", "--id", local["queue_id"]).stdout, "the trace")
    assert "release_at" in server.cli("trace", "--id", local["queue_id"]).stdout


def test_mail_arrives_when_its_time_has_come(server: Server) -> None:
    with session(server) as client:
        client.sendmail(ANN, [BOB], "Subject: soon\r\n\r\ntext\r\n", ["HOLDFOR=2"])
        client.sendmail(ANN, [BOB], "Subject: past\r\n\r\ntext\r\n", ["HOLDUNTIL=2001-01-01T00:00:00Z"])
    (past,) = wait_for_messages(server, BOB, "secret", 1, subject="past")
    assert b"Return-Path: <ann@example.test>" in past
    wait_for_messages(server, BOB, "secret", 1, subject="soon")


def test_an_extension_may_be_turned_off(tmp_path: Path) -> None:
    settings = {"smtpd_discard_ehlo_keywords": "deliverby, chunking", "smtpd_future_release_limit": 0}
    with Server(tmp_path, settings=settings, services=("smtp", "submission")) as server:
        server.add_user(ANN, "secret")
        with session(server) as client:
            assert not any(map(client.has_extn, ("deliverby", "futurerelease", "chunking")))
            assert client.docmd(f"MAIL FROM:<{ANN}> BY=5;N")[0] == 555
            assert client.docmd(f"MAIL FROM:<{ANN}> HOLDFOR=5")[0] == 555
