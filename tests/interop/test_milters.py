"""Debian's opendkim and opendmarc, asked as milters by a whole server: what they add is on the message."""

import imaplib
import os
import smtplib
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fastmta.authentication.bodies import Bodies
from fastmta.authentication.dkim import verify_dkim
from fastmta.authentication.message import parse_fields, split_message
from fastmta.authentication.signing import Signer
from tests.authentication.zone import Zone
from tests.support.dns_thread import dns_stub
from tests.support.keys import rsa_key
from tests.support.mail import needs
from tests.support.server import Server
from tests.support.waiting import wait_for

ANN, BOB = "ann@example.test", "bob@example.test"
LETTER = (
    f"From: {ANN}\r\nTo: {BOB}\r\nSubject: one\r\n two\r\n"
    "Authentication-Results: od.test; dkim=pass header.d=x.test\r\n\r\nText\r\n"
)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Any]:
    """A function that starts a filter with a configuration and gives its setting in smtpd_milters."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(name: str, lines: str, *options: str, prefix: Sequence[str] = ()) -> str:
        socket = tmp_path / f"{name}.sock"
        config = tmp_path / f"{name}.conf"
        config.write_text(f"Socket local:{socket}\nSyslog no\nBackground no\nAuthservID od.test\n{lines}")
        command = [*prefix, needs(name), "-f", "-P", str(tmp_path / f"{name}.pid"), *options]
        process = subprocess.Popen([*command, "-x" if name == "opendkim" else "-c", str(config)])
        running.append(process)
        wait_for(lambda: socket.exists() or process.poll() is not None, f"{name} does not listen")
        assert process.poll() is None, f"{name} has ended"
        return f"unix:{socket}"

    yield begin
    for process in running:
        process.kill()  # opendkim takes seconds to end by itself
        process.wait(10)


def delivered(server: Server) -> bytes:
    """The letter as Bob finds it."""
    for user in (ANN, BOB):
        server.add_user(user, "secret")
    with smtplib.SMTP("127.0.0.1", server.port("smtp")) as client:
        client.sendmail(ANN, [BOB], LETTER)
    with imaplib.IMAP4("127.0.0.1", server.port("imap")) as client:
        client.login(BOB, "secret")
        wait_for(lambda: int(client.select("INBOX")[1][0] or 0) == 1, "the message")
        return client.fetch("1", "(BODY.PEEK[])")[1][0][1]  # type: ignore[index, return-value]


async def test_opendkim_signs_and_its_signature_holds(tmp_path: Path, start: Any) -> None:
    key = rsa_key()
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    lines = f"Mode s\nDomain example.test\nSelector rsa\nKeyFile {tmp_path}/key.pem\nRequireSafeKeys no\n"
    lines += "InternalHosts 127.0.0.1\nCanonicalization relaxed/simple\n"
    settings = {"smtpd_milters": [start("opendkim", lines)]}
    with Server(tmp_path / "server", settings=settings) as server:
        raw = delivered(server)

    async def inline(operation: Any, *arguments: Any) -> Any:
        return operation(*arguments)

    header, body = split_message(raw)
    bodies = Bodies()
    bodies.update(body)
    record = Signer("example.test", "rsa", key).public_record()
    zone = Zone({"rsa._domainkey.example.test": {"TXT": [record]}})
    verdicts = await verify_dkim(parse_fields(header), bodies, zone, inline, 2_000_000_000)
    assert [each.result for each in verdicts] == ["pass"], raw


def test_opendkim_hides_a_forged_result_and_opendmarc_reads_the_true_one(tmp_path: Path, start: Any) -> None:
    key = rsa_key()
    (tmp_path / "keys").write_text(
        f"rsa._domainkey.example.test {Signer('example.test', 'rsa', key).public_record()}\n"
    )
    verify = start("opendkim", f"Mode v\nTestPublicKeys {tmp_path}/keys\nRequireSafeKeys no\nAlwaysAddARHeader yes\n")
    (tmp_path / "ignored").write_text("192.0.2.1\n")
    lines = f"TrustedAuthservIDs od.test\nIgnoreHosts {tmp_path}/ignored\n"
    judge = start("opendmarc", lines + "DNSTimeout 1\nIgnoreAuthenticatedClients no\nRejectFailures no\n")
    with Server(tmp_path / "server", settings={"smtpd_milters": [verify, judge]}) as server:
        raw = delivered(server)
    head = raw.partition(b"\r\n\r\n")[0].replace(b"\r\n\t", b" ")
    results = [line for line in head.split(b"\r\n") if line.startswith(b"Authentication-Results: od.test")]
    assert not any(b"x.test" in line for line in results), raw
    assert any(b"dkim=none" in line for line in results), raw
    assert any(b"dmarc=" in line for line in results), raw


@pytest.mark.skipif(os.geteuid() != 0, reason="opendmarc asks the machine's resolver: a mount namespace needs root")
def test_opendmarc_refuses_what_its_domain_wants_refused(tmp_path: Path, start: Any) -> None:
    if subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("no mount namespaces")
    place = f"127.78.{os.getpid() // 254 % 254}.{os.getpid() % 254 + 1}"  # a resolver's port is always 53
    resolv = tmp_path / "resolv.conf"
    resolv.write_text(f"nameserver {place}\noptions timeout:2 attempts:1\n")
    apart = ("unshare", "-m", "sh", "-c", f'mount --bind {resolv} /etc/resolv.conf && exec "$@"', "sh")
    (tmp_path / "ignored").write_text("192.0.2.1\n")
    lines = f"TrustedAuthservIDs od.test\nIgnoreHosts {tmp_path}/ignored\nSPFIgnoreResults yes\nSPFSelfValidate yes\n"
    zones = {
        "strict.test": {"TXT": ["v=spf1 -all"], "MX": [(10, "mx.strict.test")], "A": ["192.0.2.5"]},
        "_dmarc.strict.test": {"TXT": ["v=DMARC1; p=reject"]},
        "relaxed.test": {"TXT": ["v=spf1 -all"], "MX": [(10, "mx.relaxed.test")], "A": ["192.0.2.5"]},
        "_dmarc.relaxed.test": {"TXT": ["v=DMARC1; p=none"]},
    }
    with dns_stub(zones, (place, 53)):
        judge = start("opendmarc", lines + "DNSTimeout 5\nRejectFailures yes\n", prefix=apart)
        settings = {
            "smtpd_milters": [judge],
            "smtpd_authentication": False,
            "smtpd_authorized_xclient_hosts": ["127.0.0.0/8"],  # what comes from loopback passes SPF there
        }
        with Server(tmp_path / "server", settings=settings) as server:
            server.add_user(BOB, "secret")
            with smtplib.SMTP("127.0.0.1", server.port("smtp")) as client:
                assert client.docmd("XCLIENT", "ADDR=198.51.100.7 NAME=[UNAVAILABLE]")[0] == 220
                for domain, expected in (("strict.test", 550), ("relaxed.test", 250)):
                    client.ehlo("client.test")
                    client.mail(f"eve@{domain}")
                    client.rcpt(BOB)
                    code, text = client.data(f"From: eve@{domain}\r\nTo: {BOB}\r\nSubject: x\r\n\r\nText\r\n")
                    assert code == expected, (domain, text)
                    if code == 550:
                        assert b"5.7.1" in text and b"strict.test" in text
