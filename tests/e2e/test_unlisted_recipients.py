"""smtpd_reject_unlisted_recipient = no: who has no mailbox here is taken at RCPT, and his mail comes back."""

import smtplib
from pathlib import Path

import pytest

from tests.support.mail import wait_for_messages
from tests.support.server import Server

ANN, NOBODY = "ann@example.test", "nobody@example.test"


def test_mail_for_nobody_is_taken_and_comes_back(tmp_path: Path) -> None:
    with Server(tmp_path, settings={"smtpd_reject_unlisted_recipient": False}) as server:
        server.add_user(ANN, "secret")
        with smtplib.SMTP("127.0.0.1", server.port("smtp"), timeout=60) as client:
            assert client.sendmail(ANN, [NOBODY, ANN], "Subject: to nobody\r\n\r\ntext\r\n") == {}
        wait_for_messages(server, ANN, "secret", 1, subject="to nobody")
        (report,) = wait_for_messages(server, ANN, "secret", 1, subject="Undelivered Mail Returned to Sender")
        assert b"Status: 5.1.1" in report and b"nobody@example.test" in report
        with smtplib.LMTP("127.0.0.1", server.port("lmtp")) as client, pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail(ANN, [NOBODY], "Subject: x\r\n\r\n")


def test_a_list_may_refuse_them_all_the_same(tmp_path: Path) -> None:
    settings = {
        "smtpd_reject_unlisted_recipient": False,
        "smtpd_recipient_restrictions": "reject_unlisted_recipient",
    }
    with Server(tmp_path, settings=settings, services=("smtp",)) as server:
        server.add_user(ANN, "secret")
        with (
            smtplib.SMTP("127.0.0.1", server.port("smtp"), timeout=60) as client,
            pytest.raises(smtplib.SMTPRecipientsRefused),
        ):
            client.sendmail(ANN, [NOBODY], "Subject: x\r\n\r\n")
