"""RSA keys made once a process: each costs a tenth of a second of CPU, and more the longer it is."""

from functools import lru_cache

from cryptography.hazmat.primitives.asymmetric import rsa

_make = rsa.generate_private_key  # a test may have put this module's function in its place


@lru_cache(maxsize=64)
def rsa_key(number: int = 0, bits: int = 2048) -> rsa.RSAPrivateKey:
    """The same key for the same `number`, another one for another."""
    return _make(65537, bits)
