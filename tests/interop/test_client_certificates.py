"""swaks and openssl with client certificates: relaying by fingerprint, a reread file, and who is asked."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.authority import Issued, issue
from tests.support.mail import letter, needs, run
from tests.support.server import Server

pytestmark = pytest.mark.interop
STRANGER = "127.0.0.9"  # a loopback address outside mynetworks
BRANCH = issue(["branch.example.test"])
SETTINGS = {
    "mynetworks": ["127.0.0.1/32"],
    "delivery": {"defer_transports": ["smtp"]},
    "smtpd_relay_restrictions": ["permit_tls_clientcerts", "reject_unauth_destination"],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("certificates")
    BRANCH.write(directory, "branch")
    (directory / "clientcerts").write_text(f"{BRANCH.fingerprint()} branch\n")
    settings = {
        **SETTINGS,
        "relay_clientcerts": f"hash:{directory}/clientcerts",
        "tls": {"smtpd_tls_ask_ccert": True},
    }
    with Server(directory, settings=settings) as running:
        yield running


def _relay(server: Server, *options: str) -> tuple[int, str]:
    done = run(
        needs("swaks"),
        *["--server", server.host, "--port", str(server.port("smtp")), "--to", "x@elsewhere.example", "--tls"],
        *["--from", "a@client.example", "--local-interface", STRANGER, "--data", "-", "--timeout", "20", *options],
        stdin=letter("by certificate"),
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")


def _with(path: Path, shown: Issued) -> list[str]:
    pem = shown.write(path, "shown")
    return ["--tls-cert", pem, "--tls-key", pem.replace(".pem", ".key")]


def test_a_listed_certificate_relays(server: Server, tmp_path: Path) -> None:
    code, said = _relay(server, *_with(tmp_path, BRANCH))
    assert code == 0, said
    assert any(f'"fingerprint":"{BRANCH.fingerprint()}"' in line for line in server.log_tail(200).splitlines())


def test_others_do_not(server: Server, tmp_path: Path) -> None:
    for options in ([], _with(tmp_path, issue(["branch.example.test"]))):
        code, said = _relay(server, *options)
        assert code == 24 and "Relay access denied" in said, said  # swaks: a recipient was refused


def _is_asked(server: Server, service: str, *options: str) -> bool:
    """Whether openssl's client sees a request for its certificate."""
    done = subprocess.run(
        [needs("openssl"), "s_client", "-connect", f"{server.host}:{server.port(service)}", "-msg", *options],
        input=b"",
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert b"ServerHello" in done.stdout, done.stderr
    return b"CertificateRequest" in done.stdout


def test_readers_of_mail_are_not_asked(server: Server) -> None:
    assert _is_asked(server, "submissions")
    assert _is_asked(server, "submission", "-starttls", "smtp")
    assert not _is_asked(server, "imaps")


def test_a_reread_file_asks_no_more(server: Server) -> None:
    server.write_config({"tls": {"smtpd_tls_ask_ccert": False}})
    server.cli("reload")
    assert not _is_asked(server, "submissions")
    server.write_config({"tls": {"smtpd_tls_ask_ccert": True}})
    server.cli("reload")
    assert _is_asked(server, "submissions")
