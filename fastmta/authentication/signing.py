"""Signing: a DKIM-Signature (RFC 6376 §5) or an ARC set (RFC 8617 §5.1) in front of a message."""

import base64
import binascii
import re
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Final, NamedTuple

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fastmta.authentication.arc import RESULTS, SEAL, SIGNATURE, ArcSet, seal_digests
from fastmta.authentication.canonical import Form, header_digest
from fastmta.authentication.message import Field
from fastmta.authentication.signature import domain_of
from fastmta.authentication.tags import TagError
from fastmta.model.limits import ARC_SETS, DKIM_RSA_BITS, SIGNED_FIELDS_KEPT, SIGNED_FRONTS, SIGNED_LISTS

# What is worth signing (RFC 6376 §5.4.1). Those in OVERSIGNED are named once more than they stand: none can be added.
SIGNED: Final = (
    b"from reply-to subject date to cc message-id in-reply-to references mime-version content-type"
    b" content-transfer-encoding sender resent-from resent-date resent-to resent-cc list-id list-help"
    b" list-unsubscribe list-unsubscribe-post list-subscribe list-post list-owner list-archive"
).split()
OVERSIGNED: Final = frozenset(b"from subject date to cc reply-to message-id mime-version content-type".split())
_NEVER: Final = frozenset({b"return-path", SEAL, RESULTS, SIGNATURE})  # RFC 6376 §5.4, RFC 8617 §4.1.2
_SHA256: Final = Prehashed(hashes.SHA256())
_PKCS1: Final = padding.PKCS1v15()
_FIELD_NAME: Final = re.compile(rb"[!-9<-~]+\Z")  # h= cannot hold a semicolon
_MOST_BITS: Final = 4096  # RFC 8301 §3.2: verifiers must take 1024 to 4096
_WIDTH: Final = 76


class SigningError(ValueError):
    """The key or the choice of fields cannot be used; the text names the remedy."""


@cache
def _algorithm_of(kind: type) -> str:
    # Asked for each signature; these classes are abstract, and to look through what they stand for takes a microsecond.
    return "rsa-sha256" if issubclass(kind, RSAPrivateKey) else "ed25519-sha256"


class Signer(NamedTuple):
    """A private key and the name under which its public half stands in the DNS."""

    domain: str
    selector: str
    key: RSAPrivateKey | Ed25519PrivateKey

    @property
    def algorithm(self) -> str:
        return _algorithm_of(type(self.key))

    def sign(self, digest: bytes) -> bytes:
        """The signature of a SHA-256 digest: 0.7 ms with RSA of 2048 bits; frees the interpreter lock."""
        if isinstance(self.key, RSAPrivateKey):
            return self.key.sign(digest, _PKCS1, _SHA256)
        return self.key.sign(digest)

    def public_record(self) -> str:
        """The TXT record that belongs at SELECTOR._domainkey.DOMAIN."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        if isinstance(self.key, RSAPrivateKey):
            der = self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            return f"v=DKIM1; k=rsa; p={base64.b64encode(der).decode()}"
        raw = self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return f"v=DKIM1; k=ed25519; p={base64.b64encode(raw).decode()}"


def load_own_signer(pem: bytes, domain: str, selector: str) -> Signer:
    """A signer from a key that `load_signer` has checked before it was kept: some 50 µs."""
    key = load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
    assert isinstance(key, RSAPrivateKey | Ed25519PrivateKey)
    return Signer(domain, selector, key)


def load_signer(pem: bytes, domain: str, selector: str) -> Signer:
    """A signer from a PEM key (PKCS#8, or PKCS#1 for RSA) without a passphrase. Checks the key: some 50 ms, once."""
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError as error:
        raise SigningError("the key is encrypted; remove its passphrase") from error
    except Exception as error:  # the library raises several kinds for what is no key, or of a kind it does not know
        raise SigningError("the key is not a private key in PEM") from error
    if isinstance(key, RSAPrivateKey):
        if key.key_size < DKIM_RSA_BITS[0]:
            raise SigningError(f"an RSA key of {key.key_size} bits is not believed by anybody; make one of 2048")
        if key.key_size > _MOST_BITS:
            raise SigningError(f"an RSA key of {key.key_size} bits need not be believed (RFC 8301); make one of 2048")
    elif not isinstance(key, Ed25519PrivateKey):
        raise SigningError("the key is neither RSA nor Ed25519")
    return Signer(_dns_name(domain, "domain"), _dns_name(selector, "selector"), key)


def _dns_name(text: str, what: str) -> str:
    try:
        return domain_of(text.strip().encode("utf-8", "replace"))
    except TagError as error:
        raise SigningError(f"{text}: not a {what} that a key can stand under") from error


def names_to_sign(fields: Sequence[Field], chosen: Sequence[bytes] = (), *, arc: bool = False) -> tuple[bytes, ...]:
    """h= of a new signature. `chosen` as it stands, a name for each field; without it, ours, oversigned.

    An ARC set covers the DKIM signatures too.
    """
    there = tuple([field.name for field in fields])
    if b"from" not in there:
        raise SigningError("the message has no From field, which a signature must cover")
    if chosen:
        names = [name.strip().lower() for name in chosen]
        wrong = [name for name in names if not _FIELD_NAME.match(name)]
        if wrong:
            raise SigningError(f"{wrong[0].decode('ascii', 'replace')!r} is no field name")
        if b"from" not in names:
            raise SigningError("the fields to sign must include from")
        bad = sorted(_NEVER.intersection(names))
        if bad:
            raise SigningError(f"{bad[0].decode()} must not be signed")
        return tuple(names)
    return _ours(there, arc) if len(there) <= SIGNED_FIELDS_KEPT else _ours.__wrapped__(there, arc)


@lru_cache(SIGNED_LISTS)
def _ours(there: tuple[bytes, ...], arc: bool) -> tuple[bytes, ...]:
    """The names of a new signature where these fields stand."""
    present: dict[bytes, int] = {}
    for name in there:
        present[name] = present.get(name, 0) + 1
    names: list[bytes] = []
    for name in SIGNED:
        names += [name] * (present.get(name, 0) + (name in OVERSIGNED))
    if arc:
        names += [b"dkim-signature"] * present.get(b"dkim-signature", 0)
    return tuple(names)


class DkimTags(NamedTuple):
    """What of a new signature is chosen."""

    names: tuple[bytes, ...]
    header_form: Form = "relaxed"
    body_form: Form = "relaxed"
    signed_at: int = 0
    expires_at: int = 0


class Draft(NamedTuple):
    """A DKIM-Signature field without its signature, and what that is made of."""

    signer: Signer
    unsigned: bytes
    digest: bytes

    def signed(self, signature: bytes) -> bytes:
        """The whole field with its CRLF, to be put in front."""
        return self.unsigned + _folded_base64(signature) + b"\r\n"


def draft_dkim(signer: Signer, fields: Sequence[Field], body_digest: bytes, tags: DkimTags) -> Draft:
    """The field up to the public-key operation. `body_digest` is of `tags.body_form`."""
    front, width = _front(signer.algorithm, signer.domain, signer.selector, tags)
    text = f"bh={binascii.b2a_base64(body_digest, newline=False).decode()}"
    glue = " " if width + 1 + len(text) <= _WIDTH else "\r\n\t"
    unsigned = f"{front}{glue}{text};\r\n\tb=".encode("ascii")
    own = Field(b"dkim-signature", unsigned + b"\r\n")
    return Draft(signer, unsigned, header_digest(fields, tags.names, tags.header_form, own))


@lru_cache(SIGNED_FRONTS)
def _front(algorithm: str, domain: str, selector: str, tags: DkimTags) -> tuple[str, int]:
    """A signature up to bh=, and how long its last line is: the same for all that are made in a second."""
    parts = ["v=1", f"a={algorithm}", f"c={tags.header_form}/{tags.body_form}", f"d={domain}", f"s={selector}"]
    if tags.signed_at:
        parts.append(f"t={tags.signed_at}")
    if tags.expires_at:
        parts.append(f"x={tags.expires_at}")
    text = _folded("DKIM-Signature", [*parts, f"h={_colons(tags.names)};"]).decode()
    return text, len(text) - 1 - text.rfind("\n")


def sign_all(drafts: Sequence[Draft]) -> list[bytes]:
    """The signature of each, for a thread, in one go."""
    return [draft.signer.sign(draft.digest) for draft in drafts]


def sign_dkim(signer: Signer, fields: Sequence[Field], body_digest: bytes, tags: DkimTags) -> bytes:
    """The DKIM-Signature field with its CRLF, to be put in front. `body_digest` is of `tags.body_form`."""
    draft = draft_dkim(signer, fields, body_digest, tags)
    return draft.signed(signer.sign(draft.digest))


def seal_arc(
    signer: Signer,
    fields: Sequence[Field],
    sets: Sequence[ArcSet],
    chain: str,
    results: str,
    body_digest: bytes,
    tags: DkimTags,
) -> bytes:
    """The three fields of a new ARC set, Seal first; relaxed forms throughout.

    `sets` are those that stand, `chain` is their state (none, pass, fail), `results` the text of Authentication-Results
    behind "i=N; ". A chain that fails now is sealed alone (RFC 8617 §5.1.2). b"" where the newest seal has said that it
    fails: such a chain gets no further set.
    """
    if sets and sets[-1].seal.tags.get("cv", b"").lower() == b"fail":
        return b""
    instance = len(sets) + 1
    if instance > ARC_SETS:
        raise SigningError(f"the chain has {ARC_SETS} sets already")
    aar = Field(RESULTS, b"ARC-Authentication-Results: i=%d; " % instance + results.encode() + b"\r\n")
    shared = [f"a={signer.algorithm}"]
    place = [f"d={signer.domain}", f"i={instance}", f"s={signer.selector}", f"t={tags.signed_at}"]
    names = [name for name in tags.names if name not in (SEAL, RESULTS)]
    ams_parts = [*shared, "b=", f"bh={base64.b64encode(body_digest).decode()}", "c=relaxed/relaxed", place[0]]
    ams_parts += [f"h={_colons(names)}", *place[1:]]
    ams_raw = _folded("ARC-Message-Signature", ams_parts)
    ams = Field(SIGNATURE, ams_raw + b"\r\n")
    signature = signer.sign(header_digest(fields, names, "relaxed", ams))
    ams = Field(SIGNATURE, _with_signature(ams_raw, signature))
    seal_raw = _folded("ARC-Seal", [*shared, "b=", f"cv={chain}", *place])
    seal = Field(SEAL, seal_raw + b"\r\n")
    new = ArcSet(instance, aar, ams, seal)
    signature = signer.sign(seal_digests([new] if chain == "fail" else [*sets, new])[-1])
    return _with_signature(seal_raw, signature) + ams.raw + aar.raw


def _with_signature(raw: bytes, signature: bytes) -> bytes:
    # Not folded: ARC's public test suite compares seals over a b= without spaces, and 700 octets are a lawful line.
    head, _, tail = raw.partition(b"b=;")
    return head.rstrip(b" ") + b"\r\n\tb=" + base64.b64encode(signature) + b";\r\n\t" + tail.lstrip() + b"\r\n"


def _colons(names: Sequence[bytes]) -> str:
    return b":".join(names).decode("ascii")


def _folded(name: str, parts: Sequence[str]) -> bytes:
    """`name: a; b; c` in lines of 76 where it can be; h= is folded behind colons, where that is allowed."""
    out = [name, ":"]
    width = len(name) + 1
    for number, part in enumerate(parts):
        text = part + ";" if number < len(parts) - 1 else part
        glue, room = " ", 1
        for piece in text.replace(":", ":\0").split("\0") if part.startswith("h=") else (text,):
            width += room + len(piece)
            if width > _WIDTH:
                glue = "\r\n\t"
                width = 1 + len(piece)
            out += glue, piece
            glue, room = "", 0
    return "".join(out).encode("ascii")


def _folded_base64(signature: bytes) -> bytes:
    text = base64.b64encode(signature)
    return b"\r\n\t".join(text[at : at + _WIDTH - 4] for at in range(0, len(text), _WIDTH - 4))


def body_digest_of(body: bytes, form: Form) -> bytes:
    """The digest of a whole body in memory."""
    from fastmta.authentication.canonical import BodyHash

    hasher = BodyHash(form)
    hasher.update(body)
    return hasher.digest()


__all__ = ["DkimTags", "Signer", "SigningError", "load_signer", "names_to_sign", "seal_arc", "sign_dkim"]
