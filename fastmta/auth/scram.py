"""SCRAM's keys and proofs (RFC 5802 §3, RFC 7677), which client and server both compute.

No message is written or read here: sasl_client.py has the client's side, sasl_scram.py the server's.
"""

import hashlib
import hmac
import os
from typing import Final

from fastmta.model.credentials import ScramKeys

HASHES: Final = {"SCRAM-SHA-1": "sha1", "SCRAM-SHA-256": "sha256"}
ITERATIONS: Final = 4096  # of the keys that we derive; RFC 7677 §4 asks for no less, and phones pay for more
SALT_BYTES: Final = 16


def salted_password(hash_name: str, password: str, salt: bytes, iterations: int) -> bytes:
    """The costly part: a millisecond or two for 4,096 iterations, without the GIL."""
    return hashlib.pbkdf2_hmac(hash_name, prepared(password).encode("utf-8", "surrogatepass"), salt, iterations)


def client_key(hash_name: str, salted: bytes) -> bytes:
    return hmac.digest(salted, b"Client Key", hash_name)


def server_key(hash_name: str, salted: bytes) -> bytes:
    return hmac.digest(salted, b"Server Key", hash_name)


def stored_key(hash_name: str, key: bytes) -> bytes:
    return hashlib.new(hash_name, key).digest()


def derive(mechanism: str, password: str, salt: bytes, iterations: int = ITERATIONS) -> ScramKeys:
    """What is kept of a password."""
    hash_name = HASHES[mechanism]
    salted = salted_password(hash_name, password, salt, iterations)
    stored = stored_key(hash_name, client_key(hash_name, salted))
    return ScramKeys(salt, iterations, stored, server_key(hash_name, salted))


def derive_all(password: str) -> dict[str, ScramKeys]:
    """The keys of every mechanism, under new salts. Takes some milliseconds: not for the event loop."""
    return {mechanism: derive(mechanism, password, os.urandom(SALT_BYTES)) for mechanism in HASHES}


def masked(hash_name: str, stored: bytes, message: bytes, key: bytes) -> bytes:
    """The client's key under the signature of this exchange, or the key again where `key` is what came so."""
    signature = hmac.digest(stored, message, hash_name)
    return bytes(a ^ b for a, b in zip(key, signature, strict=True))


def sasl_name(name: str) -> str:
    """A user name as messages carry it (RFC 5801 §4)."""
    return name.replace("=", "=3D").replace(",", "=2C")


def prepared(text: str) -> str:
    """SASLprep (RFC 4013 §2.1, §2.2): other spaces become spaces, what has no width goes, compatibility forms fold.

    What it prohibits is left in: a server that took such a password has not applied it either.
    """
    if text.isascii():
        return text
    import stringprep
    import unicodedata

    mapped = (" " if stringprep.in_table_c12(c) else c for c in text if not stringprep.in_table_b1(c))
    return unicodedata.normalize("NFKC", "".join(mapped))
