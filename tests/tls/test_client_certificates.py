"""Client certificates: any is taken, and it is known whether an authority vouches for it."""

import datetime
import ssl
from pathlib import Path
from typing import Any

import pytest

import fastmta.tls.client_certificates as asking
from fastmta.config.tables import TlsConfig
from fastmta.model.errors import ConfigError
from fastmta.tls.certificate import write_self_signed
from fastmta.tls.client_certificates import certificate_of
from fastmta.tls.contexts import Contexts, server_context
from tests.support.authority import issue

AUTHORITY = issue(["Test authority"], ca=True)
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.fixture
def settings(tmp_path: Path) -> TlsConfig:
    write_self_signed(tmp_path / "cert.pem", tmp_path / "key.pem", ["mx.example.test"])
    return TlsConfig(
        cert_file=str(tmp_path / "cert.pem"),
        key_file=str(tmp_path / "key.pem"),
        smtpd_tls_ask_ccert=True,
        smtpd_tls_CAfile=AUTHORITY.write(tmp_path, "authority"),
    )


def client(directory: Path, issued: Any = None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = version
    if issued is not None:
        path = issued.write(directory, "client")
        context.load_cert_chain(path, path.replace(".pem", ".key"))
    return context


def handshake(server: ssl.SSLContext | None, theirs: ssl.SSLContext, session: Any = None) -> tuple[Any, Any]:
    """Both ends of a handshake in memory, the server's first."""
    assert server is not None
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    other = theirs.wrap_bio(to_client, to_server, session=session)
    for _ in range(5):
        for side in (other, ours):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return ours, other


@pytest.mark.parametrize("version", VERSIONS)
def test_a_certificate_of_an_authority_is_trusted(tmp_path: Path, settings: TlsConfig, version: ssl.TLSVersion) -> None:
    issued = issue(["branch.example.test"], AUTHORITY)
    ours, _ = handshake(Contexts(settings).smtpd_context(), client(tmp_path, issued, version))
    found = certificate_of(ours, "sha256")
    assert found is not None and found.is_trusted
    assert (found.subject, found.issuer) == ("branch.example.test", "Test authority")
    assert found.fingerprints == (issued.fingerprint(), issued.fingerprint(key=True))
    md5 = certificate_of(ours, "md5")
    assert md5 is not None and md5.fingerprint == issued.fingerprint(digest="md5")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "issued",
    [
        issue(["self.test"]),
        issue(["late.test"], AUTHORITY, until=-datetime.timedelta(hours=1)),
        issue(["other.test"], issue(["Test authority"], ca=True)),
    ],
    ids=["self-signed", "expired", "false authority"],
)
def test_another_certificate_is_taken_and_not_trusted(
    tmp_path: Path, settings: TlsConfig, version: ssl.TLSVersion, issued: Any
) -> None:
    ours, _ = handshake(Contexts(settings).smtpd_context(), client(tmp_path, issued, version))
    found = certificate_of(ours, "sha256")
    assert found is not None and not found.is_trusted
    assert found.fingerprint == issued.fingerprint()


def test_no_authority_means_no_trust(tmp_path: Path, settings: TlsConfig) -> None:
    bare = TlsConfig(cert_file=settings.cert_file, key_file=settings.key_file, smtpd_tls_ask_ccert=True)
    ours, _ = handshake(Contexts(bare).smtpd_context(), client(tmp_path, issue(["a.test"], AUTHORITY)))
    found = certificate_of(ours, "sha256")
    assert found is not None and not found.is_trusted


def test_a_client_may_have_none(tmp_path: Path, settings: TlsConfig) -> None:
    ours, _ = handshake(Contexts(settings).smtpd_context(), client(tmp_path))
    assert ours.version() == "TLSv1.3" and certificate_of(ours, "sha256") is None


def test_who_does_not_bring_mail_is_not_asked(tmp_path: Path, settings: TlsConfig) -> None:
    contexts = Contexts(settings)
    assert contexts.server_context() is not contexts.smtpd_context()
    ours, _ = handshake(contexts.server_context(), client(tmp_path, issue(["a.test"], AUTHORITY)))
    assert certificate_of(ours, "sha256") is None
    quiet = Contexts(TlsConfig(cert_file=settings.cert_file, key_file=settings.key_file))
    assert quiet.server_context() is quiet.smtpd_context()


@pytest.mark.parametrize("version", VERSIONS)
def test_every_handshake_shows_it(tmp_path: Path, settings: TlsConfig, version: ssl.TLSVersion) -> None:
    issued, context = issue(["a.test"], AUTHORITY), Contexts(settings).smtpd_context()
    theirs = client(tmp_path, issued, version)
    _, first = handshake(context, theirs)
    ours, _ = handshake(context, theirs, first.session)
    found = certificate_of(ours, "sha256")
    assert found is not None and found.is_trusted


def test_a_listener_that_holds_the_context_gets_new_authorities(tmp_path: Path, settings: TlsConfig) -> None:
    contexts = Contexts(settings)
    held = contexts.smtpd_context()
    other = issue(["Another"], ca=True)
    fresh = TlsConfig(
        cert_file=settings.cert_file,
        key_file=settings.key_file,
        smtpd_tls_ask_ccert=True,
        smtpd_tls_CAfile=other.write(tmp_path, "another"),
    )
    contexts.reload(fresh)
    assert contexts.smtpd_context() is held
    for authority, trusted in ((other, True), (AUTHORITY, False)):
        ours, _ = handshake(held, client(tmp_path, issue(["a.test"], authority)))
        found = certificate_of(ours, "sha256")
        assert found is not None and found.is_trusted is trusted


def test_to_ask_no_more_is_another_context(settings: TlsConfig) -> None:
    contexts = Contexts(settings)
    held = contexts.smtpd_context()
    contexts.reload(TlsConfig(cert_file=settings.cert_file, key_file=settings.key_file))
    assert contexts.smtpd_context() is contexts.server_context() is not held


def test_authorities_that_cannot_be_read_are_named(tmp_path: Path, settings: TlsConfig) -> None:
    (tmp_path / "authority.pem").write_text("nothing\n")
    with pytest.raises(ConfigError, match=r"tls\.smtpd_tls_CAfile: .*holds no certificate"):
        server_context(settings, asks=True)


def test_an_unknown_ssl_is_an_error_and_no_crash(settings: TlsConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_field", lambda owner, number: None)
    with pytest.raises(ConfigError, match="this Python's ssl cannot ask for certificates"):
        server_context(settings, asks=True)
