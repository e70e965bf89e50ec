"""swaks, the administrators' SMTP client: plain, TLS, AUTH, pipelining, LMTP; relaying only for those who may."""

import pytest

from tests.interop.conftest import Account
from tests.support.mail import letter, messages, needs, run
from tests.support.server import Server

STRANGER = "127.0.0.9"  # a loopback address outside mynetworks
AUTH_REFUSED = 28  # swaks' exit code
RCPT_REFUSED = 24


def _swaks(server: Server, service: str, to: str, message: bytes, *options: str, check: bool = True) -> tuple[int, str]:
    done = run(
        needs("swaks"),
        *["--server", server.host, "--port", str(server.port(service)), "--to", to],
        *["--from", "sender@client.example", "--helo", "client.example", "--data", "-", "--timeout", "20"],
        *options,
        stdin=message,
        check=check,
    )
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")


def _assert_delivered(account: Account, server: Server, message: bytes) -> None:
    found = messages(server, *account)
    assert len(found) == 1
    # swaks ends its data with one empty line more than it was given
    assert found[0].rstrip(b"\r\n").endswith(message.rstrip(b"\r\n"))


def test_plain(server: Server, account: Account) -> None:
    message = letter("plain")
    _swaks(server, "smtp", account.user, message)
    _assert_delivered(account, server, message)


def test_helo_without_esmtp(server: Server, account: Account) -> None:
    message = letter("old")
    _swaks(server, "smtp", account.user, message, "--protocol", "SMTP")
    _assert_delivered(account, server, message)


def test_starttls(server: Server, account: Account) -> None:
    message = letter("starttls")
    _, said = _swaks(server, "smtp", account.user, message, "--tls")
    assert "TLS started" in said
    _assert_delivered(account, server, message)


def test_implicit_tls(server: Server, account: Account) -> None:
    message = letter("implicit")
    options = ["--tls-on-connect", "--auth", "PLAIN", "--auth-user", account.user, "--auth-password", account.password]
    _swaks(server, "submissions", account.user, message, *options, "--from", account.user)
    _assert_delivered(account, server, message)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_auth_over_starttls(server: Server, account: Account, mechanism: str) -> None:
    message = letter(f"auth {mechanism}")
    options = ["--tls", "--auth", mechanism, "--auth-user", account.user, "--auth-password", account.password]
    _swaks(server, "submission", account.user, message, *options, "--from", account.user)
    _assert_delivered(account, server, message)


@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN"])
def test_a_wrong_password_is_refused(server: Server, account: Account, mechanism: str) -> None:
    options = ["--tls", "--auth", mechanism, "--auth-user", account.user, "--auth-password", "wrong"]
    code, said = _swaks(server, "submission", account.user, letter("no"), *options, check=False)
    assert code == AUTH_REFUSED, said
    assert " 535 5.7.8" in said
    assert messages(server, *account) == []


def test_pipelining(server: Server, account: Account) -> None:
    message = letter("pipelined")
    _swaks(server, "smtp", account.user, message, "--pipeline")
    _assert_delivered(account, server, message)


def test_two_recipients_one_unknown(server: Server, account: Account) -> None:
    message = letter("two")
    _, said = _swaks(server, "smtp", f"{account.user},nobody-here@example.test", message)
    assert "550 5.1.1" in said
    _assert_delivered(account, server, message)


def test_lmtp(server: Server, account: Account) -> None:
    message = letter("lmtp")
    _, said = _swaks(server, "lmtp", account.user, message, "--protocol", "LMTP")
    assert "LHLO" in said
    _assert_delivered(account, server, message)


def test_a_stranger_may_not_relay(server: Server) -> None:
    options = ["--local-interface", STRANGER]
    code, said = _swaks(server, "smtp", "someone@elsewhere.example", letter("relay"), *options, check=False)
    assert code == RCPT_REFUSED, said
    assert " 554 5.7.1" in said


def test_a_stranger_reaches_local_mailboxes(server: Server, account: Account) -> None:
    message = letter("from outside")
    _swaks(server, "smtp", account.user, message, "--local-interface", STRANGER)
    _assert_delivered(account, server, message)


def test_a_message_over_the_limit_is_refused(server: Server, account: Account) -> None:
    code, said = _swaks(
        server, "smtp", account.user, letter("big", body="x" * 70 + "\r\n" + ("y" * 70 + "\r\n") * 30_000), check=False
    )
    assert code != 0
    assert " 552 5.3.4" in said
    assert messages(server, *account) == []
