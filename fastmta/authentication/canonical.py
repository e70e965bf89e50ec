"""The hashes of what a signature covers, in its canonical form (RFC 6376 §3.4, §3.7). The forms are _canonical's."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Final, Literal

from fastmta._canonical import BodyForm, Field, canonical_field, header_form, signed_fields

Form = Literal["simple", "relaxed"]

_AT_ONCE: Final = 2047  # for more hashlib gives the interpreter's lock up, and whoever takes it makes us wait


def feed(digest: "hashlib._Hash", data: bytes) -> None:
    """Updates a hash with something short, without giving the interpreter's lock up."""
    for at in range(0, len(data), _AT_ONCE):
        digest.update(data[at : at + _AT_ONCE])


def sha256(data: bytes) -> bytes:
    """The digest of something short, made without giving the interpreter's lock up."""
    if len(data) <= _AT_ONCE:
        return hashlib.sha256(data).digest()
    digest = hashlib.sha256()
    feed(digest, data)
    return digest.digest()


def header_digest(fields: Sequence[Field], names: Sequence[bytes], form: Form, own: Field) -> bytes:
    """The SHA-256 of the signed fields and, last, of the signature's own without b= and its CRLF (§3.7)."""
    return sha256(header_form(fields, names, form, own))


class BodyHash:
    """The SHA-256 of a body's canonical form (§3.4.3, §3.4.4), fed in pieces of which nothing is kept."""

    __slots__ = ("_form", "_hash", "update")

    def __init__(self, form: Form, emit: Callable[[bytes], object] | None = None) -> None:
        """`emit` gets the canonical octets instead of the hash."""
        self._hash = hashlib.sha256()
        self._form = BodyForm(form, emit or self._hash.update)
        self.update = self._form.update

    def digest(self) -> bytes:
        """Ends the body; once. A last line without CRLF gets one."""
        self._form.finish()
        return self._hash.digest()


def canonical_body(body: bytes, form: Form) -> bytes:
    """The canonical form of a whole body."""
    pieces: list[bytes] = []
    hasher = BodyHash(form, pieces.append)
    hasher.update(body)
    hasher.digest()
    return b"".join(pieces)


__all__ = ["BodyHash", "Form", "canonical_body", "canonical_field", "feed", "header_digest", "sha256", "signed_fields"]
