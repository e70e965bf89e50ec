"""DMARC by RFC 9989: the tree walk, which record and which tag holds, alignment, and tricks in From."""

from typing import Any

import pytest

from fastmta.authentication.authors import author_domains
from fastmta.authentication.dkim import DkimVerdict
from fastmta.authentication.dmarc import DmarcVerdict, check_dmarc, tree_walk
from fastmta.authentication.message import parse_fields
from fastmta.authentication.spf import SpfVerdict
from tests.authentication.zone import TROUBLE, Zone


def txt(record: str) -> dict[str, Any]:
    return {"TXT": [record]}


async def judge(
    sender: str, zone: Zone, *, spf: str = "", dkim: str = "", spf_result: str = "pass", dkim_result: str = "pass"
) -> DmarcVerdict:
    fields = parse_fields(f"From: {sender}\r\n".encode())
    spf_verdict = SpfVerdict(spf_result, spf) if spf else None
    verdicts = [DkimVerdict(dkim_result, dkim, "s", "")] if dkim else []
    return await check_dmarc(zone, fields, spf_verdict, verdicts)


async def test_alignment_is_relaxed_by_default_and_strict_where_asked() -> None:
    zone = Zone({"_dmarc.example.org": txt("v=DMARC1; p=reject")})
    assert (await judge("a@example.org", zone, dkim="mail.example.org")).result == "pass"
    assert (await judge("a@mail.example.org", zone, spf="bounce.example.org")).result == "pass"
    verdict = await judge("a@example.org", zone, dkim="example.net")
    assert (verdict.result, verdict.policy, verdict.disposition) == ("fail", "reject", "reject")
    strict = Zone({"_dmarc.example.org": txt("v=DMARC1; p=reject; adkim=s; aspf=s")})
    assert (await judge("a@example.org", strict, dkim="mail.example.org")).result == "fail"
    assert (await judge("a@example.org", strict, spf="example.org")).result == "pass"


@pytest.mark.parametrize(
    ("author", "exists", "record", "policy"),
    [
        ("example.org", True, "p=reject; sp=none", "reject"),
        ("sub.example.org", True, "p=reject; sp=quarantine; np=none", "quarantine"),
        ("sub.example.org", False, "p=reject; sp=quarantine; np=none", "none"),
        ("sub.example.org", False, "p=reject; sp=quarantine", "quarantine"),
        ("sub.example.org", True, "p=reject; np=none", "reject"),
        ("example.org", True, "rua=mailto:d@example.org", "none"),
        ("example.org", True, "p=bogus; rua=mailto:d@example.org", "none"),
        ("example.org", True, "p=reject; sp=bogus; rua=x, mailto:d@example.org", "none"),
        ("example.org", True, "p=reject; np=; rua=mailto:d@example.org", "none"),
        ("sub.example.org", True, "sp=reject; rua=mailto:d@example.org", "none"),
    ],
)
async def test_which_tag_is_the_policy(author: str, exists: bool, record: str, policy: str) -> None:
    zone = Zone({"_dmarc.example.org": txt("v=DMARC1; " + record)})
    if exists:
        zone.records[author] = {"A": ["192.0.2.1"]}
    assert (await judge(f"a@{author}", zone)).policy == policy


@pytest.mark.parametrize(
    "record",
    [
        "v=DMARC1",
        "v=dmarc1; p=reject",
        "p=reject; v=DMARC1",
        "v=DMARC1; p=bogus",
        "v=DMARC1; p=reject; sp=bogus",
        "v=DMARC1; p=reject; np=bogus; rua=d@example.org",
        "v=DMARC1; rua=d@example.org",
        "x",
    ],
)
async def test_what_is_no_record(record: str) -> None:
    verdict = await judge("a@example.org", Zone({"_dmarc.example.org": txt(record)}))
    assert (verdict.result, verdict.disposition) == ("none", "none")


async def test_two_records_are_none() -> None:
    zone = Zone({"_dmarc.example.org": {"TXT": ["v=DMARC1; p=reject", "v=DMARC1; p=none"]}})
    assert (await judge("a@example.org", zone)).result == "none"


async def test_pct_is_ignored_and_t_weakens_by_one() -> None:
    zone = Zone({"_dmarc.example.org": txt("v=DMARC1; p=reject; pct=0")})
    assert (await judge("a@example.org", zone)).disposition == "reject"
    for published, made in (("reject", "quarantine"), ("quarantine", "none"), ("none", "none")):
        zone = Zone({"_dmarc.example.org": txt(f"v=DMARC1; p={published}; t=y")})
        verdict = await judge("a@example.org", zone)
        assert (verdict.policy, verdict.disposition) == (published, made)


async def test_the_walk_asks_eight_times_at_most() -> None:
    zone = Zone()
    await tree_walk(zone, "a.b.c.d.e.f.g.h.i.j.example.org")
    assert [name for name, _ in zone.asked] == [
        "_dmarc.a.b.c.d.e.f.g.h.i.j.example.org",
        "_dmarc.f.g.h.i.j.example.org",
        "_dmarc.g.h.i.j.example.org",
        "_dmarc.h.i.j.example.org",
        "_dmarc.i.j.example.org",
        "_dmarc.j.example.org",
        "_dmarc.example.org",
        "_dmarc.org",
    ]


async def test_a_public_suffix_ends_the_organisation() -> None:
    zone = Zone(
        {
            "_dmarc.bank.example": txt("v=DMARC1; p=reject; psd=y"),
            "_dmarc.giant.bank.example": txt("v=DMARC1; p=quarantine"),
        }
    )
    assert (await judge("a@mail.giant.bank.example", zone, spf="mega.bank.example")).result == "fail"
    assert (await judge("a@mail.giant.bank.example", zone, spf="x.giant.bank.example")).result == "pass"
    assert (await judge("a@mega.bank.example", zone)).policy == "reject"  # the suffix's record holds


async def test_psd_n_makes_an_organisation_of_its_own() -> None:
    zone = Zone(
        {"_dmarc.example.org": txt("v=DMARC1; p=none"), "_dmarc.u.example.org": txt("v=DMARC1; p=reject; psd=n")}
    )
    verdict = await judge("a@x.u.example.org", zone, dkim="example.org")
    assert (verdict.result, verdict.domain) == ("fail", "u.example.org")


async def test_the_shortest_name_with_a_record_is_the_organisation() -> None:
    zone = Zone({"_dmarc.a.example.org": txt("v=DMARC1; p=none"), "_dmarc.example.org": txt("v=DMARC1; p=reject")})
    verdict = await judge("a@a.example.org", zone, dkim="b.example.org")
    assert (verdict.result, verdict.policy, verdict.domain) == ("pass", "none", "a.example.org")


async def test_trouble_never_rejects() -> None:
    assert (await judge("a@example.org", Zone({"_dmarc.example.org": TROUBLE}))).result == "temperror"
    zone = Zone({"_dmarc.example.org": txt("v=DMARC1; p=reject")})
    verdict = await judge("a@example.org", zone, dkim="example.org", dkim_result="temperror")
    assert (verdict.result, verdict.disposition) == ("temperror", "none")


@pytest.mark.parametrize("stranger", ["evil.example", "xbank.example", "example"])
async def test_trouble_at_a_strangers_servers_is_no_doubt(stranger: str) -> None:
    zone = Zone({"_dmarc.bank.example": txt("v=DMARC1; p=reject"), f"_dmarc.{stranger}": TROUBLE})
    fields = parse_fields(b"From: a@bank.example\r\n")
    spf = SpfVerdict("pass", f"mail.{stranger}")
    verdict = await check_dmarc(zone, fields, spf, [DkimVerdict("pass", stranger, "s", "")])
    assert stranger == "example" or (verdict.result, verdict.disposition) == ("fail", "reject")
    verdict = await check_dmarc(zone, fields, spf, [DkimVerdict("pass", "bank.example", "s", "")])
    assert (verdict.result, verdict.dkim_aligned) == ("pass", True)


async def test_trouble_with_one_identifier_leaves_the_others() -> None:
    zone = Zone({"_dmarc.example.org": txt("v=DMARC1; p=reject"), "_dmarc.a.example.org": TROUBLE})
    assert (await judge("a@example.org", zone, dkim="a.example.org")).result == "temperror"
    verdict = await judge("a@example.org", zone, spf="a.example.org", dkim="b.example.org")
    assert (verdict.result, verdict.spf_aligned, verdict.dkim_aligned) == ("pass", False, True)


@pytest.mark.parametrize(
    "below",
    [
        ".".join(["x" * 60] * 4),  # a name of which the DNS has room, but not with _dmarc. in front
        ".".join(["x" * 60] * 9),
        "x" * 64,
        "x.",
        "\u2603",
        "x" * 5000,
        "\u2603" * 5000,
    ],
)
async def test_a_name_that_cannot_exist_has_the_policy_of_its_owner(below: str) -> None:
    zone = Zone({"_dmarc.bank.example": txt("v=DMARC1; p=none; sp=quarantine; np=reject")})
    verdict = await judge(f"Ann <a@{below}.bank.example>", zone, spf="evil.example")
    assert (verdict.result, verdict.disposition, verdict.domain) == ("fail", "reject", "bank.example")
    assert len(verdict.author_domain) < 1000


async def test_the_strictest_of_several_authors_counts() -> None:
    zone = Zone({"_dmarc.example.org": txt("v=DMARC1; p=none"), "_dmarc.bank.example": txt("v=DMARC1; p=reject")})
    for sender in ("a@example.org, b@bank.example", "b@bank.example, a@example.org"):
        verdict = await judge(sender, zone, dkim="example.org")
        assert (verdict.result, verdict.disposition) == ("fail", "reject")
    two = parse_fields(b"From: a@example.org\r\nFrom: b@bank.example\r\n")
    assert (await check_dmarc(zone, two, None, [DkimVerdict("pass", "example.org", "s", "")])).disposition == "reject"


@pytest.mark.parametrize(
    ("value", "domains"),
    [
        ("Ann <ann@Example.ORG>", ("example.org",)),
        ('"b@bank.example" <a@example.org>', ("example.org",)),
        ("b@bank.example <a@example.org>", ("example.org",)),
        ("(b@bank.example) a@example.org (x)", ("example.org",)),
        ('"a, b" <a@example.org>, c@example.net', ("example.org", "example.net")),
        ("Group: a@example.org, b@example.net;", ("example.org", "example.net")),
        ('"a@b"@example.org', ("example.org",)),
        ("<@relay.example:a@example.org>", ("example.org",)),
        ("a@example\r\n .org", ("example.org",)),
        ("a@bücher.example", ("xn--bcher-kva.example",)),
        ("a@[192.0.2.1]", ()),
        ("nobody", ()),
        ("", ()),
    ],
)
def test_the_authors_domains(value: str, domains: tuple[str, ...]) -> None:
    assert author_domains(parse_fields(f"From: {value}\r\n".encode())) == domains


@pytest.mark.parametrize(
    "value",
    [
        "Ann <a@example.org>",
        "a@Example.ORG",
        '"Ann, of <b@bank.example>" <a@example.org> ',
        "=?utf-8?q?=C3=84nn?= <a+b=c@a.example.org>",
        "<a@x-_.example>",
        "A.B. x@y <a@example.org>",
        "a@example.org b@bank.example",
        '"a" b <a@example.org>',
        "Ann <a@example.org> (b@bank.example)",
        "Ann <a@example.org>, b@bank.example",
        "a@.example.org",
        "a@example.org.",
        "a@b@example.org",
        "Ann <<a@example.org>>",
        "Ann\r\n <a@example.org>",
        "group: a@example.org;",
        "a b@example.org",
    ],
)
def test_the_short_way_to_an_author_finds_what_the_long_one_does(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = parse_fields(f"From: {value}\r\n".encode())
    short = author_domains(fields)
    monkeypatch.setattr("fastmta.authentication.authors._PLAIN_BYTES", 0)
    assert short == author_domains(fields)
