"""Certificate and key files that cannot be used are told in plain words: which key, which file, what to do."""

import subprocess
from types import SimpleNamespace

import pytest

from fastmta.model.errors import ConfigError
from fastmta.tls.certificate import write_self_signed
from fastmta.tls.contexts import client_context, server_context


@pytest.fixture
def files(tmp_path):
    write_self_signed(tmp_path / "cert.pem", tmp_path / "key.pem", ["mx.example.test"])
    write_self_signed(tmp_path / "cert2.pem", tmp_path / "key2.pem", ["mx.example.test"])
    return tmp_path


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def said(directory, cert="cert.pem", key="key.pem"):
    settings = SimpleNamespace(
        cert_file=str(directory / cert),
        key_file=str(directory / key) if key else "",
        ssl_min_protocol="TLSv1.2",
        smtpd_tls_eccert_file="",
        smtp_tls_CAfile="",
    )
    with pytest.raises(ConfigError) as caught:
        server_context(settings)
    text = str(caught.value)
    assert "\n" not in text
    return text.replace(f"{directory}/", "")


def test_a_missing_file(files):
    assert said(files, cert="absent") == "tls.cert_file: absent: No such file or directory"
    assert said(files, key="absent") == "tls.key_file: absent: No such file or directory"
    assert said(files, key=".").startswith("tls.key_file: ")


def test_a_key_of_another_certificate(files):
    assert said(files, key="key2.pem") == (
        "tls.key_file: the key in key2.pem does not belong to the first certificate in cert.pem "
        "(the server's own comes first, then its issuers)"
    )


def test_files_that_are_exchanged(files):
    assert "are cert_file and key_file exchanged?" in said(files, cert="key.pem", key="cert.pem")
    assert "key.pem" not in said(files, key="cert2.pem").partition("holds a certificate and no private key")[0]


def test_no_key_at_all(files):
    assert said(files, key="") == "tls.cert_file: cert.pem holds no private key: name its file in tls.key_file"


@pytest.mark.parametrize("form", [["-aes256"], ["-aes128", "-traditional"]])
def test_an_encrypted_key(files, form):
    openssl("pkey", "-in", files / "key.pem", *form, "-passout", "pass:x", "-out", files / "closed.pem")
    assert "the key in closed.pem is encrypted, and nobody is there to type its password" in said(
        files, key="closed.pem"
    )


def test_der_instead_of_pem(files):
    openssl("x509", "-in", files / "cert.pem", "-outform", "DER", "-out", files / "cert.der")
    openssl("pkey", "-in", files / "key.pem", "-outform", "DER", "-out", files / "key.der")
    assert "tls.cert_file: cert.der is in DER form" in said(files, cert="cert.der")
    assert "tls.key_file: key.der is in DER form" in said(files, key="key.der")


@pytest.mark.parametrize("name", ["cert.pem", "key.pem"])
@pytest.mark.parametrize(("raw", "says"), [(b"", "in PEM form"), (b"\xff\0text", "in PEM form"), (None, "damaged")])
def test_what_is_no_certificate_or_key(files, name, raw, says):
    whole = (files / name).read_bytes()
    (files / name).write_bytes(whole[:60] + b"!" + whole[80:] if raw is None else raw)
    text = said(files)
    assert text.startswith("tls.cert_file: " if name == "cert.pem" else "tls.key_file: ")
    assert name in text
    assert says in text


def test_a_key_that_is_too_short(files):
    openssl(
        *("req", "-x509", "-newkey", "rsa:512", "-nodes", "-subj", "/CN=mx.example.test"),
        *("-keyout", files / "short.key", "-out", files / "short.pem"),
    )
    assert "the key is too short to be trusted" in said(files, cert="short.pem", key="short.key")


@pytest.mark.parametrize(("name", "says"), [("absent", "No such file"), ("key.pem", "damaged"), ("text", "PEM form")])
def test_a_file_of_authorities(files, name, says):
    (files / "text").write_text("no certificate")
    with pytest.raises(ConfigError, match=f"tls.smtp_tls_CAfile: .*{says}"):
        client_context("verify", str(files / name))
