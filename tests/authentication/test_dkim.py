"""DKIM signed and verified: RFC 8463's own message, dkimpy as the other side both ways, and what must not pass."""

import random
from typing import Any

import dkim
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat

from fastmta.authentication import keys
from fastmta.authentication.bodies import Bodies, forms_needed
from fastmta.authentication.dkim import DkimVerdict, verify_dkim
from fastmta.authentication.message import parse_fields, split_message
from fastmta.authentication.signing import (
    DkimTags,
    Signer,
    SigningError,
    body_digest_of,
    load_signer,
    names_to_sign,
    sign_dkim,
)
from tests.authentication.zone import TROUBLE, Zone
from tests.support.keys import rsa_key

NOW = 1_700_000_000
RSA_KEY = rsa_key()
ED_KEY = ed25519.Ed25519PrivateKey.generate()
SIGNERS = {"rsa": Signer("example.org", "r1", RSA_KEY), "ed25519": Signer("example.org", "e1", ED_KEY)}
ZONE = {f"{one.selector}._domainkey.example.org": {"TXT": [one.public_record()]} for one in SIGNERS.values()}
MESSAGE = (
    b"Received: from a by b; now\r\nFrom: Ann <ann@example.org>\r\nTo: bob@example.net\r\n"
    b"Subject:   Hello\r\n\t there \r\nDate: Fri, 27 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@example.org>\r\n"
    b"\r\nText  with   spaces \r\n.dot\r\n\r\n\r\n"
)
FORMS = ("simple", "relaxed")


def answer(name: Any, timeout: int = 5) -> bytes | None:
    """dkimpy's question to the DNS."""
    known = ZONE.get((name.decode() if isinstance(name, bytes) else name).rstrip("."))
    return known["TXT"][0].encode() if known else None


async def inline(operation: Any, *arguments: Any) -> Any:
    return operation(*arguments)


async def verify(raw: bytes, zone: dict[str, Any] | None = None, now: float = NOW) -> tuple[DkimVerdict, ...]:
    header, body = split_message(raw)
    fields = parse_fields(header)
    bodies = Bodies(forms_needed(fields))
    bodies.update(body)
    return await verify_dkim(fields, bodies, Zone(ZONE if zone is None else zone), inline, now)


def sign(raw: bytes, kind: str = "rsa", header: Any = "relaxed", body: Any = "relaxed", **more: Any) -> bytes:
    head, text = split_message(raw)
    fields = parse_fields(head)
    names = more.pop("names", None) or names_to_sign(fields)
    tags = DkimTags(names, header, body, NOW, **more)
    return sign_dkim(SIGNERS[kind], fields, body_digest_of(text, body), tags) + raw


def altered(raw: bytes, old: bytes, new: bytes) -> bytes:
    assert old in raw
    return raw.replace(old, new, 1)


@pytest.mark.parametrize("kind", SIGNERS)
@pytest.mark.parametrize("header", FORMS)
@pytest.mark.parametrize("body", FORMS)
async def test_what_we_sign_verifies_here_and_in_dkimpy(kind: str, header: str, body: str) -> None:
    signed = sign(MESSAGE, kind, header, body)
    (verdict,) = await verify(signed)
    assert (verdict.result, verdict.domain) == ("pass", "example.org")
    assert dkim.verify(signed, dnsfunc=answer)


@pytest.mark.parametrize("header", FORMS)
@pytest.mark.parametrize("body", FORMS)
async def test_what_dkimpy_signs_verifies_here(header: str, body: str) -> None:
    pem = RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    signature = dkim.sign(
        MESSAGE, b"r1", b"example.org", pem, canonicalize=(header.encode(), body.encode()), include_headers=None
    )
    (verdict,) = await verify(signature + MESSAGE, now=4_000_000_000)
    assert verdict.result == "pass", verdict.reason


async def test_one_octet_anywhere_breaks_it_as_dkimpy_says() -> None:
    signed = sign(MESSAGE, "rsa", "simple", "simple")

    def oracle(raw: bytes) -> bool:
        try:
            return bool(dkim.verify(raw, dnsfunc=answer))
        except Exception:  # it raises for some malformed messages
            return False

    chance = random.Random(7)
    for _ in range(150):
        at = chance.randrange(len(signed))
        damaged = signed[:at] + bytes([chance.choice(b"aZ0 =;:.")]) + signed[at + 1 :]
        ours = [verdict.result == "pass" for verdict in await verify(damaged)]
        assert any(ours) == oracle(damaged), damaged


@pytest.mark.parametrize(
    ("tag", "value", "result", "reason"),
    [
        (b"v=1", b"v=2", "permerror", "another version"),
        (b"a=rsa-sha256", b"a=rsa-sha1", "policy", "SHA-1"),
        (b"a=rsa-sha256", b"a=rsa-md5", "permerror", "unknown algorithm"),
        (b"c=relaxed/relaxed", b"c=relaxed/loose", "permerror", "canonicalization"),
        (b"d=example.org", b"d=", "permerror", "no d="),
        (b"d=example.org", b"d=example.org; i=a@example.net", "permerror", "i= is not"),
        (b"d=example.org", b"d=example.org; l=10", "policy", "l= leaves"),
        (b"d=example.org", b"d=example.org; x=1600000000", "permerror", "x= is not after"),
        (b"d=example.org", b"d=example.org; d=example.org", "permerror", "twice"),
        (b"d=example.org", b"d=example.org; q=http", "permerror", "cannot be asked"),
        (b"t=1700000000", b"t=1900000000", "fail", "future"),
        (b"t=1700000000", b"t=170; x=1600000000", "fail", "expired"),
        (b"s=r1", b"s=absent", "permerror", "no key"),
        (b"from:from:", b"to:", "permerror", "From is not signed"),
    ],
)
async def test_a_tag_that_must_not_pass(tag: bytes, value: bytes, result: str, reason: str) -> None:
    (verdict,) = await verify(altered(sign(MESSAGE), tag, value))
    assert (verdict.result, reason in verdict.reason) == (result, True), verdict


@pytest.mark.parametrize(
    ("record", "result", "reason"),
    [
        ("v=DKIM1; p=", "permerror", "revoked"),
        ("v=DKIM2; p=abc", "permerror", "another version"),
        ("k=rsa; v=DKIM1; p=abcd", "permerror", "another version"),
        ("v=DKIM1; p=%%%", "permerror", "not base64"),
        ("v=DKIM1; p=abcd", "permerror", "cannot be read"),
        ("v=DKIM1", "permerror", "no p="),
        ("nonsense", "permerror", "malformed"),
        (ZONE["r1._domainkey.example.org"]["TXT"][0] + "; h=sha1", "permerror", "not for SHA-256"),
        (ZONE["r1._domainkey.example.org"]["TXT"][0] + "; s=tlsrpt", "permerror", "not for e-mail"),
        (ZONE["e1._domainkey.example.org"]["TXT"][0], "permerror", "another kind"),
        (ZONE["r1._domainkey.example.org"]["TXT"][0] + "; s=*:x; h=sha1:sha256; n=note; unknown=1", "pass", ""),
        (ZONE["r1._domainkey.example.org"]["TXT"][0].removeprefix("v=DKIM1; "), "pass", ""),
    ],
    ids=range(12),  # the keys are new in each process, and all workers of a parallel run must name a test alike
)
async def test_a_key_record(record: str, result: str, reason: str) -> None:
    (verdict,) = await verify(sign(MESSAGE), {"r1._domainkey.example.org": {"TXT": [record]}})
    assert (verdict.result, reason in verdict.reason) == (result, True), verdict


async def test_a_short_rsa_key_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    weak = Signer("example.org", "weak", rsa.generate_private_key(65537, 1024))
    head, body = split_message(MESSAGE)
    fields = parse_fields(head)
    tags = DkimTags(names_to_sign(fields), signed_at=NOW)
    signed = sign_dkim(weak, fields, body_digest_of(body, "relaxed"), tags) + MESSAGE
    record = weak.public_record()
    assert (await verify(signed, {"weak._domainkey.example.org": {"TXT": [record]}}))[0].result == "pass"
    monkeypatch.setattr(keys, "DKIM_RSA_BITS", (2048, 8192))  # the library makes no key under 1024
    keys._kept.cache_clear()
    (verdict,) = await verify(signed, {"weak._domainkey.example.org": {"TXT": [record]}})
    assert (verdict.result, "1024 bits" in verdict.reason) == ("policy", True)


async def test_t_s_forbids_subdomains() -> None:
    signed = altered(sign(MESSAGE), b"d=example.org", b"d=example.org; i=a@x.example.org")
    record = ZONE["r1._domainkey.example.org"]["TXT"][0] + "; t=s:y"
    (verdict,) = await verify(signed, {"r1._domainkey.example.org": {"TXT": [record]}})
    assert (verdict.result, verdict.testing) == ("permerror", True)


@pytest.mark.parametrize(
    ("identity", "result"),
    [
        (b"a=40x=2Eexample.org", "permerror"),
        (b"a=40example=2Eorg", "fail"),
        (b"a=3Db@example.org", "fail"),
        (b"@example=2eorg", "fail"),
    ],
)
async def test_i_is_quoted_printable(identity: bytes, result: str) -> None:
    signed = altered(sign(MESSAGE), b"d=example.org", b"d=example.org; i=" + identity)
    record = ZONE["r1._domainkey.example.org"]["TXT"][0] + "; t=s"
    (verdict,) = await verify(signed, {"r1._domainkey.example.org": {"TXT": [record]}})
    assert verdict.result == result  # a lawful i= gets as far as the signature, which does not cover it


async def test_a_server_that_does_not_answer_is_temporary() -> None:
    (verdict,) = await verify(sign(MESSAGE), {"r1._domainkey.example.org": TROUBLE})
    assert verdict.result == "temperror"


async def test_a_second_from_or_subject_breaks_an_oversigned_message() -> None:
    signed = sign(MESSAGE)
    for extra in (b"From: evil@example.net\r\n", b"Subject: other\r\n", b"Content-Type: text/html\r\n"):
        head, body = split_message(signed)
        for forged in (extra + signed, head + extra + b"\r\n" + body):
            assert (await verify(forged))[0].result == "fail", extra
    assert (await verify(b"Received: x\r\n" + signed))[0].result == "pass"


async def test_several_signatures_are_told_one_by_one_and_bounded() -> None:
    signed = sign(sign(MESSAGE), "ed25519")
    assert [verdict.result for verdict in await verify(signed)] == ["pass", "pass"]
    field = split_message(sign(MESSAGE))[0].partition(b"Received:")[0]
    assert len(await verify(field * 50 + MESSAGE)) == 10


async def test_rfc_8463_appendix_a() -> None:
    zone = {
        "brisbane._domainkey.football.example.com": {
            "TXT": ["v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="]
        }
    }
    raw = b"\r\n".join(
        [
            b"DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;",
            b" d=football.example.com; i=@football.example.com;",
            b" q=dns/txt; s=brisbane; t=1528637909; h=from : to :",
            b" subject : date : message-id : from : subject : date;",
            b" bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;",
            b" b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus",
            b" Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==",
            b"From: Joe SixPack <joe@football.example.com>",
            b"To: Suzie Q <suzie@shopping.example.net>",
            b"Subject: Is dinner ready?",
            b"Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)",
            b"Message-ID: <20030712040037.46341.5F8J@football.example.com>",
            b"",
            b"Hi.",
            b"",
            b"We lost the game.  Are you hungry yet?",
            b"",
            b"Joe.",
            b"",
        ]
    )
    assert (await verify(raw, zone))[0].result == "pass"


@pytest.mark.parametrize("names", [[b"to"], [b"from", b"return-path"], [b"from", b"arc-seal"]])
def test_what_may_not_be_chosen(names: list[bytes]) -> None:
    with pytest.raises(SigningError):
        names_to_sign(parse_fields(split_message(MESSAGE)[0]), names)


def test_a_message_without_from_is_not_signed() -> None:
    with pytest.raises(SigningError, match="no From"):
        names_to_sign(parse_fields(b"To: a@example.org\r\n"))


def test_keys_that_cannot_sign() -> None:
    with pytest.raises(SigningError, match="PEM"):
        load_signer(b"nonsense", "example.org", "s")
    encrypted = RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    with pytest.raises(SigningError, match="passphrase"):
        load_signer(encrypted, "example.org", "s")
