"""One DKIM-Signature or ARC-Message-Signature: its tags, what it covers, and whether it holds (RFC 6376 §3.5, §6.1)."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NamedTuple, Protocol

from fastmta._canonical import Signature, domain_of, parse_signature
from fastmta.authentication.canonical import header_digest
from fastmta.authentication.keys import BadKey, PublicKey, WeakKey, parse_key
from fastmta.authentication.message import Field
from fastmta.dns.resolver import LookupTrouble, NotFound
from fastmta.model.limits import DKIM_CLOCK_SKEW_S, DKIM_KEY_RECORDS

ALGORITHMS: Final = {"rsa-sha256": "rsa", "ed25519-sha256": "ed25519"}
Offload = Callable[..., Awaitable[Any]]


class TxtLookup(Protocol):
    """What of dns.resolver.Resolver is asked here."""

    def txt(self, name: str) -> Awaitable[tuple[bytes, ...]]: ...


class Outcome(NamedTuple):
    """How a signature ended, in RFC 8601's words, with the reason for anything but a pass."""

    result: str
    reason: str = ""


def acceptable(signature: Signature, now: float, *, arc: bool = False) -> Outcome | None:
    """Why a signature is not worth a look-up, or None. ARC's need not sign From: its seal covers the rest."""
    if signature.algorithm == "rsa-sha1":
        return Outcome("policy", "SHA-1 is not believed (RFC 8301)")
    if signature.algorithm not in ALGORITHMS:
        return Outcome("permerror", "unknown algorithm")
    if signature.has_length:
        return Outcome("policy", "l= leaves a part of the body unsigned")
    if not arc and b"from" not in signature.names:
        return Outcome("permerror", "From is not signed")
    if signature.expires_at and signature.expires_at < now:
        return Outcome("fail", "the signature has expired")
    if signature.signed_at > now + DKIM_CLOCK_SKEW_S:
        return Outcome("fail", "the signature is dated in the future")
    return None


async def fetch_key(dns: TxtLookup, selector: str, domain: str, algorithm: str) -> PublicKey | Outcome:
    """The key that a signature names, or how its verification ends without one (§6.1.2)."""
    try:
        records = await dns.txt(f"{selector}._domainkey.{domain}")
    except NotFound:
        return Outcome("permerror", "no key for signature")
    except LookupTrouble:
        return Outcome("temperror", "the key could not be looked up")
    reason: BadKey = BadKey("no key for signature")
    for record in records[:DKIM_KEY_RECORDS]:
        try:
            key = parse_key(record)
        except BadKey as error:
            reason = error
            continue
        if key.kind != ALGORITHMS[algorithm]:
            reason = BadKey("the key is of another kind than the signature")
        elif key.hashes and "sha256" not in key.hashes:
            reason = BadKey("the key is not for SHA-256")
        else:
            return key
    return Outcome("policy" if isinstance(reason, WeakKey) else "permerror", str(reason))


class Operation(NamedTuple):
    """A public-key operation that is still to be done."""

    key: PublicKey
    digest: bytes
    signature: bytes


def hold(each: Sequence[Operation], chain: Sequence[Operation]) -> tuple[list[bool], int]:
    """Whether each of the first holds, and how many of the second do from its beginning. For a thread, in one go."""
    first = [one.key.verify(one.digest, one.signature) for one in each]
    for number, one in enumerate(chain):
        if not one.key.verify(one.digest, one.signature):
            return first, number
    return first, len(chain)


async def prepare(
    signature: Signature, fields: Sequence[Field], body_digest: bytes, dns: TxtLookup
) -> tuple[Outcome | Operation, PublicKey | None]:
    """The whole of §6.1 for a signature that is `acceptable`, up to the public-key operation."""
    if body_digest != signature.body_hash:
        return Outcome("fail", "body hash did not verify"), None
    key = await fetch_key(dns, signature.selector, signature.domain, signature.algorithm)
    if isinstance(key, Outcome):
        return key, None
    if key.same_domain and signature.identity_domain != signature.domain:
        return Outcome("permerror", "the key is not for subdomains"), key
    digest = header_digest(fields, signature.names, signature.header_form, signature.field)
    return Operation(key, digest, signature.signature), key


__all__ = [
    "ALGORITHMS",
    "Offload",
    "Operation",
    "Outcome",
    "Signature",
    "TxtLookup",
    "acceptable",
    "domain_of",
    "fetch_key",
    "hold",
    "parse_signature",
    "prepare",
]
