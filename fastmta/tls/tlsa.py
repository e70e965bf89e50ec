"""What TLSA records say of a server's certificate (RFC 6698, with RFC 7672's rules for SMTP).

Of the usages only DANE-EE(3) and DANE-TA(2) count in SMTP; PKIX-TA(0) and PKIX-EE(1) are unusable (RFC 7672 §3.1.3).
DANE-EE asks for nothing but the key: neither names nor dates. DANE-TA asks for a chain from the leaf to the anchor that
is valid today, and for one of the reference names in the leaf (§3.1.2, §3.2.3).
"""

import datetime
import hashlib
import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from cryptography import x509

CHAIN: Final = 10  # certificates of a chain that are looked at
_DIGESTS: Final = {1: "sha256", 2: "sha512"}
_ENTITY, _ANCHOR = 3, 2


class Tlsa(msgspec.Struct, frozen=True, gc=False):
    """One record."""

    usage: int
    selector: int
    matching: int
    data: bytes

    @property
    def is_usable(self) -> bool:
        if self.usage not in (_ENTITY, _ANCHOR) or self.selector not in (0, 1):
            return False
        digest = _DIGESTS.get(self.matching)
        return (
            bool(self.data)
            if self.matching == 0
            else digest is not None and (len(self.data) == hashlib.new(digest).digest_size)
        )

    def fits(self, certificate: "x509.Certificate") -> bool:
        """Whether the record stands for this certificate, or its key."""
        raw = public_key_der(certificate) if self.selector else _der(certificate)
        return self.data == (raw if self.matching == 0 else hashlib.new(_DIGESTS[self.matching], raw).digest())


def presented_chain(tls: ssl.SSLObject | ssl.SSLSocket) -> list[bytes]:
    """The certificates that the server sent, leaf first, in DER form; none of them need be good."""
    get: Any = getattr(tls, "get_unverified_chain", None)
    if get is not None:  # Python 3.13
        return list(get() or ())[:CHAIN]
    inner: Any = getattr(tls, "_sslobj", None)
    found = inner.get_unverified_chain() if inner is not None else None
    if found:
        return [ssl.PEM_cert_to_DER_cert(each.public_bytes()) for each in found[:CHAIN]]
    leaf = tls.getpeercert(binary_form=True)
    return [leaf] if leaf else []


def matching_record(
    chain: Sequence[bytes], records: Sequence[Tlsa], names: Sequence[str], now: datetime.datetime
) -> Tlsa | None:
    """The record by which a presented chain is the server's; None: none. `names`: the reference identifiers."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return _matching([x509.load_der_x509_certificate(raw) for raw in chain], records, names, now)
    except (
        ValueError,
        x509.InvalidVersion,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
        UnsupportedAlgorithm,
    ):  # what the TLS library took may still be more than can be read here
        return None


def _matching(
    certificates: "Sequence[x509.Certificate]", records: Sequence[Tlsa], names: Sequence[str], now: datetime.datetime
) -> Tlsa | None:
    if not certificates:
        return None
    for record in records:
        if record.is_usable and record.usage == _ENTITY and record.fits(certificates[0]):
            return record
    anchors = [record for record in records if record.is_usable and record.usage == _ANCHOR]
    if not anchors or not _has_name(certificates[0], names):
        return None
    for record in anchors:
        extra = _embedded(record)
        if _leads_to(certificates, [*certificates[1:], *extra], record, now):
            return record
    return None


def _embedded(record: Tlsa) -> "list[x509.Certificate]":
    """The anchor itself, where the record holds it whole: a server need not send it."""
    from cryptography import x509

    if record.selector or record.matching:
        return []
    try:
        return [x509.load_der_x509_certificate(record.data)]
    except ValueError:
        return []


def _leads_to(
    chain: "Sequence[x509.Certificate]", pool: "Sequence[x509.Certificate]", record: Tlsa, now: datetime.datetime
) -> bool:
    """Whether signatures lead from the leaf to a certificate that the record stands for, all of them valid today."""
    current = chain[0]
    for _ in range(CHAIN):
        if not current.not_valid_before_utc <= now <= current.not_valid_after_utc:
            return False
        if current is not chain[0] and record.fits(current):
            return True
        issuer = next((each for each in pool if each is not current and _issued(current, each)), None)
        if issuer is None:
            return False
        current = issuer
    return False


def _issued(certificate: "x509.Certificate", issuer: "x509.Certificate") -> bool:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    try:
        if not issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            return False
        certificate.verify_directly_issued_by(issuer)
    except (x509.ExtensionNotFound, ValueError, TypeError, InvalidSignature):
        return False
    return True


def _has_name(certificate: "x509.Certificate", names: Sequence[str]) -> bool:
    from cryptography import x509

    try:
        value = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = [name.lower() for name in value.get_values_for_type(x509.DNSName)]
    except (x509.ExtensionNotFound, ValueError):
        found = []
    if not found:  # RFC 7672 §3.2.3 lets the common name stand where there is no DNS name
        common = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        found = [str(each.value).lower() for each in common]
    wanted = {name.lower().rstrip(".") for name in names}
    return any(name in wanted or (name.startswith("*.") and _below(name[2:], wanted)) for name in found)


def _below(parent: str, wanted: set[str]) -> bool:
    return "." in parent and any(each.partition(".")[2] == parent for each in wanted)


def _der(certificate: "x509.Certificate") -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.DER)


def public_key_der(certificate: "x509.Certificate") -> bytes:
    """The SubjectPublicKeyInfo."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def fingerprints(leaf: bytes, digest: str) -> tuple[str, ...]:
    """Those of a certificate and of its key, as `AB:CD:...`; either identifies it at level fingerprint."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        key = public_key_der(x509.load_der_x509_certificate(leaf))
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm):
        key = b""
    return tuple(hashlib.new(digest, raw).digest().hex(":").upper() for raw in (leaf, key) if raw)
