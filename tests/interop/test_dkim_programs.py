"""opendkim (as a milter) and Perl's Mail::DKIM believe what we sign, we what they sign, and all doubt alike."""

import asyncio
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fastmta.authentication.bodies import Bodies, forms_needed
from fastmta.authentication.canonical import Form
from fastmta.authentication.dkim import verify_dkim
from fastmta.authentication.message import parse_fields, split_message
from fastmta.authentication.signing import DkimTags, Signer, body_digest_of, names_to_sign, sign_dkim
from tests.authentication.zone import Zone
from tests.support.dns_thread import dns_stub
from tests.support.keys import rsa_key
from tests.support.mail import needs
from tests.support.milter_client import Milter
from tests.support.waiting import wait_for

KEYS: dict[str, Any] = {"rsa": rsa_key(), "ed25519": ed25519.Ed25519PrivateKey.generate()}
SIGNERS = {kind: Signer("example.org", kind, key) for kind, key in KEYS.items()}
ZONE = {f"{kind}._domainkey.example.org": {"TXT": [one.public_record()]} for kind, one in SIGNERS.items()}
FORMS: list[tuple[Form, Form]] = [(header, body) for header in ("simple", "relaxed") for body in ("simple", "relaxed")]  # type: ignore[misc]
COMMON = (
    "Background no\nSyslog no\nRequireSafeKeys no\nAuthservID od.test\nAlwaysAddARHeader yes\nInternalHosts 127.0.0.1\n"
    "On-BadSignature accept\nOn-KeyNotFound accept\nOn-SignatureError accept\nOn-NoSignature accept\n"
)
PERL = r"""
use strict; use warnings; use Mail::DKIM::Verifier; use Mail::DKIM::Signer; use Net::DNS;
my ($what, $port, $key, $method) = @ARGV;
binmode STDIN; binmode STDOUT;
my $message = do { local $/; <STDIN> };
$Mail::DKIM::DNS::RESOLVER = Net::DNS::Resolver->new(nameservers => ['127.0.0.1'], port => $port, recurse => 1);
my $dkim = $what eq 'verify' ? Mail::DKIM::Verifier->new() : Mail::DKIM::Signer->new(
    Algorithm => 'rsa-sha256', Method => $method, Domain => 'example.org', Selector => 'rsa', KeyFile => $key);
$dkim->PRINT($message);
$dkim->CLOSE;
print $what eq 'verify' ? $dkim->result : $dkim->signature->as_string . "\r\n";
"""


def letters(count: int, seed: int) -> Iterator[bytes]:
    """Messages with folds, odd white space, 8-bit octets, repeated fields and every kind of body's end."""
    chance = random.Random(seed)
    gaps = [b" ", b"\t", b"  ", b" \t ", b"\r\n ", b"\r\n\t", b" \r\n  "]
    ends = [
        b"",
        b"\r\n",
        b"\r\n\r\n\r\n",
        b" \r\n",
        b"text \t with  gaps  \r\n",
        b".\r\n..\r\n",
        "grün\r\n".encode(),
        b"\xff\xfe\r\n",
    ]

    def value() -> bytes:
        words = [
            chance.choice([b"word", b"a;b=c", b'"q"', b"(c)", "ö".encode(), b"x" * 30])
            for _ in range(chance.randrange(1, 9))
        ]
        return b"".join(chance.choice(gaps) + word for word in words) + chance.choice([b"", b" ", b"\t"])

    names = [
        b"To",
        b"Cc",
        b"Subject",
        b"DATE",
        b"message-id",
        b"Content-Type",
        b"Received",
        b"X-Odd",
        b"List-Id",
        b"Sender",
    ]
    for _ in range(count):
        fields = [name + b":" + value() for name in names for _ in range(chance.choice([0, 1, 1, 2]))]
        fields.append(chance.choice([b"From: Ann <ann@example.org>", b'FROM:"A, B"\r\n <ann@example.org> ']))
        chance.shuffle(fields)
        body = b"".join(
            chance.choice([b"a line\r\n", b"\t\r\n", b"\r\n", b" x  y \r\n"]) for _ in range(chance.randrange(4))
        )
        yield b"\r\n".join(fields) + b"\r\n\r\n" + body + chance.choice(ends)


def signed_by_us(raw: bytes, kind: str, forms: tuple[Form, Form]) -> bytes:
    head, body = split_message(raw)
    fields = parse_fields(head)
    tags = DkimTags(names_to_sign(fields), *forms, signed_at=int(time.time()) - 5)
    return sign_dkim(SIGNERS[kind], fields, body_digest_of(body, forms[1]), tags) + raw


def our_result(raw: bytes) -> str:
    async def here(operation: Any, *arguments: Any) -> Any:
        return operation(*arguments)

    head, body = split_message(raw)
    fields = parse_fields(head)
    bodies = Bodies(forms_needed(fields))
    bodies.update(body)
    verdicts = asyncio.run(verify_dkim(fields, bodies, Zone(ZONE), here, time.time()))
    return verdicts[0].result if verdicts else "none"


def damaged(raw: bytes, chance: random.Random) -> bytes:
    """One printable octet in the header or the body becomes another; lines stay what they are."""
    while True:
        at = chance.randrange(len(raw))
        if 33 <= raw[at] <= 126:
            return raw[:at] + bytes([chance.choice(b"aZ0=;.")]) + raw[at + 1 :]


@pytest.fixture
def opendkim(tmp_path: Path) -> Iterator[Any]:
    """A function that starts an opendkim with a few lines of configuration and gives its socket."""
    program = needs("opendkim")
    running = []
    (tmp_path / "keys").write_text("".join(f"{name} {record['TXT'][0]}\n" for name, record in ZONE.items()))

    def start(name: str, lines: str) -> Path:
        socket = tmp_path / f"{name}.sock"
        config = tmp_path / f"{name}.conf"
        config.write_text(f"Socket local:{socket}\nTestPublicKeys {tmp_path}/keys\n{COMMON}{lines}")
        running.append(subprocess.Popen([program, "-x", str(config), "-f", "-P", str(tmp_path / f"{name}.pid")]))
        process = running[-1]
        wait_for(lambda: listens(socket) or process.poll() is not None, "opendkim does not listen")
        assert process.poll() is None, "opendkim has ended"
        return socket

    yield start
    for process in running:
        process.kill()  # at SIGTERM it waits five seconds for a thread of its own
        process.wait(10)


def listens(socket: Path) -> bool:
    try:
        with Milter(socket):
            return True
    except OSError:
        return False


def shown(socket: Path, raw: bytes) -> list[tuple[bytes, bytes]]:
    """What opendkim adds to a message."""
    head, body = split_message(raw)
    fields = []
    for field in parse_fields(head):
        name, _, value = field.raw.partition(b":")
        fields.append((name, value.removesuffix(b"\r\n").replace(b"\r\n", b"\n")))
    with Milter(socket) as milter:
        milter.show(fields, body)
        return milter.inserted


def passes(socket: Path, raw: bytes) -> bool:
    return any(name == b"Authentication-Results" and b"dkim=pass" in value for name, value in shown(socket, raw))


def test_opendkim_believes_our_signatures_and_doubts_damaged_ones_as_we_do(opendkim: Any) -> None:
    socket = opendkim("verify", "Mode v\n")
    chance = random.Random(1)
    for raw in letters(25, 1):
        if not raw.endswith(b"\r\n"):
            raw += b"\r\n"  # a body that ends otherwise cannot come by SMTP, and opendkim takes it for another
        signed = signed_by_us(raw, chance.choice(list(KEYS)), chance.choice(FORMS))
        assert passes(socket, signed), signed
        broken = damaged(signed, chance)
        assert passes(socket, broken) == (our_result(broken) == "pass"), broken


@pytest.mark.parametrize("forms", FORMS)
@pytest.mark.parametrize("kind", KEYS)
def test_we_believe_what_opendkim_signs(opendkim: Any, tmp_path: Path, kind: str, forms: tuple[Form, Form]) -> None:
    if kind == "ed25519" and forms[0] == "simple":
        pytest.skip("opendkim 2.11 cannot verify its own Ed25519 signatures over simple headers")
    key = tmp_path / "key.pem"
    format_ = PrivateFormat.TraditionalOpenSSL if kind == "rsa" else PrivateFormat.PKCS8
    key.write_bytes(KEYS[kind].private_bytes(Encoding.PEM, format_, NoEncryption()))
    lines = f"Mode s\nDomain example.org\nSelector {kind}\nKeyFile {key}\nSignatureAlgorithm {kind}-sha256\n"
    socket = opendkim("sign", lines + f"Canonicalization {forms[0]}/{forms[1]}\nOversignHeaders From\n")
    for raw in letters(5, 2):
        if not raw.endswith(b"\r\n"):
            raw += b"\r\n"
        added = b"".join(name + b":" + value.replace(b"\n", b"\r\n") + b"\r\n" for name, value in shown(socket, raw))
        assert our_result(added + raw) == "pass", added + raw


def perl(*arguments: str, stdin: bytes) -> bytes:
    done = subprocess.run([needs("perl"), "-e", PERL, *arguments], input=stdin, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_mail_dkim_and_we_believe_each_other(tmp_path: Path) -> None:
    if subprocess.run([needs("perl"), "-MMail::DKIM", "-e1"], capture_output=True).returncode:
        pytest.skip("Perl's Mail::DKIM is not installed")
    key = tmp_path / "key.pem"
    key.write_bytes(KEYS["rsa"].private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
    chance = random.Random(3)
    with dns_stub(ZONE) as stub:
        port = stub.address.rpartition(":")[2]
        for number, raw in enumerate(letters(8, 3)):
            if not raw.endswith(b"\r\n"):
                raw += b"\r\n"
            forms = FORMS[number % 4]
            signed = signed_by_us(raw, "rsa", forms)
            assert perl("verify", port, stdin=signed) == b"pass", signed
            broken = damaged(signed, chance)
            assert (perl("verify", port, stdin=broken) == b"pass") == (our_result(broken) == "pass"), broken
            added = perl("sign", port, str(key), "/".join(forms), stdin=raw)
            assert our_result(added + raw) == "pass", added + raw
