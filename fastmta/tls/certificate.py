"""A self-signed certificate for `fastmta init`, so that a fresh server speaks TLS before it has a real one.

It proves nothing to a peer; opportunistic SMTP takes it, mail clients ask. Left to others: ACME and renewal.
"""

import contextlib
import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

VALID_DAYS: Final = 3650  # nobody is served by a self-signed certificate that runs out
_CLOCK_SKEW: Final = datetime.timedelta(hours=1)


def write_self_signed(
    cert_path: Path, key_path: Path, names: Sequence[str], *, until: datetime.datetime | None = None
) -> None:
    """Writes an ECDSA P-256 key (mode 0600) and a certificate for `names` (DNS names or IP addresses; at least one),
    valid for ten years, or up to `until`.

    Raises FileExistsError rather than replace either file: a key that is in use cannot be had back.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    if cert_path.exists():
        raise FileExistsError(17, "File exists", str(cert_path))
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    alternatives: list[x509.GeneralName] = []
    for name in names:
        try:
            alternatives.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            alternatives.append(x509.DNSName(name))
    now = datetime.datetime.now(datetime.UTC)
    end = until or now + datetime.timedelta(days=VALID_DAYS)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(now, end) - _CLOCK_SKEW)
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    raw_key = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write_new(key_path, raw_key, 0o600)
    try:
        _write_new(cert_path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    except OSError:
        with contextlib.suppress(OSError):
            key_path.unlink()
        raise


def _write_new(path: Path, raw: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
