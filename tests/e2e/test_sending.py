"""What a login may send: quotas for it and for its domain, exact over two workers and kept; and its own From only."""

import smtplib
import ssl
from collections.abc import Iterator

import pytest

from tests.support.server import Server

ANN, BOB = "ann@example.test", "bob@example.test"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {
        "smtpd_peername_lookup": False,
        "virtual_mailbox_domains": ["other.test"],
        "login_messages_per_hour": 3,
        "login_recipients_per_day": 5,
        "login_domain_messages_per_day": 5,
        "smtpd_reject_from_login_mismatch": True,
    }
    with Server(tmp_path_factory.mktemp("sending"), settings=settings, workers=2) as running:
        for user in (ANN, BOB, "carl@other.test"):
            running.add_user(user, "secret")
        yield running


def submit(server: Server, login: str, to: list[str], *, text: str = "") -> tuple[int, bytes]:
    with smtplib.SMTP(server.host, server.port("submission"), timeout=60) as client:
        client.starttls(context=ssl._create_unverified_context())
        client.login(login, "secret")
        try:
            client.sendmail(login, to, text or f"From: <{login}>\r\nSubject: x\r\n\r\ntext\r\n")
        except smtplib.SMTPResponseException as refusal:
            return refusal.smtp_code, refusal.smtp_error
    return 250, b""


def test_messages_and_recipients_are_counted_for_the_login_and_its_domain(server: Server) -> None:
    for _ in range(3):
        assert submit(server, ANN, [BOB])[0] == 250
    code, said = submit(server, ANN, [BOB])
    assert code == 450
    assert b"login_messages_per_hour" in said
    server.stop()
    server.start()
    assert submit(server, ANN, [BOB])[0] == 450, "kept over a restart"
    code, said = submit(server, BOB, [ANN] + [f"nobody{n}@elsewhere.test" for n in range(6)])
    assert code == 450 and b"login_" in said


@pytest.mark.parametrize(
    "header",
    [
        "From: eve@example.test",
        "From: <bob@example.test>",
        'From: "carl@other.test" <eve@bank.test>',
        "From: carl@other.test, eve@bank.test",
        "From: carl@other.test\r\nFrom: eve@bank.test",
        "From: carl@other.test <eve@bank.test>",
    ],
)
def test_another_from_is_refused(server: Server, header: str) -> None:
    code, said = submit(server, "carl@other.test", [ANN], text=f"{header}\r\nSubject: x\r\n\r\ntext\r\n")
    assert code in (450, 553), said
    if code == 553:
        assert b"From address rejected: not owned by user carl@other.test" in said


def test_the_logins_own_from_is_taken_in_any_form(server: Server) -> None:
    server.write_config(
        {"login_messages_per_hour": 0, "login_recipients_per_day": 0, "login_domain_messages_per_day": 0}
    )
    server.cli("reload")
    for header in (
        "From: Carl <carl@other.test>",
        'From: "Carl, the" <CARL@other.test>',
        "From: carl@other.test (Carl)",
    ):
        assert submit(server, "carl@other.test", [ANN], text=f"{header}\r\nSubject: x\r\n\r\ntext\r\n")[0] == 250
