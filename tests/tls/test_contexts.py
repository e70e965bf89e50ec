import contextlib
import ssl
import stat
import subprocess
from pathlib import Path

import pytest

from fastmta.model.errors import ConfigError
from fastmta.tls.certificate import write_self_signed
from fastmta.tls.contexts import LEVELS, Contexts, client_context, server_context


class Settings:
    ssl_min_protocol = "TLSv1.2"
    smtp_tls_CAfile = ""
    smtp_tls_CApath = ""
    smtpd_tls_CAfile = ""
    ssl_verify_client_cert = False
    smtpd_tls_CApath = ""
    asks_clients = False
    smtp_tls_cert_file = smtp_tls_key_file = ""
    smtpd_tls_eccert_file = smtpd_tls_eckey_file = ""

    def __init__(self, directory: Path | None) -> None:
        self.cert_file = str(directory / "cert.pem") if directory else ""
        self.key_file = str(directory / "key.pem") if directory else ""


def make(directory, name="mx.example.test"):
    directory.mkdir(exist_ok=True)
    write_self_signed(directory / "cert.pem", directory / "key.pem", [name])
    return Settings(directory)


def handshake(server, client, name="mx.example.test"):
    """Runs a handshake in memory and gives the certificate that the client saw."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=name)
    for _ in range(5):
        for side in (theirs, ours):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
    return theirs.getpeercert(binary_form=True)


def test_no_certificate_means_no_server_context():
    assert Contexts(Settings(None)).server_context() is None


def test_the_self_signed_key_is_readable_by_its_owner_only(tmp_path):
    make(tmp_path)
    assert stat.S_IMODE((tmp_path / "key.pem").stat().st_mode) == 0o600


def test_a_certificate_is_never_replaced(tmp_path):
    make(tmp_path)
    before = (tmp_path / "key.pem").read_bytes()
    with pytest.raises(FileExistsError):
        make(tmp_path)
    assert (tmp_path / "key.pem").read_bytes() == before


def test_reload_changes_the_context_that_listeners_hold(tmp_path):
    settings = make(tmp_path / "one")
    contexts = Contexts(settings)
    held = contexts.server_context()
    first = handshake(held, client_context("may"))
    contexts.reload(make(tmp_path / "two"))
    assert contexts.server_context() is held
    assert handshake(held, client_context("may")) != first


def rsa_in(directory):
    directory.mkdir()
    settings = Settings(directory)
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=mx", "-keyout"]
    subprocess.run([*command, settings.key_file, "-out", settings.cert_file], check=True, capture_output=True)
    return settings


def test_of_two_certificates_a_client_gets_the_one_that_it_can_use(tmp_path):
    both, elliptic = rsa_in(tmp_path / "rsa"), make(tmp_path / "ec")
    both.smtpd_tls_eccert_file, both.smtpd_tls_eckey_file = elliptic.cert_file, elliptic.key_file
    contexts = Contexts(both)
    for path, ciphers in ((elliptic.cert_file, "aECDSA:aRSA"), (both.cert_file, "aRSA")):
        client = client_context("may")
        client.maximum_version = ssl.TLSVersion.TLSv1_2  # whose cipher names the kind of key
        client.set_ciphers(ciphers)
        assert handshake(contexts.server_context(), client) == ssl.PEM_cert_to_DER_cert(Path(path).read_text())
    assert handshake(contexts.server_context(), client_context("may")) == ssl.PEM_cert_to_DER_cert(
        Path(elliptic.cert_file).read_text()
    )
    both.smtpd_tls_eckey_file = both.key_file
    with pytest.raises(ConfigError, match=r"^tls\.smtpd_tls_eckey_file: the key in .*rsa"):
        contexts.reload(both)


def test_a_server_that_asks_for_our_certificate_is_shown_it(tmp_path):
    settings, ours = make(tmp_path / "server"), rsa_in(tmp_path / "ours")
    contexts = Contexts(settings)
    asking = server_context(settings)
    asking.verify_mode = ssl.CERT_OPTIONAL
    asking.load_verify_locations(ours.cert_file)

    def shown(client):
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = asking.wrap_bio(to_server, to_client, server_side=True)
        theirs = client.wrap_bio(to_client, to_server, server_hostname="mx.example.test")
        for _ in range(3):
            for side in (theirs, server):
                with contextlib.suppress(ssl.SSLWantReadError):
                    side.do_handshake()
        return server.getpeercert(binary_form=True)

    assert shown(contexts.client_context("may")) is None
    settings.smtp_tls_cert_file, settings.smtp_tls_key_file = ours.cert_file, ours.key_file
    contexts.reload(settings)
    mine = ssl.PEM_cert_to_DER_cert(Path(ours.cert_file).read_text())
    assert shown(contexts.client_context("may")) == mine
    Path(ours.key_file).unlink()
    assert shown(contexts.client_context("encrypt")) == mine  # what was read is kept
    with pytest.raises(ConfigError, match=r"^tls\.smtp_tls_key_file: .*key\.pem"):
        contexts.reload(settings)
    assert shown(contexts.client_context("encrypt")) == mine


@pytest.mark.parametrize("name", ["mx.example.test", None])
def test_a_certificate_with_another_type_of_key_takes_the_place_of_the_old_one(tmp_path, name):
    rsa = rsa_in(tmp_path / "rsa")
    contexts = Contexts(make(tmp_path / "ec"))
    held = contexts.server_context()
    old = handshake(held, client_context("may"), name)
    for wanted in (rsa, Settings(tmp_path / "ec"), rsa):
        contexts.reload(wanted)
        seen = handshake(held, client_context("may"), name)
        assert seen == ssl.PEM_cert_to_DER_cert(Path(wanted.cert_file).read_text())
    assert seen != old


def test_a_bad_certificate_at_reload_keeps_the_old_one(tmp_path):
    settings = make(tmp_path)
    contexts = Contexts(settings)
    first = handshake(contexts.server_context(), client_context("may"))
    (tmp_path / "cert.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"cert\.pem"):
        contexts.reload()
    assert handshake(contexts.server_context(), client_context("may")) == first


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cert_file.*No such file"):
        server_context(Settings(tmp_path))


def test_verify_refuses_a_certificate_that_nobody_signed(tmp_path):
    context = server_context(make(tmp_path))
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(context, client_context("verify"))


def test_verify_takes_what_the_ca_file_vouches_for_and_checks_the_name(tmp_path):
    context = server_context(make(tmp_path))
    client = client_context("verify", str(tmp_path / "cert.pem"))
    assert handshake(context, client)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(context, client, "other.example.test")


def test_every_level_has_a_context_but_none():
    contexts = Contexts(Settings(None))
    assert contexts.client_context("none") is None
    for level in LEVELS[1:]:
        assert contexts.client_context(level) is contexts.client_context(level)
    with pytest.raises(ValueError, match="dane"):
        contexts.client_context("dane")
