"""curl and openssl's client log in by certificate: SASL EXTERNAL at IMAP, POP3 and submission."""

import base64
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.authority import Issued, issue, revoked
from tests.support.mail import letter, needs, run
from tests.support.server import Server

pytestmark = pytest.mark.interop
ANN, BOB, BOSS, OFF = "ann@example.test", "bob@example.test", "boss@example.test", "off@example.test"
AUTHORITY = issue(["Staff"], ca=True)
REVOKED = issue([ANN], AUTHORITY)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("external")
    path = Path(AUTHORITY.write(directory, "staff"))
    path.write_bytes(path.read_bytes() + revoked(AUTHORITY, [REVOKED]))
    settings = {
        "auth": {"mechanisms": ["PLAIN", "EXTERNAL"], "failure_delay": "0s", "auth_master_users": [BOSS]},
        "tls": {"ssl_verify_client_cert": True, "ssl_ca": str(path), "auth_ssl_username_from_cert": True},
    }
    with Server(directory, settings=settings) as running:
        for name in (ANN, BOB, BOSS, OFF):
            running.add_user(name, "secret")
        running.cli("user", "disable", OFF)
        yield running


def _curl(server: Server, path: Path, service: str, name: str, shown: Issued, *more: str) -> tuple[int, str]:
    pem = shown.write(path, "shown", with_chain=False)
    done = run(
        *[needs("curl"), "-sS", "-k", "-v", "--max-time", "30", "--cert", pem, "--key", pem.replace(".pem", ".key")],
        *["--login-options", "AUTH=EXTERNAL", "-u", f"{name}:", f"{service}://{server.host}:{server.port(service)}/"],
        *more,
        stdin=letter("by certificate"),
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")


@pytest.mark.parametrize("service", ["imaps", "pop3s", "imap", "pop3"])
@pytest.mark.parametrize("options", [[], ["--sasl-ir"]], ids=["challenge", "initial response"])
def test_curl_reads_its_mail(server: Server, tmp_path: Path, service: str, options: list[str]) -> None:
    more = [*options, *([] if service.endswith("s") else ["--ssl-reqd"])]
    code, said = _curl(server, tmp_path, service, ANN, issue([ANN], AUTHORITY), *more)
    assert code == 0 and "EXTERNAL" in said, said


@pytest.mark.parametrize("service", ["submission", "submissions"])
def test_curl_submits(server: Server, tmp_path: Path, service: str) -> None:
    pem = issue([ANN], AUTHORITY).write(tmp_path, "shown", with_chain=False)
    scheme = "smtps" if service == "submissions" else "smtp"
    done = run(
        *[needs("curl"), "-sS", "-k", "-v", "--max-time", "30", "--cert", pem, "--key", pem.replace(".pem", ".key")],
        *["--login-options", "AUTH=EXTERNAL", "-u", f"{ANN}:", "--ssl-reqd", "--mail-from", ANN, "--mail-rcpt", BOB],
        *[f"{scheme}://{server.host}:{server.port(service)}/client.test", "-T", "-"],
        stdin=letter("by certificate"),
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("shown", "name"),
    [
        (REVOKED, ANN),
        (issue([ANN]), ANN),
        (issue([ANN], issue(["Staff"], ca=True)), ANN),
        (issue([ANN], AUTHORITY), BOB),
        (issue([OFF], AUTHORITY), OFF),
    ],
    ids=["revoked", "self-signed", "false authority", "for another", "disabled"],
)
def test_others_are_refused(server: Server, tmp_path: Path, shown: Issued, name: str) -> None:
    for service in ("imaps", "pop3s"):
        code, said = _curl(server, tmp_path, service, name, shown)
        assert code == 67, said  # curl: login denied


def test_a_master_user_opens_another_account(server: Server, tmp_path: Path) -> None:
    code, said = _curl(server, tmp_path, "imaps", BOB, issue([BOSS], AUTHORITY))
    assert code == 0, said
    assert "auth.master" in server.log_tail(100)


def _openssl(server: Server, service: str, lines: str, *options: str) -> str:
    done = subprocess.run(
        [
            *[needs("openssl"), "s_client", "-quiet", "-connect", f"{server.host}:{server.port(service)}"],
            *options,
        ],
        input=lines.replace("\n", "\r\n").encode(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.stdout.decode("utf-8", "replace")


def test_openssl_sees_it_offered_only_beside_a_trusted_certificate(server: Server, tmp_path: Path) -> None:
    pem = issue([ANN], AUTHORITY).write(tmp_path, "ann", with_chain=False)
    bad = REVOKED.write(tmp_path, "revoked", with_chain=False)
    as_bob = base64.b64encode(BOB.encode()).decode()
    lines = f"a AUTHENTICATE EXTERNAL {as_bob}\nb AUTHENTICATE EXTERNAL =\nc LOGOUT\n"
    said = _openssl(server, "imaps", lines, "-cert", pem, "-key", pem.replace(".pem", ".key"))
    assert "AUTH=EXTERNAL" in said.splitlines()[0]
    assert "a NO [AUTHENTICATIONFAILED]" in said and re.search(r"^b OK ", said, re.MULTILINE)
    for options in ([], ["-cert", bad, "-key", bad.replace(".pem", ".key")]):
        said = _openssl(server, "imaps", lines, *options)
        assert "AUTH=PLAIN" in said and "AUTH=EXTERNAL" not in said
        assert "b NO [CANNOT]" in said
        assert "EXTERNAL" not in _openssl(server, "pop3s", "CAPA\nQUIT\n", *options)
        assert "EXTERNAL" not in _openssl(server, "submissions", "EHLO c.test\nQUIT\n", *options)
