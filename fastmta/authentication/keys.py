"""DKIM's public keys in the DNS (RFC 6376 §3.6.1, RFC 8463), and the one public-key operation of verifying."""

from functools import lru_cache
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import load_der_public_key

from fastmta.authentication.tags import TagError, colon_list, decode_base64, parse_tags
from fastmta.model.limits import DKIM_KEPT_KEY_BYTES, DKIM_KEYS, DKIM_RSA_BITS, DKIM_RSA_EXPONENT_BITS

_SHA256: Final = Prehashed(hashes.SHA256())
_PKCS1: Final = padding.PKCS1v15()


class BadKey(ValueError):
    """No usable key; the text says why, for the result's reason."""


class WeakKey(BadKey):
    """An RSA key that RFC 8301 §3.2 forbids to believe."""


class PublicKey(NamedTuple):
    """A key record: what it may be used for, and the key."""

    kind: str  # "rsa" or "ed25519"
    key: RSAPublicKey | Ed25519PublicKey
    hashes: tuple[str, ...]  # empty: all
    testing: bool  # t=y
    same_domain: bool  # t=s: i= must have the very domain of d=
    bits: int

    def verify(self, digest: bytes, signature: bytes) -> bool:
        """Whether `signature` is of this SHA-256 `digest`. Half a millisecond at most; frees the interpreter lock."""
        try:
            if isinstance(self.key, RSAPublicKey):
                self.key.verify(signature, digest, _PKCS1, _SHA256)
            else:
                self.key.verify(signature, digest)  # RFC 8463 §3: Ed25519 signs the digest itself
        except (InvalidSignature, ValueError):  # ValueError: a hostile key that could be read but not used
            return False
        return True


def parse_key(raw: bytes) -> PublicKey:
    """One TXT record's key. Raises BadKey with the reason that a result may show.

    The key is a function of the record alone, and kept by it: to load one costs as much as to verify with it.
    """
    return _kept(raw) if len(raw) <= DKIM_KEPT_KEY_BYTES else _parse(raw)


def _parse(raw: bytes) -> PublicKey:
    try:
        tags = parse_tags(raw)
    except TagError as error:
        raise BadKey(f"the key record is malformed: {error}") from error
    if "v" in tags and (next(iter(tags)) != "v" or tags["v"] != b"DKIM1"):
        raise BadKey("the key record has another version")
    if "p" not in tags:
        raise BadKey("the key record has no p=")
    services = [word.lower() for word in colon_list(tags["s"])] if "s" in tags else [b"*"]
    if b"*" not in services and b"email" not in services:
        raise BadKey("the key is not for e-mail")
    algorithms = tuple(word.lower().decode("ascii", "replace") for word in colon_list(tags["h"])) if "h" in tags else ()
    flags = [word.lower() for word in colon_list(tags.get("t", b""))]
    if not tags["p"]:
        raise BadKey("the key is revoked")
    try:
        der = decode_base64(tags["p"])
    except TagError as error:
        raise BadKey("the key is not base64") from error
    kind = tags.get("k", b"rsa").lower().decode("ascii", "replace")
    key, bits = _load(kind, der)
    return PublicKey(kind, key, algorithms, b"y" in flags, b"s" in flags, bits)


_kept: Final = lru_cache(DKIM_KEYS)(_parse)


def _load(kind: str, der: bytes) -> tuple[RSAPublicKey | Ed25519PublicKey, int]:
    if kind == "ed25519":
        if len(der) != 32:
            raise BadKey("an Ed25519 key has 32 octets")
        try:
            return Ed25519PublicKey.from_public_bytes(der), 256
        except ValueError as error:
            raise BadKey("the key cannot be read") from error
    if kind != "rsa":
        raise BadKey("the key is of an unknown kind")
    try:
        key = load_der_public_key(der)
    except Exception as error:  # the library raises several kinds for hostile octets
        raise BadKey("the key cannot be read") from error
    if not isinstance(key, RSAPublicKey):
        raise BadKey("the key is not RSA")
    least, most = DKIM_RSA_BITS
    if not least <= key.key_size <= most:
        raise WeakKey(f"an RSA key of {key.key_size} bits is not believed (RFC 8301)")
    if key.public_numbers().e.bit_length() > DKIM_RSA_EXPONENT_BITS:
        raise BadKey("the RSA key has an exponent that is too long")
    return key, key.key_size
