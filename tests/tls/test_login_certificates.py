"""Certificates that log in: whom ssl_ca vouches for, by one whole name, and nobody else."""

import datetime
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from msgspec.structs import replace

from fastmta.config.tables import TlsConfig
from fastmta.model.errors import ConfigError
from fastmta.tls.certificate import write_self_signed
from fastmta.tls.contexts import Contexts
from tests.support.authority import DAY, Issued, issue, revoked
from tests.tls.test_client_certificates import VERSIONS, client, handshake

AUTHORITY = issue(["Staff"], ca=True)
SMTPS = issue(["Partners"], ca=True)
ANN = issue(["ann@example.test"], AUTHORITY)
REVOKED = issue(["ann@example.test"], AUTHORITY)


@pytest.fixture
def settings(tmp_path: Path) -> TlsConfig:
    write_self_signed(tmp_path / "cert.pem", tmp_path / "key.pem", ["mx.example.test"])
    path = Path(AUTHORITY.write(tmp_path, "staff"))
    path.write_bytes(path.read_bytes() + revoked(AUTHORITY, [REVOKED]))
    return TlsConfig(
        cert_file=str(tmp_path / "cert.pem"),
        key_file=str(tmp_path / "key.pem"),
        smtpd_tls_ask_ccert=True,
        smtpd_tls_CAfile=SMTPS.write(tmp_path, "partners"),
        ssl_verify_client_cert=True,
        ssl_ca=str(path),
        auth_ssl_username_from_cert=True,
    )


def named(attributes: list[tuple[x509.ObjectIdentifier, str]], *others: x509.GeneralName) -> Issued:
    """A certificate of the staff's with these words in its subject and these other names."""
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(oid, text) for oid, text in attributes]))
        .issuer_name(AUTHORITY.certificate.subject)
        .public_key(ANN.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
    )
    if others:
        builder = builder.add_extension(x509.SubjectAlternativeName(others), critical=False)
    return Issued(builder.sign(AUTHORITY.key, hashes.SHA256()), ANN.key, [AUTHORITY])


def login(tmp_path: Path, settings: TlsConfig, issued: Any, version: ssl.TLSVersion = VERSIONS[1]) -> str:
    contexts = Contexts(settings)
    ours, _ = handshake(contexts.server_context(), client(tmp_path, issued, version))
    return contexts.login_name(ours)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_certificate_of_ours_names_its_account(tmp_path: Path, settings: TlsConfig, version: ssl.TLSVersion) -> None:
    assert login(tmp_path, settings, ANN, version) == "ann@example.test"


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "issued",
    [
        None,
        REVOKED,
        issue(["ann@example.test"]),
        issue(["ann@example.test"], AUTHORITY, until=-datetime.timedelta(hours=1)),
        issue(["ann@example.test"], issue(["Staff"], ca=True)),
        issue(["ann@example.test"], SMTPS),
        issue(["ann@example.test"], ANN),
    ],
    ids=["none", "revoked", "self-signed", "expired", "false authority", "SMTP's authority", "by a user"],
)
def test_no_other_does(tmp_path: Path, settings: TlsConfig, version: ssl.TLSVersion, issued: Any) -> None:
    assert login(tmp_path, settings, issued, version) == ""


CN, MAIL = NameOID.COMMON_NAME, NameOID.EMAIL_ADDRESS


@pytest.mark.parametrize(
    ("field", "issued", "name"),
    [
        ("emailAddress", named([(CN, "Ann"), (MAIL, "ann@example.test")]), "ann@example.test"),
        ("rfc822Name", named([(CN, "Ann")], x509.RFC822Name("ann@example.test")), "ann@example.test"),
        ("emailAddress", named([(CN, "ann@example.test")]), ""),
        ("rfc822Name", named([(CN, "ann@example.test")]), ""),
        ("rfc822Name", named([(CN, "x")], x509.DNSName("ann.example.test")), ""),
        ("commonName", named([(CN, "ann@example.test"), (CN, "bob@example.test")]), ""),
        ("rfc822Name", named([(CN, "x")], x509.RFC822Name("ann@a.test"), x509.RFC822Name("bob@a.test")), ""),
        ("commonName", named([(CN, "ann@example.test\0.evil.test")]), ""),
        ("commonName", named([(CN, "ann@example.test\n")]), ""),
        ("commonName", named([(NameOID.ORGANIZATION_NAME, "ann@example.test")]), ""),
    ],
)
def test_its_one_whole_name_counts(tmp_path: Path, settings: TlsConfig, field: str, issued: Any, name: str) -> None:
    assert login(tmp_path, replace(settings, ssl_cert_username_field=field), issued) == name


def test_without_revocation_lists_nobody_is_trusted_unless_that_is_said(tmp_path: Path, settings: TlsConfig) -> None:
    bare = replace(settings, ssl_ca=AUTHORITY.write(tmp_path, "bare"))
    assert login(tmp_path, bare, ANN) == ""
    assert login(tmp_path, replace(bare, ssl_require_crl=False), ANN) == "ann@example.test"


def test_smtp_asks_for_its_own_and_logs_nobody_in(tmp_path: Path, settings: TlsConfig) -> None:
    contexts = Contexts(settings)
    assert contexts.smtpd_context(logs_in=True) is contexts.server_context() is not contexts.smtpd_context()
    for issued in (ANN, issue(["ann@example.test"], SMTPS)):
        ours, _ = handshake(contexts.smtpd_context(), client(tmp_path, issued))
        assert contexts.login_name(ours) == ""


@pytest.mark.parametrize("version", VERSIONS)
def test_no_session_is_resumed(tmp_path: Path, settings: TlsConfig, version: ssl.TLSVersion) -> None:
    contexts = Contexts(settings)
    theirs = client(tmp_path, REVOKED, version)
    _, first = handshake(contexts.server_context(), theirs)
    ours, second = handshake(contexts.server_context(), theirs, first.session)
    assert contexts.login_name(ours) == "" and not second.session_reused


def test_a_reload_takes_new_authorities_and_the_switch_itself(tmp_path: Path, settings: TlsConfig) -> None:
    contexts = Contexts(settings)
    held = contexts.server_context()
    contexts.reload(replace(settings, ssl_ca=SMTPS.write(tmp_path, "new"), ssl_require_crl=False))
    for issued, name in ((ANN, ""), (issue(["bob@example.test"], SMTPS), "bob@example.test")):
        ours, _ = handshake(held, client(tmp_path, issued))
        assert contexts.login_name(ours) == name
    (tmp_path / "new.pem").write_bytes((tmp_path / "new.pem").read_bytes() + revoked(SMTPS, [issued]))
    contexts.reload(replace(settings, ssl_ca=str(tmp_path / "new.pem")))
    for shown, name in ((issued, ""), (issue(["bob@example.test"], SMTPS), "bob@example.test")):
        ours, _ = handshake(held, client(tmp_path, shown))
        assert contexts.login_name(ours) == name
    contexts.reload(replace(settings, ssl_verify_client_cert=False))
    ours, _ = handshake(held, client(tmp_path, ANN))
    assert contexts.login_name(ours) == ""
    assert contexts.server_context() is not held


def test_authorities_that_cannot_be_read_are_named(tmp_path: Path, settings: TlsConfig) -> None:
    (tmp_path / "staff.pem").write_text("nothing\n")
    with pytest.raises(ConfigError, match=r"tls\.ssl_ca: "):
        Contexts(settings).server_context()
