"""What is wrong with the certificate and key files, in an administrator's words: OpenSSL's own are "pem lib".

`file_problem` is asked only after a context refused the files, `certificate_doubts` by `fastmta check`.
"""

import datetime
import ssl
from pathlib import Path
from typing import Final, NamedTuple

SOON_DAYS: Final = 14
_FILE_BYTES: Final = 1 << 20  # a chain of certificates is a few kilobytes
_WEAK: Final = {
    "EE_KEY_TOO_SMALL": "the key is too short to be trusted: make one of 2048 bits or more, or an elliptic one",
    "CA_KEY_TOO_SMALL": "a key in the chain is too short to be trusted",
    "CA_MD_TOO_WEAK": "the certificate is signed with a digest that is no longer trusted",
}


class Keys(NamedTuple):
    """The names that a certificate and its key have in the configuration."""

    cert: str = "cert_file"
    key: str = "key_file"


KEYS: Final = Keys()


def file_problem(cert_file: str, key_file: str, error: OSError, keys: Keys = KEYS) -> str:
    """One line that names key, file and remedy, for a certificate and key that OpenSSL refused with `error`."""
    return (
        _certificate_problem(cert_file, keys)
        or _key_problem(cert_file, key_file, keys)
        or _pair_problem(cert_file, key_file or cert_file, error, keys)
    )


def authorities_problem(ca_file: str, error: OSError, key: str = "tls.smtp_tls_CAfile") -> str:
    """As file_problem, for the file of trusted authorities."""
    raw = _read(key, ca_file)
    if isinstance(raw, str):
        return raw
    if b"-----BEGIN " not in raw:
        return f"{key}: {ca_file} holds no certificate in PEM form (no line BEGIN CERTIFICATE)"
    return f"{key}: {ca_file} is damaged: {_reason(error)}"


def certificate_doubts(cert_file: str, hostname: str, now: datetime.datetime) -> list[str]:
    """What a peer would find wrong with a certificate that can be used: expiry and names. Reads the file."""
    from cryptography import x509

    try:
        leaf = x509.load_pem_x509_certificates(Path(cert_file).read_bytes())[0]
    except (OSError, ValueError) as error:
        return [f"{cert_file} cannot be examined: {error}"]
    out = []
    until, since = leaf.not_valid_after_utc, leaf.not_valid_before_utc
    if until <= now:
        out.append(f"{cert_file} expired on {until:%Y-%m-%d}: clients that verify it will refuse; renew it")
    elif until - now < datetime.timedelta(days=SOON_DAYS):
        out.append(f"{cert_file} expires on {until:%Y-%m-%d}, in {(until - now).days} days: renew it")
    if since > now:
        out.append(f"{cert_file} is not valid before {since:%Y-%m-%d %H:%M} UTC: is the clock right?")
    names = _names(leaf)
    if not any(_covers(name, hostname.lower()) for name in names):
        found = ", ".join(names[:5]) or "no name"
        out.append(f"{cert_file} is for {found} and not for myhostname, {hostname}: clients that verify it will refuse")
    return out


def _certificate_problem(cert_file: str, keys: Keys) -> str:
    key = f"tls.{keys.cert}"
    raw = _read(key, cert_file)
    if isinstance(raw, str):
        return raw
    if b"-----BEGIN CERTIFICATE-----" in raw or b"-----BEGIN TRUSTED CERTIFICATE-----" in raw:
        return ""
    if b"PRIVATE KEY-----" in raw:
        return f"{key}: {cert_file} holds a private key and no certificate: are {keys.cert} and {keys.key} exchanged?"
    if raw[:1] == b"\x30":
        remedy = f"openssl x509 -inform DER -in {cert_file} -out cert.pem"
        return f"{key}: {cert_file} is in DER form and not in PEM; convert it with `{remedy}`"
    return f"{key}: {cert_file} holds no certificate in PEM form (no line BEGIN CERTIFICATE)"


def _key_problem(cert_file: str, key_file: str, keys: Keys) -> str:
    name, path = (keys.key, key_file) if key_file else (keys.cert, cert_file)
    key = f"tls.{name}"
    raw = _read(key, path)
    if isinstance(raw, str):
        return raw
    if b"ENCRYPTED" in raw and b"PRIVATE KEY-----" in raw:
        remedy = f"openssl pkey -in {path} -out plain.pem"
        return f"{key}: the key in {path} is encrypted, and nobody is there to type its password; use `{remedy}`"
    if b"PRIVATE KEY-----" in raw:
        return ""
    if not key_file:
        return f"{key}: {path} holds no private key: name its file in tls.{keys.key}"
    if b"-----BEGIN CERTIFICATE-----" in raw:
        return f"{key}: {path} holds a certificate and no private key: are {keys.cert} and {keys.key} exchanged?"
    if raw[:1] == b"\x30":
        remedy = f"openssl pkey -inform DER -in {path} -out key.pem"
        return f"{key}: {path} is in DER form and not in PEM; convert it with `{remedy}`"
    return f"{key}: {path} holds no private key in PEM form (no line BEGIN PRIVATE KEY)"


def _pair_problem(cert_file: str, key_file: str, error: OSError, keys: Keys) -> str:
    reason = error.reason if isinstance(error, ssl.SSLError) else ""
    if reason in {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}:
        return (
            f"tls.{keys.key}: the key in {key_file} does not belong to the first certificate in {cert_file} "
            "(the server's own comes first, then its issuers)"
        )
    if reason in _WEAK:
        return f"tls.{keys.cert}: {cert_file}: {_WEAK[reason]}"
    damaged = cert_file if _is_damaged(cert_file) else key_file
    key = f"tls.{keys.cert if damaged == cert_file else keys.key}"
    return f"{key}: {damaged} is damaged or cut short: OpenSSL says {_reason(error)}"


def _is_damaged(cert_file: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=cert_file)
    except (OSError, ssl.SSLError):
        return True
    return False


def _read(key: str, path: str) -> bytes | str:
    """The start of a file, or the line that says why it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read(_FILE_BYTES)
    except OSError as error:
        return f"{key}: {path}: {error.strerror or error}"


def result_type(error: Exception) -> str:
    """What a handshake failed by, as TLS reports name it (RFC 8460 §4.3)."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return "validation-failure"
    if error.verify_code == 10:  # X509_V_ERR_CERT_HAS_EXPIRED
        return "certificate-expired"
    return "certificate-host-mismatch" if error.verify_code == 62 else "certificate-not-trusted"


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return str(error.reason or error).lower().replace("_", " ")
    return (error.strerror or str(error)).lower()


def _names(certificate: object) -> list[str]:
    from cryptography import x509

    assert isinstance(certificate, x509.Certificate)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [name.lower() for name in names.get_values_for_type(x509.DNSName)]


def _covers(pattern: str, hostname: str) -> bool:
    """RFC 6125 §6.4.3: a `*` stands for the whole of the first label."""
    if pattern.startswith("*."):
        return hostname.partition(".")[2] == pattern[2:]
    return pattern == hostname
