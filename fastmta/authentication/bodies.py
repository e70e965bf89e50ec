"""The hashes of one message's body in the forms that its signatures ask for, made in one pass."""

from collections.abc import Iterable, Sequence
from typing import Final

from fastmta._canonical import body_form_of
from fastmta.authentication.canonical import BodyHash, Form
from fastmta.authentication.message import Field, named
from fastmta.model.limits import ARC_SETS, DKIM_SIGNATURES

# How many are looked at. With more than ARC_SETS the chain is broken before its body is asked for.
_SIGNATURES: Final = ((b"dkim-signature", DKIM_SIGNATURES), (b"arc-message-signature", ARC_SETS))


class Bodies:
    """Fed with the body in pieces; `digest` ends it."""

    __slots__ = ("_digests", "_hashers")

    def __init__(self, forms: Iterable[Form] = ("simple", "relaxed")) -> None:
        self._hashers = {form: BodyHash(form) for form in forms}
        self._digests: dict[Form, bytes] = {}

    def update(self, piece: bytes) -> None:
        for hasher in self._hashers.values():
            hasher.update(piece)

    def digest(self, form: Form) -> bytes:
        """The SHA-256 of the body in this form, which must be one of those given at first."""
        known = self._digests.get(form)
        if known is None:
            known = self._digests[form] = self._hashers[form].digest()
        return known


def forms_needed(fields: Sequence[Field]) -> tuple[Form, ...]:
    """The forms that a message's signatures ask for: one that is not needed is not paid for."""
    needed: set[Form] = set()
    for name, most in _SIGNATURES:
        for field in named(fields, name)[:most]:
            form = body_form_of(field)
            if form is not None:
                needed.add(form)
    return tuple(sorted(needed))
