"""Certificates for tests: an authority, what it issues, and the TLSA records of both."""

import datetime
import hashlib
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


class Issued:
    """A certificate with its key, and those above it."""

    def __init__(self, certificate, key, above):
        self.certificate, self.key, self.above = certificate, key, above

    def der(self):
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def spki(self):
        return self.certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def chain(self):
        return [self.der(), *(each.der() for each in self.above)]

    def tlsa(self, usage, selector, matching):
        """The record's text."""
        raw = self.spki() if selector else self.der()
        data = {0: lambda: raw, 1: hashlib.sha256(raw).digest, 2: hashlib.sha512(raw).digest}[matching]()
        return f"{usage} {selector} {matching} {data.hex()}"

    def fingerprint(self, *, key=False, digest="sha256"):
        return hashlib.new(digest, self.spki() if key else self.der()).digest().hex(":").upper()

    def write(self, directory, name, *, with_chain=True):
        """Writes NAME.pem and NAME.key; gives the path of the certificate."""
        pem = serialization.Encoding.PEM
        chain = [self, *(self.above if with_chain else ())]
        (Path(directory) / f"{name}.pem").write_bytes(b"".join(each.certificate.public_bytes(pem) for each in chain))
        raw = self.key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (Path(directory) / f"{name}.key").write_bytes(raw)
        return str(Path(directory) / f"{name}.pem")

    def context(self, directory, name="server", **options):
        """A server's context."""
        path = self.write(directory, name, **options)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path, path.replace(".pem", ".key"))
        return context


def issue(names, issuer=None, *, ca=False, since=-DAY, until=30 * DAY):
    """A certificate for `names` by `issuer`, or by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + since)
        .not_valid_after(now + until)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if not ca:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
    certificate = builder.sign(issuer.key if issuer else key, hashes.SHA256())
    return Issued(certificate, key, [issuer, *issuer.above] if issuer else [])


def revoked(authority, certificates):
    """The authority's list of what it takes back, as PEM."""
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateRevocationListBuilder().issuer_name(authority.certificate.subject)
    builder = builder.last_update(now - DAY).next_update(now + DAY)
    for each in certificates:
        entry = x509.RevokedCertificateBuilder().serial_number(each.certificate.serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(now - DAY).build())
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
