"""ARC: whether a message's chain of custody holds (RFC 8617 §5.2)."""

import hashlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from fastmta._canonical import arc_instance, joined, with_names
from fastmta.authentication.bodies import Bodies
from fastmta.authentication.canonical import feed, sha256
from fastmta.authentication.message import Field
from fastmta.authentication.signature import (
    ALGORITHMS,
    Offload,
    Operation,
    Outcome,
    TxtLookup,
    acceptable,
    domain_of,
    fetch_key,
    hold,
    parse_signature,
    prepare,
)
from fastmta.authentication.tags import TagError, decode_base64

SEAL: Final = b"arc-seal"
SIGNATURE: Final = b"arc-message-signature"
RESULTS: Final = b"arc-authentication-results"
_KINDS: Final = (RESULTS, SIGNATURE, SEAL)
_NAMES: Final = frozenset(_KINDS)
_NOT_IN_SEAL: Final = ("h", "bh", "c", "l", "q", "x")  # RFC 8617 §4.1.3: a seal that has h= fails


class ArcSet(NamedTuple):
    """The three fields of one instance."""

    instance: int
    results: Field
    signature: Field
    seal: Field


class ArcVerdict(NamedTuple):
    """The chain's end. `instance` is the highest one that was seen, 0 where there is none."""

    result: str  # none, pass, fail
    instance: int
    reason: str
    oldest_pass: int = 0
    sealers: tuple[str, ...] = ()  # d= of the seals, the first instance's first


class BrokenChain(ValueError):
    """The sets are not what RFC 8617 §5.2 asks for; the text says why."""

    def __init__(self, instance: int, reason: str) -> None:
        super().__init__(reason)
        self.instance = instance


def collect_sets(fields: Sequence[Field]) -> list[ArcSet]:
    """The sets by ascending instance; BrokenChain where they are not whole, unique and without a gap."""
    found: dict[bytes, dict[int, Field]] = {kind: {} for kind in _KINDS}
    highest = 0
    for field in with_names(fields, _NAMES):
        try:
            instance = arc_instance(field)
        except TagError as error:
            raise BrokenChain(highest, str(error)) from error
        highest = max(highest, instance)
        if instance in found[field.name]:
            raise BrokenChain(highest, f"instance {instance} stands twice")
        found[field.name][instance] = field
    sets = []
    results, signatures, seals = (found[kind] for kind in _KINDS)
    for instance in range(1, highest + 1):
        if not (instance in results and instance in signatures and instance in seals):
            raise BrokenChain(highest, f"the set of instance {instance} is not whole")
        sets.append(ArcSet(instance, results[instance], signatures[instance], seals[instance]))
    return sets


def has_chain(fields: Sequence[Field]) -> bool:
    return bool(with_names(fields, _NAMES))


class CheckedChain(NamedTuple):
    """A chain up to its public-key operations: its newest message signature's, then its seals', newest first."""

    verdict: ArcVerdict  # where all operations hold
    operations: tuple[Operation, ...] = ()

    def done(self, held: int) -> ArcVerdict:
        """The verdict, where so many of the operations hold from their beginning."""
        if held == len(self.operations):
            return self.verdict
        newest = self.verdict.instance
        what = f"seal {newest - held + 1}" if held else f"message signature {newest}"
        return ArcVerdict("fail", newest, f"{what}: signature did not verify")


async def prepare_arc(fields: Sequence[Field], bodies: Bodies, dns: TxtLookup, now: float) -> CheckedChain:
    """The chain's state as the next seal's cv= would say it. What is broken without an operation ends their list."""
    if not has_chain(fields):
        return CheckedChain(ArcVerdict("none", 0, ""))
    try:
        sets = collect_sets(fields)
        seals = [_seal_tags(one) for one in sets]
    except BrokenChain as error:
        return CheckedChain(ArcVerdict("fail", error.instance, str(error)))
    newest = sets[-1].instance
    outcome = await _message_signature(sets[-1], fields, bodies, dns, now)
    if isinstance(outcome, Outcome):
        return CheckedChain(ArcVerdict("fail", newest, f"message signature {newest}: {outcome.reason}"))
    operations = [outcome]
    digests = seal_digests(sets)
    for place in range(len(sets) - 1, -1, -1):
        seal = await _seal(digests[place], seals[place], dns)
        if isinstance(seal, str):
            return CheckedChain(ArcVerdict("fail", newest, f"seal {place + 1}: {seal}"), tuple(operations))
        operations.append(seal)
    sealers = tuple(domain_of(tags["d"]) for tags in seals)
    return CheckedChain(ArcVerdict("pass", newest, "", sealers=sealers), tuple(operations))


async def verify_arc(
    fields: Sequence[Field], bodies: Bodies, dns: TxtLookup, offload: Offload, now: float
) -> ArcVerdict:
    """The chain's state as the next seal's cv= would say it."""
    chain = await prepare_arc(fields, bodies, dns, now)
    held = 0
    if chain.operations:
        _, held = await offload(hold, (), chain.operations)
    return chain.done(held)


def _seal_tags(one: ArcSet) -> dict[str, bytes]:
    """The seal's tags; BrokenChain where its form or its cv= breaks the chain (§5.2 items 2 and 3)."""
    try:
        tags = one.seal.tags
    except TagError as error:
        raise BrokenChain(one.instance, f"seal {one.instance}: {error}") from error
    for name in ("a", "b", "cv", "d", "s"):
        if not tags.get(name):
            raise BrokenChain(one.instance, f"seal {one.instance} has no {name}=")
    for name in _NOT_IN_SEAL:
        if name in tags:
            raise BrokenChain(one.instance, f"seal {one.instance} has {name}=")
    wanted = b"none" if one.instance == 1 else b"pass"
    if tags["cv"].lower() != wanted:
        raise BrokenChain(one.instance, f"seal {one.instance} says cv={tags['cv'][:20].decode('ascii', 'replace')}")
    return tags


async def _message_signature(
    newest: ArcSet, fields: Sequence[Field], bodies: Bodies, dns: TxtLookup, now: float
) -> Outcome | Operation:
    try:
        signature = parse_signature(newest.signature, arc=True)
    except TagError as error:
        return Outcome("fail", str(error))
    if SEAL in signature.names:  # RFC 8617 §4.1.2
        return Outcome("fail", "ARC-Seal is signed")
    outcome = acceptable(signature, now, arc=True)
    if outcome is not None:
        return outcome
    found, _ = await prepare(signature, fields, bodies.digest(signature.body_form), dns)
    return found


async def _seal(digest: bytes, tags: dict[str, bytes], dns: TxtLookup) -> Operation | str:
    """The operation of a seal with these tags over this digest, or why it cannot hold."""
    algorithm = tags["a"].lower().decode("ascii", "replace")
    if algorithm not in ALGORITHMS:
        return "unknown algorithm"
    try:
        signature = decode_base64(tags["b"])
        domain, selector = domain_of(tags["d"]), domain_of(tags["s"])
    except TagError as error:
        return str(error)
    key = await fetch_key(dns, selector, domain, algorithm)
    return key.reason if isinstance(key, Outcome) else Operation(key, digest, signature)


def seal_digests(sets: Sequence[ArcSet]) -> list[bytes]:
    """What each set's seal signs: the relaxed form of all ARC fields up to itself (§5.1.1), made in one pass."""
    if len(sets) == 1:  # most chains
        return [sha256(joined([sets[0].results, sets[0].signature], "relaxed", sets[0].seal))]
    sofar = hashlib.sha256()
    digests = []
    for one in sets:
        digest = sofar.copy()
        feed(digest, joined([one.results, one.signature], "relaxed", one.seal))
        digests.append(digest.digest())
        feed(sofar, joined([one.results, one.signature, one.seal], "relaxed", None))
    return digests
