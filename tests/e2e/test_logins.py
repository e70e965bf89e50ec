"""Logins with more than a password, at a running server: SCRAM, app passwords, master users, OAuth tokens."""

import base64
import imaplib
import json
import poplib
import smtplib
import socket
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from fastmta.auth.sasl_client import Place, Secret, choose
from fastmta.auth.totp import code_at
from fastmta.model.mechanisms import MECHANISMS
from tests.support.server import Server

BILL, ADMIN, PASSWORD = "bill@example.test", "admin@example.test", "secret"
KEY = ec.generate_private_key(ec.SECP256R1())
AUTH = {
    "mechanisms": [name for name in MECHANISMS if name != "EXTERNAL"],
    "failure_delay": "0s",
    "auth_master_users": [ADMIN],
    "auth_master_user_separator": "*",
    "oauth2_jwks_file": "keys.json",
    "oauth2_client_id": "mail",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("logins")
    public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(KEY.public_key()))
    (folder / "keys.json").write_text(json.dumps({"keys": [{**public, "kid": "one"}]}))
    found = Server(folder, services=("submission", "imap", "pop3"), workers=2, with_tls=False)
    for name in (BILL, ADMIN, "old@example.test"):  # made before SCRAM was offered: nobody has keys
        found.add_user(name, PASSWORD)
    found.write_config({"auth": AUTH})
    with found:
        yield found


def log_in(server: Server, mechanism: str, name: str, password: str, *, token: bool = False) -> bool:
    """Whether IMAP lets somebody in; the client's side must believe it, too."""
    login = choose([mechanism], Secret(name, password, token), Place("mx", 143), nonce=lambda: b"n" * 18)
    client = imaplib.IMAP4(server.host, server.port("imap"), timeout=60)
    first = login.start() or b""
    sent = []

    def answer(challenge: bytes) -> bytes:
        sent.append(challenge)
        return first if len(sent) == 1 else login.respond(challenge)

    try:
        client.authenticate(mechanism, answer)
    except imaplib.IMAP4.error:
        return False
    finally:
        client.shutdown()
    return login.proved()


def test_scram_works_from_the_first_plain_login_on(server: Server) -> None:
    assert not log_in(server, "SCRAM-SHA-256", "old@example.test", PASSWORD)
    assert "no SCRAM keys yet" in server.log_path.read_text()
    assert log_in(server, "PLAIN", "old@example.test", PASSWORD)
    deadline = time.monotonic() + 10
    while not log_in(server, "SCRAM-SHA-256", "old@example.test", PASSWORD):
        assert time.monotonic() < deadline
    assert log_in(server, "SCRAM-SHA-1", "old@example.test", PASSWORD)
    assert not log_in(server, "SCRAM-SHA-256", "old@example.test", "wrong")
    server.cli("user", "passwd", "old@example.test", "--password-stdin", stdin="another\n")
    assert not log_in(server, "SCRAM-SHA-256", "old@example.test", PASSWORD)
    assert log_in(server, "SCRAM-SHA-256", "old@example.test", "another")


def test_an_app_password_opens_what_it_is_for_until_it_is_deleted(server: Server) -> None:
    made = server.cli("app-password", "add", BILL, "phone", "--protocol", "imap").stdout.strip()
    assert log_in(server, "PLAIN", BILL, made)
    client = poplib.POP3(server.host, server.port("pop3"), timeout=60)
    client.user(BILL)
    with pytest.raises(poplib.error_proto):
        client.pass_(made)
    client.close()
    server.cli("app-password", "delete", BILL, "phone")
    assert not log_in(server, "PLAIN", BILL, made)
    assert log_in(server, "PLAIN", BILL, PASSWORD)


def test_a_master_user_opens_another_account_and_the_log_names_both(server: Server) -> None:
    client = poplib.POP3(server.host, server.port("pop3"), timeout=60)
    client.user(f"{BILL}*{ADMIN}")
    client.pass_(PASSWORD)
    client.quit()
    line = next(each for each in server.log_path.read_text().splitlines() if "auth.master" in each)
    assert ADMIN in line
    assert BILL in line
    assert not log_in(server, "PLAIN", f"{ADMIN}*{BILL}", PASSWORD)


def test_disabling_a_master_user_ends_what_he_has_opened_and_nothing_else(server: Server) -> None:
    opened, own = (imaplib.IMAP4(server.host, server.port("imap"), timeout=60) for _ in range(2))
    opened.authenticate("PLAIN", lambda _: f"{BILL}\0{ADMIN}\0{PASSWORD}".encode())
    own.login(BILL, PASSWORD)
    drop = poplib.POP3(server.host, server.port("pop3"), timeout=60)
    drop.user(f"{BILL}*{ADMIN}")
    drop.pass_(PASSWORD)
    server.cli("user", "disable", ADMIN)
    try:
        assert opened.readline().startswith(b"* BYE ")
        assert drop._getline()[0].startswith(b"-ERR ")  # type: ignore[attr-defined]
        assert own.noop()[0] == "OK"
    finally:
        server.cli("user", "enable", ADMIN)
    for client in (opened, own):
        client.shutdown()
    drop.close()


def test_who_is_no_master_user_after_a_reload_loses_what_he_has_opened(server: Server) -> None:
    opened, own = (imaplib.IMAP4(server.host, server.port("imap"), timeout=60) for _ in range(2))
    opened.authenticate("PLAIN", lambda _: f"{BILL}\0{ADMIN}\0{PASSWORD}".encode())
    own.login(BILL, PASSWORD)
    server.write_config({"auth": {**AUTH, "auth_master_users": ["somebody@example.test"]}})
    server.cli("reload")
    try:
        assert opened.readline().startswith(b"* BYE ")
        assert own.noop()[0] == "OK"
    finally:
        server.write_config({"auth": AUTH})
        server.cli("reload")
    for client in (opened, own):
        client.shutdown()


def token(**claims: object) -> str:
    body = {"email": BILL, "aud": "mail", "exp": int(time.time()) + 60, **claims}
    return jwt.encode(body, KEY, "ES256", headers={"kid": "one"})


@pytest.mark.parametrize("mechanism", ["OAUTHBEARER", "XOAUTH2"])
def test_a_token_of_the_issuer_opens_its_user(server: Server, mechanism: str) -> None:
    assert log_in(server, mechanism, BILL, token(), token=True)
    assert not log_in(server, mechanism, ADMIN, token(), token=True)
    assert not log_in(server, mechanism, BILL, token(aud="web"), token=True)


def test_submission_takes_tokens_too(server: Server) -> None:
    with smtplib.SMTP(server.host, server.port("submission"), timeout=60) as client:
        client.ehlo()
        assert set(client.esmtp_features["auth"].split()) == set(MECHANISMS) - {"EXTERNAL"}
        message = f"n,a={BILL},\x01auth=Bearer {token()}\x01\x01".encode()
        assert client.docmd("AUTH", "OAUTHBEARER " + b64encode(message).decode())[0] == 235


def test_a_one_time_code_opens_once_over_two_workers(tmp_path: Path) -> None:
    server = Server(tmp_path, services=("imap",), workers=2, with_tls=False)
    server.add_user("bill@example.test", "secret")
    with server:
        secret = server.cli("user", "totp", "add", "bill@example.test").stdout.split()[0]
        now = int(time.time())
        code = code_at(base64.b32decode(secret), now // 30 + (now % 30 >= 15))  # good for 15 s at least
        answers = []
        for password in ("secret", *["secret" + code] * 4):
            with imaplib.IMAP4(server.host, server.port("imap"), timeout=60) as client:
                try:
                    answers.append(client.login("bill@example.test", password)[0])
                except imaplib.IMAP4.error:
                    answers.append("NO")
        assert answers == ["NO", "OK", "NO", "NO", "NO"]
        server.cli("user", "totp", "remove", "bill@example.test")
        with imaplib.IMAP4(server.host, server.port("imap"), timeout=60) as client:
            assert client.login("bill@example.test", "secret")[0] == "OK"


@pytest.mark.parametrize(
    ("mechanism", "message", "words"),
    [
        ("OAUTHBEARER", f"n,a={BILL},\x01auth=Bearer bad\x01\x01", {"status": "invalid_token"}),
        ("XOAUTH2", f"user={BILL}\x01auth=Bearer bad\x01\x01", {"status": "401", "schemes": "bearer"}),
    ],
)
def test_what_is_wrong_with_a_token_is_said_before_it_is_refused(
    server: Server, mechanism: str, message: str, words: dict[str, str]
) -> None:
    encoded = b64encode(message.encode())
    dialogs = (
        ("imap", b"a AUTHENTICATE ", b"+ ", b"a NO [AUTHENTICATIONFAILED]", b"a NOOP", b"a OK"),
        ("pop3", b"AUTH ", b"+ ", b"-ERR [AUTH]", b"CAPA", b"+OK"),
        ("submission", b"AUTH ", b"334 ", b"535 5.7.8", b"NOOP", b"250"),
    )
    for service, command, lead, failure, further, answer in dialogs:
        with socket.create_connection((server.host, server.port(service)), timeout=60) as client:
            file = client.makefile("rwb")
            assert file.readline()
            if service == "submission":
                client.sendall(b"EHLO client.test\r\n")
                while not file.readline().startswith(b"250 "):
                    pass
            client.sendall(command + mechanism.encode() + b" " + encoded + b"\r\n")
            challenge = file.readline()
            assert challenge.startswith(lead), challenge
            assert json.loads(base64.b64decode(challenge[len(lead) :])) == words
            client.sendall(b"AQ==\r\n" if mechanism == "OAUTHBEARER" else b"*\r\n")
            assert file.readline().startswith(failure)
            client.sendall(further + b"\r\n")
            assert file.readline().startswith(answer)
            file.close()
