"""What lets an account in beside its password, as values that store and checks share."""

import msgspec


class ScramKeys(msgspec.Struct, frozen=True, gc=False):
    """What is kept of a password for one SCRAM mechanism (RFC 5802 §3)."""

    salt: bytes
    iterations: int
    stored: bytes
    server: bytes


class Totp(msgspec.Struct, frozen=True, gc=False):
    """What one-time codes are made of (RFC 6238). `last_step`: of the last code that was used, 0: none was."""

    secret: bytes
    last_step: int
    created_at_s: int


class AppPassword(msgspec.Struct, frozen=True, gc=False):
    """A password for one program. `protocols`: imap, pop3, smtp; empty for all."""

    name: str
    protocols: tuple[str, ...]
    created_at_s: int
