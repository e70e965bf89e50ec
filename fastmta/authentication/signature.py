"""One DKIM-Signature or ARC-Message-Signature: its tags, what it covers, and whether it holds (RFC 6376 §3.5, §6.1)."""

import re
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol

from fastmta.authentication.canonical import Form, header_digest
from fastmta.authentication.keys import BadKey, PublicKey, WeakKey, parse_key
from fastmta.authentication.message import Field
from fastmta.authentication.tags import (
    TagError,
    colon_list,
    decode_base64,
    from_quoted_printable,
    unsigned_number,
    without_spaces,
)
from fastmta.dns.resolver import LookupTrouble, NotFound
from fastmta.model.limits import (
    DKIM_CLOCK_SKEW_S,
    DKIM_KEY_RECORDS,
    DKIM_SIGNED_NAMES,
    SIGNATURE_WORD_BYTES,
    SIGNATURE_WORDS,
)

ALGORITHMS: Final = {"rsa-sha256": "rsa", "ed25519-sha256": "ed25519"}
_DOMAIN: Final = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}\Z")
_FORMS: Final = {b"simple": "simple", b"relaxed": "relaxed"}
Offload = Callable[..., Awaitable[Any]]


class TxtLookup(Protocol):
    """What of dns.resolver.Resolver is asked here."""

    async def txt(self, name: str) -> tuple[bytes, ...]: ...


class Outcome(NamedTuple):
    """How a signature ended, in RFC 8601's words, with the reason for anything but a pass."""

    result: str
    reason: str = ""


class Signature(NamedTuple):
    """The tags of one signature field."""

    field: Field
    algorithm: str
    signature: bytes
    body_hash: bytes
    header_form: Form
    body_form: Form
    domain: str
    selector: str
    names: tuple[bytes, ...]  # in lower case
    identity_domain: str
    signed_at: int  # 0: not said
    expires_at: int  # 0: never
    has_length: bool
    shown: str  # the beginning of b=, by which RFC 6008 tells signatures apart


def parse_signature(field: Field, *, arc: bool = False) -> Signature:
    """The field's tags. Raises TagError with the reason; nothing is verified yet."""
    tags = field.tags
    for name in ("a", "b", "bh", "d", "s") if arc else ("v", "a", "b", "bh", "d", "h", "s"):
        if not tags.get(name):
            raise TagError(f"the signature has no {name}=")
    if not arc and tags["v"] != b"1":
        raise TagError("the signature has another version")
    header_form, body_form = _forms(tags.get("c", b"simple/simple")[:SIGNATURE_WORD_BYTES])
    if tags.get("q") and b"dns/txt" not in [word.lower() for word in colon_list(tags["q"])]:
        raise TagError("the key cannot be asked for in the DNS")
    if "h" not in tags:
        raise TagError("the signature has no h=")
    names = _names(tags["h"]) if len(tags["h"]) > SIGNATURE_WORD_BYTES else _kept_names(tags["h"])
    if len(names) > DKIM_SIGNED_NAMES or not (arc or all(names)):  # ARC's may be empty: its seal covers the rest
        raise TagError("h= is no list of field names")
    domain = domain_of(tags["d"])
    identity = domain if arc or "i" not in tags else domain_of(from_quoted_printable(tags["i"]).rpartition(b"@")[2])
    if identity != domain and not identity.endswith("." + domain):
        raise TagError("i= is not in the domain of d=")
    signed_at = unsigned_number(tags["t"]) if "t" in tags else 0
    expires_at = unsigned_number(tags["x"]) if "x" in tags else 0
    if expires_at and expires_at <= signed_at:
        raise TagError("x= is not after t=")
    if "l" in tags and not (tags["l"].isdigit() and len(tags["l"]) <= 76):
        raise TagError("l= is not a number")
    return Signature(
        field,
        tags["a"].lower().decode("ascii", "replace"),
        decode_base64(tags["b"]),
        decode_base64(tags["bh"]),
        header_form,
        body_form,
        domain,
        domain_of(tags["s"]),
        names,
        identity,
        signed_at,
        expires_at,
        "l" in tags,
        without_spaces(tags["b"])[:8].decode("ascii", "replace"),
    )


def _names(value: bytes) -> tuple[bytes, ...]:
    return tuple(name.lower() for name in colon_list(value))


_kept_names: Final = lru_cache(SIGNATURE_WORDS)(_names)


@lru_cache(SIGNATURE_WORDS)
def _forms(value: bytes) -> tuple[Form, Form]:
    header, _, body = without_spaces(value).lower().partition(b"/")
    header_form, body_form = _FORMS.get(header), _FORMS.get(body or b"simple")
    if header_form is None or body_form is None:
        raise TagError("unknown canonicalization")
    return header_form, body_form  # type: ignore[return-value]


def domain_of(value: bytes) -> str:
    """The domain in d=, s= or behind the @ of i=, as A-labels; TagError for what can stand in no key's name."""
    return _kept_domain(value) if len(value) <= SIGNATURE_WORD_BYTES else _domain(value)


def _domain(value: bytes) -> str:
    try:
        text = without_spaces(value).decode("ascii").lower().rstrip(".")
    except UnicodeDecodeError:
        text = _a_label(value)
    if len(text) > 253 or not _DOMAIN.match(text):
        raise TagError("not a domain")
    return text


_kept_domain: Final = lru_cache(SIGNATURE_WORDS)(_domain)


def _a_label(value: bytes) -> str:
    import idna

    if len(value) > 1000:
        raise TagError("not a domain")
    try:
        return idna.encode(without_spaces(value).decode(), uts46=True).decode("ascii").lower().rstrip(".")
    except (UnicodeError, idna.IDNAError) as error:
        raise TagError("not a domain") from error


def acceptable(signature: Signature, now: float) -> Outcome | None:
    """Why a signature is not worth a look-up, or None."""
    if signature.algorithm == "rsa-sha1":
        return Outcome("policy", "SHA-1 is not believed (RFC 8301)")
    if signature.algorithm not in ALGORITHMS:
        return Outcome("permerror", "unknown algorithm")
    if signature.has_length:
        return Outcome("policy", "l= leaves a part of the body unsigned")
    if b"from" not in signature.names:
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
