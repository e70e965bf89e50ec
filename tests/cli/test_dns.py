"""`fastmta dns`: a whole zone file, and what the checks say of a zone that is right, empty, or wrong in each record."""

import io
from typing import Any

import dns.rdatatype
import dns.zone
import pytest

from tests.support.dns_thread import dns_stub

ADDRESSES = ("192.0.2.25", "2001:db8::25")


def run(cli: Any, zones: dict[str, Any], *more: str) -> Any:
    with dns_stub(zones) as stub:
        arguments = [word for address in ADDRESSES for word in ("--address", address)]
        return cli.ok("dns", "example.org", *arguments, "--nameserver", stub.address, *more)


def published(cli: Any, zones: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    records = run(cli, zones, "--json").json["records"]
    return {(record["name"], record["type"]): record for record in records}


def as_zones(text: str) -> dict[str, Any]:
    """A zone file as the name server of the tests has it."""
    lines = io.StringIO("$ORIGIN .\n. 1 IN SOA a. b. 1 1 1 1 1\n. 1 IN NS a.\n" + text)
    zone = dns.zone.from_text(lines, origin=".", relativize=False)
    zones: dict[str, Any] = {}
    for name, _, record in zone.iterate_rdatas():
        kind = dns.rdatatype.to_text(record.rdtype)
        entry = zones.setdefault(name.to_text().rstrip("."), {})
        if kind == "CNAME":
            entry[kind] = record.target.to_text()
        elif kind == "TXT":
            entry.setdefault(kind, []).append(b"".join(record.strings).decode())
        elif kind == "MX":
            entry.setdefault(kind, []).append((record.preference, record.exchange.to_text()))
        elif kind not in ("SOA", "NS"):
            entry.setdefault(kind, []).append(record.to_text())
    return zones


@pytest.fixture
def host(cli: Any) -> str:
    cli.ok("dkim", "add", "example.org", "--selector", "s1")
    return str(run(cli, {}, "--json").json["host"])


def test_what_it_prints_is_a_zone_file_that_it_then_finds_right(cli: Any, host: str) -> None:
    zones = as_zones(run(cli, {}).out)
    records = published(cli, zones)
    assert {record["state"] for record in records.values()} == {"ok"}, records
    kinds = {kind for _, kind in records}
    assert kinds == {"MX", "A", "AAAA", "PTR", "TXT", "CNAME", "TLSA", "SRV"}
    for name in (
        "example.org",
        "_dmarc.example.org",
        "s1._domainkey.example.org",
        "_mta-sts.example.org",
        "_smtp._tls.example.org",
    ):
        assert (name, "TXT") in records
    assert (f"_25._tcp.{host}", "TLSA") in records
    assert "; all needed records are published" in run(cli, zones).out


def test_an_empty_zone_is_missing_everything_and_says_what_it_costs(cli: Any, host: str) -> None:
    records = published(cli, {})
    assert {record["state"] for record in records.values()} == {"missing"}
    assert all(record["cost"] for record in records.values())
    assert "of the needed records are not as they should be" in run(cli, {}).out


@pytest.mark.parametrize(
    ("name", "kind", "values", "state", "note"),
    [
        ("example.org", "MX", [(10, "other.example.net.")], "wrong", "mail goes to other.example.net"),
        ("HOST", "A", ["198.51.100.1"], "wrong", "it points to 198.51.100.1"),
        ("25.2.0.192.in-addr.arpa", "PTR", ["pool-7.example.net."], "wrong", "its name is pool-7"),
        ("example.org", "TXT", ["v=spf1 -all"], "wrong", "gets fail"),
        ("example.org", "TXT", ["v=spf1 mx -all", "v=spf1 -all"], "wrong", "2 records"),
        ("example.org", "TXT", ["v=spf1 +all"], "wrong", "everybody"),
        ("example.org", "TXT", ["v=spf1 mix -all"], "wrong", "permerror"),
        ("example.org", "TXT", ["unrelated"], "missing", ""),
        ("s1._domainkey.example.org", "TXT", ["v=DKIM1; p="], "wrong", "revoked"),
        ("s1._domainkey.example.org", "TXT", ["v=DKIM1; p=QUJD"], "wrong", "another key"),
        ("s1._domainkey.example.org", "TXT", ["nonsense"], "wrong", "no tag=value"),
        ("_dmarc.example.org", "TXT", ["v=DMARC1; p=none", "v=DMARC1; p=reject"], "wrong", "2 records"),
        ("_dmarc.example.org", "TXT", ["v=DMARC1; p=banish"], "wrong", "p="),
        ("_dmarc.example.org", "TXT", ["v=DMARC1; p=reject; t=y"], "ok", "no rua="),
        ("_mta-sts.example.org", "TXT", ["v=STSv1; id=1", "v=STSv1; id=2"], "wrong", "2 records"),
        ("_smtp._tls.example.org", "TXT", ["v=other"], "missing", ""),
        ("_25._tcp.HOST", "TLSA", ["3 1 1 " + "00" * 32], "wrong", "refuse to deliver"),
        ("autoconfig.example.org", "A", ["198.51.100.7"], "wrong", "198.51.100.7"),
        ("example.org", "MX", "SERVFAIL", "unknown", "no name server could answer"),
    ],
)
def test_what_is_wrong_is_named(cli: Any, host: str, name: str, kind: str, values: Any, state: str, note: str) -> None:
    zones = as_zones(run(cli, {}).out)
    name = name.replace("HOST", host)
    if values == "SERVFAIL":
        zones[name] = values
    else:
        zones[name].pop("CNAME", None)
        zones[name][kind] = values
    found = published(cli, zones)[name, "CNAME" if name.startswith("autoconfig") else kind]
    assert (found["state"], note in found["note"]) == (state, True), found
    assert bool(found["cost"]) == (state != "ok")


def test_a_service_at_another_place_and_one_that_is_not_offered(cli: Any, host: str) -> None:
    zones = as_zones(run(cli, {}).out)
    name = next(name for name in zones if name.startswith("_submission"))
    zones[name]["SRV"] = ["0 1 99 elsewhere.example.net."]
    found = published(cli, zones)[name, "SRV"]
    assert (found["state"], "elsewhere.example.net:99" in found["note"], found["needed"]) == ("wrong", True, False)


def test_mistakes_are_one_line_with_a_code(cli: Any) -> None:
    for arguments in (("nodots",), ("example.org", "--address", "here")):
        done = cli("dns", *arguments)
        assert (done.code, done.err.count("\n")) == (64, 1)
