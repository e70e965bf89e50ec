"""`fastmta verify` and `fastmta sign` as programs."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fastmta.authentication.signing import Signer
from tests.support.dns_thread import dns_stub
from tests.support.keys import rsa_key
from tests.support.server import command, environment

TEXT = b"From: ann@example.org\nTo: bob@example.net\nSubject: Hello\nDate: Fri, 27 Nov 2026 10:00:00 +0000\n\nHi.\n"


def fastmta(*arguments: str, stdin: bytes = b"", cwd: Path) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(command(*arguments), input=stdin, capture_output=True, env=environment(), cwd=cwd, timeout=60)


@pytest.fixture(params=["rsa", "ed25519"])
def signer(request: pytest.FixtureRequest, tmp_path: Path) -> Signer:
    key: Any = rsa_key() if request.param == "rsa" else ed25519.Ed25519PrivateKey.generate()
    (tmp_path / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return Signer("example.org", "s1", key)


def test_what_sign_prints_verify_believes(tmp_path: Path, signer: Signer) -> None:
    (tmp_path / "letter.eml").write_bytes(TEXT)
    options = ["--domain", "example.org", "--selector", "s1", "--key", "key.pem"]
    signed = fastmta("sign", "letter.eml", *options, cwd=tmp_path)
    assert (signed.returncode, signed.stderr) == (0, b"")
    assert signed.stdout.endswith(TEXT.replace(b"\n", b"\r\n"))
    zones = {
        "s1._domainkey.example.org": {"TXT": [signer.public_record()]},
        "example.org": {"TXT": ["v=spf1 ip4:192.0.2.1 -all"]},
        "_dmarc.example.org": {"TXT": ["v=DMARC1; p=reject"]},
    }
    with dns_stub(zones) as stub:
        name = ["--nameserver", stub.address, "--json"]
        sealed = fastmta(
            "sign",
            "-",
            *options,
            "--arc",
            "--authserv-id",
            "mx.example.org",
            *name[:2],
            stdin=signed.stdout,
            cwd=tmp_path,
        )
        (tmp_path / "sealed.eml").write_bytes(sealed.stdout)
        client = ["--client", "192.0.2.1", "--helo", "mx.example.org", "--mail-from", "ann@example.org"]
        shown = json.loads(fastmta("verify", "sealed.eml", *client, *name, cwd=tmp_path).stdout)
        alone = json.loads(fastmta("verify", *client, *name, cwd=tmp_path).stdout)
        wrong = json.loads(
            fastmta("verify", "letter.eml", "--client", "192.0.2.9", *client[2:], *name, cwd=tmp_path).stdout
        )
        table = fastmta("verify", "sealed.eml", *name[:2], cwd=tmp_path).stdout.decode()
    assert shown["spf"] == {"result": "pass", "domain": "example.org", "explanation": "", "lookups": 0}
    assert shown["dkim"] == [{"result": "pass", "domain": "example.org", "selector": "s1", "reason": ""}]
    assert shown["arc"] == {"result": "pass", "instance": 1, "reason": ""}
    assert shown["dmarc"] == {"result": "pass", "policy": "reject", "disposition": "none", "domain": "example.org"}
    assert (alone["spf"]["result"], alone["dkim"]) == ("pass", [])
    assert (wrong["spf"]["result"], wrong["dmarc"]["disposition"]) == ("fail", "reject")
    assert "DKIM   pass" in table


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["verify"], 64, "nothing to verify"),
        (["verify", "--client", "nowhere"], 64, "not an IP address"),
        (["verify", "absent.eml"], 66, "absent.eml: No such file"),
        (["sign", "absent.eml", "--domain", "d.example", "--selector", "s", "--key", "k"], 66, "absent.eml"),
        (["sign", "letter.eml", "--domain", "d.example", "--selector", "s", "--key", "letter.eml"], 65, "PEM"),
        (
            ["sign", "letter.eml", "--domain", "d.example", "--selector", "s", "--key", "k", "--canonicalization", "x"],
            64,
            "simple or",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    (tmp_path / "letter.eml").write_bytes(TEXT)
    done = fastmta(*arguments, cwd=tmp_path)
    assert done.returncode == code
    assert words in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1
