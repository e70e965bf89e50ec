"""GNU SASL's client: SCRAM at SMTP and IMAP, without TLS, by both hashes; and that a wrong password is none."""

import pytest

from tests.interop.conftest import Account
from tests.support.mail import needs, run
from tests.support.server import Server


def _log_in(server: Server, service: str, account: Account, mechanism: str, password: str) -> tuple[int, str]:
    done = run(
        needs("gsasl"),
        *["--connect", f"{server.host}:{server.port(service)}", "--imap" if service == "imap" else "--smtp"],
        *["--mechanism", mechanism, "--authentication-id", account.user, "--password", password, "--no-starttls"],
        "--no-cb",
        stdin=b"",
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")


@pytest.mark.parametrize("service", ["imap", "smtp", "submission"])
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "SCRAM-SHA-1"])
def test_scram(server: Server, account: Account, service: str, mechanism: str) -> None:
    code, said = _log_in(server, service, account, mechanism, account.password)
    assert code == 0, said
    assert "235 2.7.0" in said or "OK [CAPABILITY" in said


@pytest.mark.parametrize("service", ["imap", "smtp"])
def test_a_wrong_password_is_refused(server: Server, account: Account, service: str) -> None:
    code, said = _log_in(server, service, account, "SCRAM-SHA-256", "wrong")
    assert code != 0
    assert "535 5.7.8" in said or "AUTHENTICATIONFAILED" in said
