"""SPF: RFC 7208's rules by small zones; pyspf says the same of generated records."""

import pytest

from fastmta.authentication.spf import check_spf
from tests.authentication.zone import TROUBLE, Zone

IP, IP6 = "192.0.2.10", "2001:db8::10"


async def result(record: str, zone: dict[str, object] | None = None, ip: str = IP, helo: str = "h.example.org") -> str:
    records = {"example.org": {"TXT": [record]}, **(zone or {})}
    return (await check_spf(Zone(records), ip, helo, "ann@example.org")).result  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ("v=spf1 ip4:192.0.2.10 -all", "pass"),
        ("v=spf1 ip4:192.0.2.0/24 -all", "pass"),
        ("v=spf1 ip4:192.0.3.0/24 -all", "fail"),
        ("v=spf1 ~ip4:192.0.2.0/24 -all", "softfail"),
        ("v=spf1 ?all", "neutral"),
        ("v=spf1", "neutral"),
        ("V=SPF1 -ALL", "fail"),
        ("v=spf10 -all", "none"),
        ("v=spf1 unknown=1 a=2 +all", "pass"),
        ("v=spf1 ip4:192.0.2.300", "permerror"),
        ("v=spf1 ip4:192.0.2.0/33", "permerror"),
        ("v=spf1 ip4:192.0.2.0/024", "permerror"),
        ("v=spf1 all:x", "permerror"),
        ("v=spf1 all ip9:1", "permerror"),
        ("v=spf1 redirect=a.example redirect=b.example", "permerror"),
        ("v=spf1 include", "permerror"),
        ("v=spf1 a:%{z}.example", "permerror"),
        ("v=spf1 a:example.123 -all", "permerror"),
        ("v=spf1 \tall", "permerror"),
    ],
)
async def test_a_record(record: str, expected: str) -> None:
    assert await result(record) == expected


async def test_every_mechanism_that_asks() -> None:
    zone: dict[str, object] = {
        "mx.example.net": {"A": [IP], "AAAA": [IP6]},
        "mail.example.org": {"MX": [(10, "mx.example.net")]},
        "10.2.0.192.in-addr.arpa": {"PTR": ["host.example.org"]},
        "host.example.org": {"A": [IP]},
        "inc.example.org": {"TXT": ["v=spf1 ip4:192.0.2.10 -all"]},
        "no.example.org": {"TXT": ["v=spf1 -all"]},
        "ann.ok.example.org": {"A": ["127.0.0.2"]},
    }
    assert await result("v=spf1 a:mx.example.net -all", zone) == "pass"
    assert await result("v=spf1 a:mx.example.net/24 -all", zone, "192.0.2.77") == "pass"
    assert await result("v=spf1 a:mx.example.net//64 -all", zone, "2001:db8::99") == "pass"
    assert await result("v=spf1 mx:mail.example.org -all", zone, IP6) == "pass"
    assert await result("v=spf1 ptr -all", zone) == "pass"
    assert await result("v=spf1 include:inc.example.org -all", zone) == "pass"
    assert await result("v=spf1 include:no.example.org ~all", zone) == "softfail"
    assert await result("v=spf1 include:none.example.org ~all", zone) == "permerror"
    assert await result("v=spf1 exists:%{l}.ok.%{d} -all", zone) == "pass"
    assert await result("v=spf1 redirect=inc.example.org", zone) == "pass"
    assert await result("v=spf1 redirect=absent.example.org", zone) == "permerror"
    assert await result("v=spf1 ip4:192.0.2.10 -all", zone, "::ffff:192.0.2.10") == "pass"


async def test_look_ups_are_counted_and_bounded() -> None:
    zone: dict[str, object] = {f"n{i}.example.org": {"A": ["192.0.2.1"]} for i in range(12)}
    ten = " ".join(f"a:n{i}.example.org" for i in range(10))
    assert await result(f"v=spf1 {ten} ~all", zone) == "softfail"
    assert await result(f"v=spf1 {ten} a:n10.example.org ~all", zone) == "permerror"
    loop: dict[str, object] = {"l.example.org": {"TXT": ["v=spf1 include:l.example.org -all"]}}
    assert await result("v=spf1 include:l.example.org -all", loop) == "permerror"


async def test_two_voids_pass_and_three_do_not() -> None:
    assert await result("v=spf1 a:x1.example.org a:x2.example.org ~all") == "softfail"
    assert await result("v=spf1 a:x1.example.org a:x2.example.org mx:x3.example.org ~all") == "permerror"


async def test_more_than_ten_mx_hosts_is_an_error() -> None:
    zone: dict[str, object] = {"m.example.org": {"MX": [(1, f"h{i}.example.org") for i in range(11)]}}
    assert await result("v=spf1 mx:m.example.org -all", zone) == "permerror"


async def test_trouble_is_temporary() -> None:
    assert await result("v=spf1 a:t.example.org -all", {"t.example.org": TROUBLE}) == "temperror"
    verdict = await check_spf(Zone({"example.org": TROUBLE}), IP, "h", "ann@example.org")
    assert verdict.result == "temperror"


async def test_the_null_sender_is_judged_by_helo() -> None:
    zone = Zone({"mx.example.org": {"TXT": ["v=spf1 ip4:192.0.2.10 -all"]}})
    verdict = await check_spf(zone, IP, "mx.example.org", "")
    assert (verdict.result, verdict.domain, verdict.from_helo) == ("pass", "mx.example.org", True)


@pytest.mark.parametrize("sender", ["a@localhost", "a@" + "x" * 64 + ".example", "a@b..example.org", "a@[192.0.2.1]"])
async def test_what_is_no_domain_is_none(sender: str) -> None:
    assert (await check_spf(Zone(), IP, "h", sender)).result == "none"


async def test_the_explanation_is_the_owners_with_macros() -> None:
    zone = Zone(
        {
            "example.org": {"TXT": ["v=spf1 -all exp=why.%{d}"]},
            "why.example.org": {"TXT": ["%{c} is not %{s}'s, see %{H} %%"]},
        }
    )
    verdict = await check_spf(zone, IP, "a b", "ann@example.org")
    assert verdict.explanation == "192.0.2.10 is not ann@example.org's, see a%20b %"


async def test_two_records_are_an_error() -> None:
    zone = Zone({"example.org": {"TXT": ["v=spf1 -all", "v=spf1 +all", "other"]}})
    assert (await check_spf(zone, IP, "h", "ann@example.org")).result == "permerror"


async def test_macros_reverse_cut_and_escape() -> None:
    zone = Zone({"example.org": {"TXT": ["v=spf1 exists:%{ir}.%{v}.%{l1r-}.%{d2}.x.example -all"]}})
    verdict = await check_spf(zone, IP, "h", "ann-lists@example.org")
    assert verdict.result == "fail"
    assert ("10.2.0.192.in-addr.ann.example.org.x.example", "A") in zone.asked


async def test_the_best_of_a_clients_names_is_below_the_domain_in_any_case() -> None:
    zone = Zone(
        {
            "example.org": {"TXT": ["v=spf1 redirect=Mail.Example.ORG"]},
            "mail.example.org": {"TXT": ["v=spf1 exists:%{p}.ok.example -all"]},
            "1.2.0.192.in-addr.arpa": {"PTR": ["other.example", "a.mail.example.org"]},
            "other.example": {"A": ["192.0.2.1"]},
            "a.mail.example.org": {"A": ["192.0.2.1"]},
            "a.mail.example.org.ok.example": {"A": ["127.0.0.2"]},
        }
    )
    assert (await check_spf(zone, "192.0.2.1", "mx.example.net", "ann@example.org")).result == "pass"
