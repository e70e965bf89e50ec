"""DKIM: the verdict on each signature of a message (RFC 6376 §6)."""

from collections.abc import Sequence
from typing import NamedTuple

from fastmta.authentication.bodies import Bodies
from fastmta.authentication.message import Field, named
from fastmta.authentication.signature import (
    Offload,
    Outcome,
    Signature,
    TxtLookup,
    acceptable,
    parse_signature,
    verify_signature,
)
from fastmta.authentication.tags import TagError, without_spaces
from fastmta.model.limits import DKIM_SIGNATURES


class DkimVerdict(NamedTuple):
    """One signature's end. `testing`: the key says t=y, and a failure must not be held against the message."""

    result: str
    domain: str
    selector: str
    reason: str
    shown: str = ""  # the beginning of b=
    algorithm: str = ""
    bits: int = 0
    testing: bool = False


def signatures_of(fields: Sequence[Field]) -> list[Field]:
    """The DKIM-Signature fields that are looked at, the topmost (newest) first."""
    return named(fields, b"dkim-signature")[:DKIM_SIGNATURES]


async def verify_dkim(
    fields: Sequence[Field], bodies: Bodies, dns: TxtLookup, offload: Offload, now: float
) -> tuple[DkimVerdict, ...]:
    """The verdicts in the order of the fields; none where nothing is signed. `now` is in seconds."""
    verdicts = []
    for field in signatures_of(fields):
        try:
            signature = parse_signature(field)
        except TagError as error:
            verdicts.append(_malformed(field, str(error)))
            continue
        outcome = acceptable(signature, now)
        key = None
        if outcome is None:
            outcome, key = await verify_signature(signature, fields, bodies.digest(signature.body_form), dns, offload)
        verdicts.append(_verdict(signature, outcome, key.bits if key else 0, bool(key and key.testing)))
    return tuple(verdicts)


def _verdict(signature: Signature, outcome: Outcome, bits: int, testing: bool) -> DkimVerdict:
    return DkimVerdict(
        outcome.result,
        signature.domain,
        signature.selector,
        outcome.reason,
        signature.shown,
        signature.algorithm,
        bits,
        testing,
    )


def _malformed(field: Field, reason: str) -> DkimVerdict:
    try:
        tags = field.tags
    except TagError:
        tags = {}

    def shown(name: str) -> str:
        return without_spaces(tags.get(name, b""))[:253].decode("ascii", "replace").lower()

    return DkimVerdict("permerror", shown("d"), shown("s"), reason)
