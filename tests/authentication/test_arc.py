"""ARC: chains that we seal hold, broken ones do not, and a chain that has failed gets one last set."""

from typing import Any

import pytest

from fastmta.authentication.arc import ArcVerdict, collect_sets, verify_arc
from fastmta.authentication.bodies import Bodies, forms_needed
from fastmta.authentication.message import parse_fields, split_message
from fastmta.authentication.results import consolidated
from fastmta.authentication.signing import DkimTags, body_digest_of, names_to_sign, seal_arc
from tests.authentication.test_dkim import MESSAGE, NOW, SIGNERS, ZONE, altered, inline, sign
from tests.authentication.zone import TROUBLE, Zone


async def verify(raw: bytes, zone: dict[str, Any] | None = None) -> ArcVerdict:
    header, body = split_message(raw)
    fields = parse_fields(header)
    bodies = Bodies(forms_needed(fields))
    bodies.update(body)
    return await verify_arc(fields, bodies, Zone(ZONE if zone is None else zone), inline, NOW)


async def seal(raw: bytes, kind: str = "rsa") -> bytes:
    header, body = split_message(raw)
    fields = parse_fields(header)
    tags = DkimTags(names_to_sign(fields, arc=True), signed_at=NOW)
    chain = (await verify(raw)).result
    results = consolidated(fields, "mx.example.org")
    return (
        seal_arc(SIGNERS[kind], fields, collect_sets(fields), chain, results, body_digest_of(body, "relaxed"), tags)
        + raw
    )


@pytest.mark.parametrize("kind", SIGNERS)
async def test_three_sets_hold(kind: str) -> None:
    raw = b"Authentication-Results: mx.example.org; spf=pass smtp.mailfrom=a@b.example\r\n" + sign(MESSAGE)
    for instance in (1, 2, 3):
        raw = await seal(raw, kind)
        verdict = await verify(raw)
        assert (verdict.result, verdict.instance) == ("pass", instance), verdict.reason
        assert verdict.sealers == ("example.org",) * instance
    assert b"i=1; mx.example.org;\r\n  spf=pass smtp.mailfrom=a@b.example" in raw


async def test_a_list_that_changes_the_message_breaks_only_what_is_below_its_seal() -> None:
    raw = await seal(MESSAGE)
    changed = altered(raw, b"Subject:   Hello", b"Subject: [list] Hello")
    assert (await verify(changed)).result == "fail"
    assert (await verify(altered(await seal(raw), b"Received: from a", b"Received: from z"))).result == "pass"


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (b"cv=none", b"cv=pass", "says cv=pass"),
        (b"ARC-Seal: a=rsa-sha256;", b"ARC-Seal: a=rsa-sha256; h=from;", "has h="),
        (b"ARC-Authentication-Results: i=1;", b"ARC-Authentication-Results: i=2;", "not whole"),
        (b"ARC-Authentication-Results: i=1;", b"ARC-Authentication-Results: i=51;", "from 1 to 50"),
        (b"ARC-Authentication-Results: i=1;", b"ARC-Authentication-Results: x;", "does not begin with i="),
        (b"mx.example.org; none", b"mx.example.net; none", "seal 1: signature did not verify"),
        (b"d=example.org; i=1;", b"d=example.net; i=1;", "no key"),
        (b"Text  with", b"Text  without", "body hash"),
    ],
)
async def test_a_broken_chain(old: bytes, new: bytes, reason: str) -> None:
    verdict = await verify(altered(await seal(MESSAGE), old, new))
    assert (verdict.result, reason in verdict.reason) == ("fail", True), verdict


async def test_a_message_signature_without_from_expires_too() -> None:
    unsigned = altered(await seal(MESSAGE), b"ARC-Message-Signature: ", b"ARC-Message-Signature: x=%d; " % (NOW + 1))
    at = unsigned.index(b" h=", unsigned.index(b"ARC-Message-Signature")) + 3
    raw = unsigned[:at] + b"subject" + unsigned[unsigned.index(b";", at) :]
    header, body = split_message(raw)
    fields = parse_fields(header)
    bodies = Bodies(forms_needed(fields))
    bodies.update(body)
    verdict = await verify_arc(fields, bodies, Zone(ZONE), inline, NOW + 2)
    assert (verdict.result, verdict.reason) == ("fail", "message signature 1: the signature has expired")


async def test_a_set_that_stands_twice_breaks_it() -> None:
    raw = await seal(MESSAGE)
    fields = parse_fields(split_message(raw)[0])
    for field in fields[:3]:
        assert (await verify(field.raw + raw)).result == "fail"


async def test_no_chain_and_a_silent_server() -> None:
    assert (await verify(MESSAGE)) == ArcVerdict("none", 0, "")
    assert (await verify(await seal(MESSAGE), {"r1._domainkey.example.org": TROUBLE})).result == "fail"


async def test_a_failed_chain_is_sealed_once_and_then_left_alone() -> None:
    broken = altered(await seal(MESSAGE), b"Text  with", b"Text  without")
    sealed = await seal(broken)
    assert b"cv=fail" in sealed
    assert (await verify(sealed)).result == "fail"
    assert await seal(sealed) == sealed
