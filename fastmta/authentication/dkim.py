"""DKIM: the verdict on each signature of a message (RFC 6376 §6)."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from fastmta.authentication.asking import side_by_side
from fastmta.authentication.bodies import Bodies
from fastmta.authentication.keys import PublicKey
from fastmta.authentication.message import Field, named
from fastmta.authentication.signature import (
    Offload,
    Operation,
    Outcome,
    Signature,
    TxtLookup,
    acceptable,
    hold,
    parse_signature,
    prepare,
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


class Checked(NamedTuple):
    """Signatures up to their public-key operations: a verdict, or one that holds if the next operation does."""

    verdicts: tuple[tuple[DkimVerdict, bool], ...]  # (the verdict, whether it depends on an operation)
    operations: tuple[Operation, ...]

    def done(self, held: Sequence[bool]) -> tuple[DkimVerdict, ...]:
        """The verdicts, where the operations have come to `held`."""
        left = iter(held)
        return tuple(
            verdict._replace(result="fail", reason="signature did not verify")
            if depends and not next(left)
            else verdict
            for verdict, depends in self.verdicts
        )


async def prepare_dkim(fields: Sequence[Field], bodies: Bodies, dns: TxtLookup, now: float) -> Checked:
    """The signatures in the order of their fields. `now` is in seconds.

    Their keys are asked for side by side: one after the other those of slow servers would leave no time for the rest.
    """
    every = [partial(_prepare_one, field, fields, bodies, dns, now) for field in signatures_of(fields)]
    found = await side_by_side(*every) if len(every) > 1 else [await one() for one in every]
    return Checked(
        tuple((verdict, operation is not None) for verdict, operation in found),
        tuple(operation for _, operation in found if operation is not None),
    )


async def _prepare_one(
    field: Field, fields: Sequence[Field], bodies: Bodies, dns: TxtLookup, now: float
) -> tuple[DkimVerdict, Operation | None]:
    try:
        signature = parse_signature(field)
    except TagError as error:
        return _malformed(field, str(error)), None
    outcome: Outcome | Operation | None = acceptable(signature, now)
    key = None
    if outcome is None:
        outcome, key = await prepare(signature, fields, bodies.digest(signature.body_form), dns)
    if isinstance(outcome, Operation):
        return _verdict(signature, Outcome("pass"), key), outcome
    return _verdict(signature, outcome, key), None


async def verify_dkim(
    fields: Sequence[Field], bodies: Bodies, dns: TxtLookup, offload: Offload, now: float
) -> tuple[DkimVerdict, ...]:
    """The verdicts in the order of the fields; none where nothing is signed. `now` is in seconds."""
    checked = await prepare_dkim(fields, bodies, dns, now)
    held: list[bool] = []
    if checked.operations:
        held, _ = await offload(hold, checked.operations, ())
    return checked.done(held)


def _verdict(signature: Signature, outcome: Outcome, key: PublicKey | None) -> DkimVerdict:
    return DkimVerdict(
        outcome.result,
        signature.domain,
        signature.selector,
        outcome.reason,
        signature.shown,
        signature.algorithm,
        key.bits if key is not None else 0,
        key is not None and key.testing,
    )


def _malformed(field: Field, reason: str) -> DkimVerdict:
    try:
        tags = field.tags
    except TagError:
        tags = {}

    def shown(name: str) -> str:
        return without_spaces(tags.get(name, b""))[:253].decode("ascii", "replace").lower()

    return DkimVerdict("permerror", shown("d"), shown("s"), reason)
