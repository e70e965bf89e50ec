"""Hostile octets in what authentication reads: work is linear and bounded, and only the documented errors leave."""

import asyncio
import base64
import hashlib
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fastmta.authentication import keys, verifying
from fastmta.authentication.authors import TooManyAuthors, author_domains
from fastmta.authentication.bodies import Bodies, forms_needed
from fastmta.authentication.canonical import BodyHash, canonical_body, canonical_field
from fastmta.authentication.dmarc import check_dmarc
from fastmta.authentication.dmarc_record import parse_record
from fastmta.authentication.keys import BadKey, parse_key
from fastmta.authentication.message import Field, HeaderTooLong, parse_fields, split_message
from fastmta.authentication.results import authentication_results, is_forged, is_ours, spf_result
from fastmta.authentication.signature import domain_of, parse_signature
from fastmta.authentication.signing import SigningError, load_signer, names_to_sign
from fastmta.authentication.spf import check_spf
from fastmta.authentication.spf_record import RecordError, check_macros, expand, is_queryable, shortened
from fastmta.authentication.spf_record import parse_record as parse_spf
from fastmta.authentication.tags import TagError, parse_tags
from fastmta.authentication.verifying import Client, verify_message
from fastmta.model.limits import (
    AUTHENTICATED_FIELDS,
    AUTHENTICATED_HEADER_BYTES,
    AUTHENTICATION_TIME_S,
    DKIM_FIELD_BYTES,
    DKIM_KEPT_KEY_BYTES,
    DKIM_KEYS,
    DKIM_TAGS,
    DMARC_AUTHORS,
    DMARC_FROM_BYTES,
    SPF_RECORD_BYTES,
)
from tests.authentication.test_dkim import MESSAGE, RSA_KEY, SIGNERS, ZONE, altered, inline, sign, verify
from tests.authentication.zone import Zone


@contextmanager
def cpu_within(limit_s: float) -> Iterator[None]:
    """The limits are some thirty times what the work takes; a quadratic form takes far more."""
    start = time.process_time()
    yield
    assert time.process_time() - start < limit_s


def from_(value: str) -> Any:
    return parse_fields(f"From: {value}\r\n".encode())


# --- headers ---


def test_a_header_has_a_bound_on_octets_and_on_fields() -> None:
    assert len(parse_fields(b"a:\r\n" * AUTHENTICATED_FIELDS)) == AUTHENTICATED_FIELDS
    with pytest.raises(HeaderTooLong, match="fields"), cpu_within(1.0):
        parse_fields(b"a:\r\n" * (AUTHENTICATED_FIELDS * 10))
    parse_fields(b"a: " + b"x" * (AUTHENTICATED_HEADER_BYTES - 5) + b"\r\n")
    with pytest.raises(HeaderTooLong, match="octets"):
        parse_fields(b"a: " + b"x" * AUTHENTICATED_HEADER_BYTES + b"\r\n")


@pytest.mark.parametrize(
    ("header", "names"),
    [
        (b"A: 1\r\nB : 2\r\n\t3\r\n", [b"a", b"b"]),
        (b"From a@b Mon Jan 1 00:00:00 2026\r\nTo: x\r\n", [b"", b"to"]),
        (b" folded first\r\nTo: x\r\n", [b"", b"to"]),
        (b"no colon\r\nTo: x", [b"", b"to"]),
        (b": empty\r\nSub ject: x\r\nT\xc3\xb6: y\r\n\x00: z\r\n", [b"", b"", b"", b""]),
        (b"A: bare\rcr\nand lf\r\n", [b"a"]),
        (b"", []),
    ],
)
def test_what_is_a_field(header: bytes, names: list[bytes]) -> None:
    fields = parse_fields(header)
    assert [field.name for field in fields] == names
    assert b"".join(field.raw for field in fields) == header


def test_a_header_without_its_last_line_end_is_signed_as_if_it_had_one() -> None:
    for form in ("simple", "relaxed"):
        assert canonical_field(Field(b"to", b"To: x"), form) == canonical_field(Field(b"to", b"To: x\r\n"), form)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["simple", "relaxed"])
@pytest.mark.parametrize("unit", [b" ", b"\t", b"\r", b"\r\n", b" \r\n", b"\n", b" \r", b"\0", b"x "])
def test_a_body_of_one_thing_is_hashed_in_linear_time_and_little_memory(form: Any, unit: bytes) -> None:
    body = unit * (2_000_000 // len(unit))
    for end in (b"x", b"x\r\n", b"", b"\r\n"):
        with cpu_within(3.0):
            pieces: list[bytes] = []
            hasher = BodyHash(form, pieces.append)
            for at in range(0, len(body), 1 << 16):
                hasher.update(body[at : at + (1 << 16)])
            hasher.update(end)
            hasher.digest()
        assert b"".join(pieces) == canonical_body(body + end, form)
        assert max(map(len, pieces), default=0) <= 3 << 16


@pytest.mark.parametrize("form", ["simple", "relaxed"])
def test_the_pieces_of_a_body_do_not_matter(form: Any) -> None:
    chance = random.Random(4)
    for _ in range(100):
        body = b"".join(chance.choices([b" ", b"\t", b"\r", b"\n", b"\r\n", b"a", b"\0", b" " * 70_000], k=12))
        pieces: list[bytes] = []
        hasher = BodyHash(form, pieces.append)
        at = 0
        while at < len(body):
            size = chance.choice([1, 2, 3, 70_000])
            hasher.update(body[at : at + size])
            at += size
        hasher.digest()
        assert b"".join(pieces) == canonical_body(body, form)


# --- tag lists, signatures, keys ---


def test_a_tag_list_has_a_bound() -> None:
    assert len(parse_tags(b";".join(b"t%d=1" % n for n in range(DKIM_TAGS)) + b";")) == DKIM_TAGS
    with pytest.raises(TagError, match="too many"):
        parse_tags(b";".join(b"t%d=1" % n for n in range(DKIM_TAGS + 1)))
    parse_tags(b"n=" + b"x" * (DKIM_FIELD_BYTES - 2))
    with pytest.raises(TagError, match="too long"), cpu_within(0.5):
        parse_tags(b"a=1;" * 250_000)


async def test_a_hundred_signatures_of_nothing_cost_little() -> None:
    hostile = b"DKIM-Signature: " + b";".join(b"a%d= " % n for n in range(90)) + b" " * 5000 + b"x\r\n"
    with cpu_within(2.0):
        verdicts = await verify(hostile * 100 + MESSAGE)
    assert {verdict.result for verdict in verdicts} == {"permerror"}


@pytest.mark.parametrize(
    "value",
    [b"", b"a..b", b"a b\\c", b"a\\.b", b"a\0b", b"x" * 64, b"a." * 127 + b"a", b"\xff", b"a@b", b"\xc3\xb6" * 600],
)
def test_a_domain_that_can_stand_in_no_name(value: bytes) -> None:
    with pytest.raises(TagError):
        domain_of(value)


def test_a_domain_in_any_lawful_spelling() -> None:
    assert domain_of(b"Example.ORG.") == domain_of(b" exam\r\n ple.org ") == "example.org"
    assert domain_of("bücher.example".encode()) == "xn--bcher-kva.example"


async def test_a_selector_with_an_escape_is_a_permanent_error() -> None:
    (verdict,) = await verify(altered(sign(MESSAGE), b"s=r1", b"s=a\\999"))
    assert (verdict.result, verdict.reason) == ("permerror", "not a domain")


async def test_only_the_first_key_records_are_tried() -> None:
    good = ZONE["r1._domainkey.example.org"]["TXT"][0]
    assert (await verify(sign(MESSAGE), {"r1._domainkey.example.org": {"TXT": ["x"] * 9 + [good]}}))[0].result == "pass"
    late = {"r1._domainkey.example.org": {"TXT": ["x"] * 1000 + [good]}}
    assert (await verify(sign(MESSAGE), late))[0].result == "permerror"


def test_keys_of_any_octets_are_bad_keys_and_nothing_else() -> None:
    chance = random.Random(1)
    good = RSA_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for kind in (b"rsa", b"ed25519"):
        for _ in range(1500):
            raw = bytearray(good if kind == b"rsa" else bytes(32))
            for _ in range(chance.randrange(1, 6)):
                raw[chance.randrange(len(raw))] = chance.randrange(256)
            del raw[chance.choice([len(raw), chance.randrange(len(raw))]) :]
            try:
                key = parse_key(b"v=DKIM1; k=" + kind + b"; p=" + base64.b64encode(bytes(raw)))
            except BadKey:
                continue
            assert key.verify(bytes(32), bytes(256)) is False


def test_a_key_is_kept_by_its_record_unless_that_is_long() -> None:
    der = RSA_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    record = b"p=" + base64.b64encode(der)
    assert parse_key(record).key is parse_key(record).key
    for octets, kept in ((DKIM_KEPT_KEY_BYTES, True), (DKIM_KEPT_KEY_BYTES + 1, False)):
        padded = record.ljust(octets)
        assert (parse_key(padded).key is parse_key(padded).key) is kept


def test_no_more_keys_are_kept_than_the_bound() -> None:
    for number in range(DKIM_KEYS + 1):
        parse_key(b"k=ed25519; n=%d; p=" % number + base64.b64encode(bytes(32)))
    assert keys._kept.cache_info().currsize == DKIM_KEYS
    first = b"k=ed25519; n=0; p=" + base64.b64encode(bytes(32))
    misses = keys._kept.cache_info().misses
    parse_key(first)
    assert keys._kept.cache_info().misses == misses + 1


def test_an_rsa_key_with_a_huge_exponent_is_refused() -> None:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

    n = RSA_KEY.public_key().public_numbers().n
    for bits, ok in ((64, True), (65, False), (2000, False)):
        key = RSAPublicNumbers((1 << (bits - 1)) + 1, n).public_key()
        der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        record = b"p=" + base64.b64encode(der)
        if ok:
            assert isinstance(keys.parse_key(record).verify(bytes(32), bytes(256)), bool)
        else:
            with pytest.raises(BadKey, match="exponent"):
                keys.parse_key(record)


async def test_any_octets_in_a_message_give_a_verdict() -> None:
    chance = random.Random(2)
    seeds = [
        sign(MESSAGE),
        sign(MESSAGE, "ed25519", "simple", "simple"),
        b"ARC-Seal: i=1; a=rsa-sha256; cv=none\r\n" + MESSAGE,
    ]
    zone = Zone({**ZONE, "_dmarc.example.org": {"TXT": ["v=DMARC1; p=reject"]}})
    words = [b"\0", b"\xff", b"\r\n", b";", b"=", b"\\", b"(", b'"', b"@", b"<", b"%", b"xn--\xc3\xb6", b":" * 50]
    for _ in range(1500):
        raw = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(raw))
            raw[at : at + chance.randrange(3)] = chance.choice(words)
        header, body = split_message(bytes(raw))
        fields = parse_fields(header)
        bodies = Bodies(forms_needed(fields))
        bodies.update(body)
        client = Client("192.0.2.1", "h\udc80", bytes(raw[:40]).decode("utf-8", "surrogateescape") + "@example.org")
        verdicts = await verify_message(fields, bodies, client, zone, inline, 1e9)
        authentication_results("mx.example.org", verdicts.parts(client.sender))


async def test_slow_signers_leave_time_for_the_authors_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]

    class Slow(Zone):
        async def txt(self, name: str) -> tuple[bytes, ...]:
            if name.endswith("evil.example"):
                clock[0] += AUTHENTICATION_TIME_S + 1
            return await super().txt(name)

    loop = SimpleNamespace(time=lambda: clock[0])
    monkeypatch.setattr(verifying, "asyncio", SimpleNamespace(get_running_loop=lambda: loop))
    bh = base64.b64encode(hashlib.sha256().digest()).decode()
    header = (
        f"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=evil.example; s=s; h=from; bh={bh}; b=AAAA\r\n"
        "From: ceo@bank.example\r\n"
    )
    fields = parse_fields(header.encode())
    zone = Slow({"_dmarc.bank.example": {"TXT": ["v=DMARC1; p=reject"]}})
    verdicts = await verify_message(fields, Bodies(forms_needed(fields)), None, zone, inline, 1e9)
    assert (verdicts.dmarc.result, verdicts.dmarc.disposition) == ("fail", "reject")


async def test_no_signer_waits_for_another_ones_key() -> None:
    asked = asyncio.Event()

    class Waiting(Zone):
        async def txt(self, name: str) -> tuple[bytes, ...]:
            if name == "s._domainkey.bank.example":
                asked.set()
            elif name.endswith("evil.example"):
                await asked.wait()
            return await super().txt(name)

    bh = base64.b64encode(hashlib.sha256().digest()).decode()
    header = "".join(
        f"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d={d}; s=s; h=from; bh={bh}; b=AAAA\r\n"
        for d in ("evil.example", "a.evil.example", "bank.example")
    )
    fields = parse_fields(f"{header}From: ceo@bank.example\r\n".encode())
    zone = Waiting({"_dmarc.bank.example": {"TXT": ["v=DMARC1; p=reject"]}})
    async with asyncio.timeout(60):
        verdicts = await verify_message(fields, Bodies(forms_needed(fields)), None, zone, inline, 1e9)
    assert [one.domain for one in verdicts.dkim] == ["evil.example", "a.evil.example", "bank.example"]
    assert verdicts.dmarc.result == "fail"


async def test_no_author_waits_for_another_ones_policy() -> None:
    asked = asyncio.Event()

    class Waiting(Zone):
        async def txt(self, name: str) -> tuple[bytes, ...]:
            if name == "_dmarc.bank.example":
                asked.set()
            elif name.endswith("evil.example"):
                await asked.wait()
            return await super().txt(name)

    zone = Waiting({"_dmarc.bank.example": {"TXT": ["v=DMARC1; p=reject"]}})
    async with asyncio.timeout(60):
        verdict = await check_dmarc(zone, from_("x@a.evil.example, y@evil.example, ceo@bank.example"), None, [])
    assert (verdict.author_domain, verdict.disposition) == ("bank.example", "reject")


# --- From ---


@pytest.mark.parametrize(
    ("value", "domain"),
    [
        ('"a <ceo@bank.example>', "bank.example"),
        ("(a <ceo@bank.example>", "bank.example"),
        ("ceo@bank.example)", "bank.example"),
        ("ceo@bank.example\x00", "bank.example"),
        ("<ceo@bank.example> <x@evil.example>", "bank.example"),
        ("<x@evil.example> ceo@bank.example", "bank.example"),
        ("<ceo@bank.example, x@evil.example>", "bank.example"),
        ("<ceo@bank.example, x@evil.example", "bank.example"),
        ("ceo@bank.example foo", "bank.example"),
        ("ceo@bank.example\ufffd, x@evil.example", "evil.example"),
        ("ceo@\u2603.bank.example", "xn--n3h.bank.example"),
        ("ceo@Bank.EXAMPLE..", "bank.example"),
        ("ceo@bank\u3002example", "bank.example"),
        ("ceo@\uff42ank.example", "bank.example"),
        ("ceo@bank . example", "bank.example"),
        ('\\"x, ceo@bank.example', "bank.example"),
        ("x:ceo@bank.example;", "bank.example"),
    ],
)
def test_a_domain_does_not_hide(value: str, domain: str) -> None:
    assert domain in author_domains(from_(value))


def test_many_authors_are_too_many_and_cost_little() -> None:
    assert len(author_domains(from_(",".join(f"a@d{n}.example" for n in range(DMARC_AUTHORS))))) == DMARC_AUTHORS
    for value in (
        ",".join(f"a@d{n}.example" for n in range(DMARC_AUTHORS + 1)),
        ",".join(f"a@\u00f6{n}.example" for n in range(30_000)),
        ",".join(["a@example.org"] * 50_000),
        "(" * 500_000,
        '"' * 500_001,
        "\\" * 500_000,
        "<" * 500_000 + "a@b.example",
        "a@b" + " ." * 250_000,
    ):
        with pytest.raises(TooManyAuthors), cpu_within(1.0):
            author_domains(from_(value))
    short = "(" * (DMARC_FROM_BYTES - 50)
    with cpu_within(0.5):
        assert author_domains(from_(short + "a@b.example")) == ("b.example",)


async def test_too_many_authors_are_rejected() -> None:
    fields = from_(",".join(f"a@d{n}.example" for n in range(10_000)))
    verdict = await check_dmarc(Zone(), fields, None, [])
    assert (verdict.result, verdict.disposition) == ("permerror", "reject")


@pytest.mark.parametrize(
    "label", ["x" * 64, "localhost", "a_b.example", "-", "xn--a.example", "\u00f6" * 70 + ".example"]
)
async def test_odd_author_domains_give_a_verdict(label: str) -> None:
    assert (await check_dmarc(Zone(), from_(f"a@{label}"), None, [])).result == "none"


def test_a_huge_policy_record_is_read_to_its_bound() -> None:
    with cpu_within(0.5):
        record = parse_record(b"v=DMARC1; p=reject;" + b"a=b;" * 16_000 + b"sp=none")
    assert record is not None
    assert (record.p, record.sp) == ("reject", None)


# --- Authentication-Results ---


@pytest.mark.parametrize(
    "value",
    [
        "(" * 900_000,
        "(" * 5000 + "x" + ")" * 5000 + " mx.example.org; spf=pass",
        "; spf=pass",
        '"',
        "mx.example.org\x0c; spf=pass",
    ],
)
def test_a_field_whose_id_cannot_be_told_is_a_forgery_and_never_ours(value: str) -> None:
    (field,) = parse_fields(b"Authentication-Results: " + value.encode() + b"\r\n")
    with cpu_within(0.5):
        assert is_forged(field, "mx.example.org")
    assert is_ours(field, "mx.example.org") is value.startswith("mx")
    (other,) = parse_fields(b"Authentication-Results: mx.example.net; spf=pass\r\n")
    assert not is_forged(other, "mx.example.org")


def test_octets_that_are_no_utf8_do_not_end_the_writing() -> None:
    raw = authentication_results(
        "mx.example.org", [spf_result("pass", "e", from_helo=False, sender="a\udc80\r\nX: y@e")]
    )
    assert raw.count(b"\r\n") == raw.count(b"\r\n\t") + 1


# --- SPF ---


def spf_zone(record: str, **more: Any) -> Zone:
    return Zone({"example.org": {"TXT": [record]}, **more})


async def spf(zone: Zone, sender: str = "a@example.org", ip: str = "192.0.2.1", **more: Any) -> Any:
    return await check_spf(zone, ip, "helo.example", sender, **more)


async def test_a_record_has_a_bound() -> None:
    start = "v=spf1 " + "ip4:198.51.100.1 " * 400
    fits = (start + " " * (SPF_RECORD_BYTES - len(start) - 4)) + "-all"
    assert (await spf(spf_zone(fits))).result == "fail"
    assert (await spf(spf_zone(fits + " "))).result == "permerror"


async def test_macros_repeated_a_thousand_times_cost_little() -> None:
    record = "v=spf1 exists:" + "%{s}." * 1500 + "example.org -all"
    with cpu_within(1.0):
        assert (await spf(spf_zone(record), "a." * 120 + "a@example.org")).result == "fail"
    with cpu_within(0.5):
        assert shortened("a." * 500_000 + "org") == ("a." * 500_000 + "org")[-253:]
        assert not is_queryable(shortened("a" * 500_000))
    assert shortened("b." + "a." * 125 + "org") == "a." * 125 + "org"


def test_labels_that_a_macro_keeps() -> None:
    assert expand("%{d002}", {"d": "a.b.c"}) == "b.c"
    for digits in ("0", "000", "129", "9" * 6000):
        with pytest.raises(RecordError):
            check_macros("%{d" + digits + "}")
    check_macros("%{d128}")


@pytest.mark.parametrize(
    "sender", ["\\999@example.org", "a\\b@example.org", "\u00f6@example.org", "a\udc80@example.org", "\0@example.org"]
)
async def test_a_local_part_that_is_no_name_matches_nothing(sender: str) -> None:
    zone = spf_zone("v=spf1 exists:%{l}.example.org exists:%{L}.x.example.org -all")
    assert (await spf(zone, sender)).result == "fail"
    assert all(name.isascii() and "\\" not in name for name, _ in zone.asked)


async def test_an_answer_of_a_thousand_addresses_costs_little() -> None:
    many = {"A": [f"198.51.{n // 250}.{n % 250}" for n in range(1024)]}
    hosts = {f"h{n}.example.org": many for n in range(10)}
    zone = spf_zone("v=spf1 " + "mx " * 9 + "-all", **hosts)
    zone.records["example.org"]["MX"] = [(10, name) for name in hosts]  # type: ignore[index]
    with cpu_within(2.0):
        assert (await spf(zone)).result == "fail"
    zone.records["example.org"]["MX"].append((10, "h11.example.org"))  # type: ignore[index]
    assert (await spf(zone)).result == "permerror"


async def test_hosts_without_an_address_of_the_clients_family_are_void_once_a_term() -> None:
    hosts = {f"h{n}.example.org": {"A": [f"198.51.100.{n}"]} for n in range(5)}
    zone = spf_zone("v=spf1 mx mx -all", **hosts)
    zone.records["example.org"]["MX"] = [(10, name) for name in hosts]  # type: ignore[index]
    assert (await spf(zone, ip="2001:db8::1")).result == "fail"
    zone.records["example.org"]["TXT"] = ["v=spf1 mx mx mx -all"]  # type: ignore[index]
    assert (await spf(zone, ip="2001:db8::1")).result == "permerror"
    assert (await spf(zone, ip="198.51.100.4")).result == "pass"


async def test_only_ten_names_of_a_client_are_asked_for() -> None:
    zone = spf_zone("v=spf1 ptr -all")
    zone.records["1.2.0.192.in-addr.arpa"] = {"PTR": [f"p{n}.example.org" for n in range(1000)]}
    assert (await spf(zone)).result == "fail"
    assert len(zone.asked) == 12


async def test_prefixes_are_compared_in_both_families() -> None:
    zone = spf_zone("v=spf1 a/24//64 -all")
    zone.records["example.org"] |= {"A": ["192.0.2.200"], "AAAA": ["2001:db8::1"]}  # type: ignore[operator]
    for ip, result in (
        ("192.0.2.1", "pass"),
        ("192.0.3.1", "fail"),
        ("2001:db8::ffff", "pass"),
        ("2001:db8:0:1::1", "fail"),
        ("::ffff:192.0.2.9", "pass"),
        ("2001:db8::1%eth0", "pass"),
    ):
        assert (await spf(zone, ip=ip)).result == result, ip


async def test_a_slow_explanation_leaves_the_fail() -> None:
    import asyncio

    class Slow(Zone):
        async def txt(self, name: str) -> tuple[bytes, ...]:
            if name == "why.example.org":
                await asyncio.Event().wait()
            return await super().txt(name)

    zone = Slow({"example.org": {"TXT": ["v=spf1 -all exp=why.example.org"]}})
    verdict = await spf(zone, time_s=0.01)
    assert (verdict.result, verdict.explanation) == ("fail", "")


def test_records_of_any_octets_are_errors_and_nothing_else() -> None:
    chance = random.Random(3)
    words = [
        "v=spf1",
        " ",
        "a",
        "mx",
        "ip4:",
        "ip6:",
        "exists:",
        "%{",
        "}",
        "%",
        "/",
        "//",
        "1",
        "999",
        ".",
        ":",
        "exp=",
        "\x00",
        "l",
        "r",
    ]
    for _ in range(5000):
        text = "v=spf1 " + "".join(chance.choices(words, k=chance.randrange(1, 25)))
        try:
            parse_spf(text.encode())
        except RecordError:
            continue
    with pytest.raises(RecordError):
        parse_spf(b"v=spf1 \xff")


# --- signing ---


@pytest.mark.parametrize("name", [b"x;b=", b"", b"a b", b"x\r\ny", b"\xff"])
def test_a_name_that_would_break_h_is_refused(name: bytes) -> None:
    with pytest.raises(SigningError, match="no field name"):
        names_to_sign(parse_fields(b"From: a\r\n"), [b"from", name])


@pytest.mark.parametrize("domain", ["a;b", "a b\\c", "", "ex\r\nX: y", "a..b", "\udc80"])
def test_a_domain_that_no_signature_can_have_is_refused(domain: str) -> None:
    from cryptography.hazmat.primitives.serialization import NoEncryption, PrivateFormat

    pem = SIGNERS["ed25519"].key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(SigningError, match="not a domain"):
        load_signer(pem, domain, "s")
    with pytest.raises(SigningError, match="not a selector"):
        load_signer(pem, "example.org", domain)
    assert load_signer(pem, "B\u00fccher.example.", "S1").domain == "xn--bcher-kva.example"


def test_pem_of_any_octets_is_a_signing_error_and_nothing_else() -> None:
    from cryptography.hazmat.primitives.serialization import NoEncryption, PrivateFormat

    chance = random.Random(5)
    pem = SIGNERS["ed25519"].key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for _ in range(500):
        raw = bytearray(pem)
        for _ in range(3):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
        try:
            load_signer(bytes(raw), "example.org", "s")
        except SigningError:
            continue


def test_a_signature_of_any_octets_is_a_tag_error_and_nothing_else() -> None:
    chance = random.Random(6)
    (field, *_) = parse_fields(split_message(sign(MESSAGE))[0])
    for _ in range(3000):
        raw = bytearray(field.raw)
        for _ in range(chance.randrange(1, 8)):
            raw[chance.randrange(15, len(raw))] = chance.randrange(256)
        try:
            parse_signature(Field(field.name, bytes(raw)), arc=chance.random() < 0.5)
        except TagError:
            continue
