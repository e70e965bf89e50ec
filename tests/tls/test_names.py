"""Which names of a certificate count for which strategy: Postfix's rules, case by case."""

import pytest

from fastmta.tls.names import certificate_names, matching


def certificate(*names, common_name="", addresses=()):
    alternatives = [("DNS", name) for name in names] + [("IP Address", address) for address in addresses]
    subject = ((("commonName", common_name),),) if common_name else ()
    return {"subject": subject, "subjectAltName": tuple(alternatives)}


@pytest.mark.parametrize(
    ("strategy", "name", "fits"),
    [
        ("nexthop", "b.test", True),
        ("nexthop", "B.Test.", True),
        ("nexthop", "mx.b.test", False),
        ("nexthop", "*.b.test", False),
        ("nexthop", "*.test", False),  # would speak for every domain of a registry
        ("nexthop", "*", False),
        ("dot-nexthop", "mx.b.test", True),
        ("dot-nexthop", "a.mx.b.test", True),
        ("dot-nexthop", "*.b.test", True),
        ("dot-nexthop", "b.test", False),
        ("dot-nexthop", ".b.test", False),
        ("dot-nexthop", "evilb.test", False),
        ("hostname", "mx.evil.test", True),
        ("hostname", "*.evil.test", True),
        ("hostname", "*.*.test", False),
        ("hostname", "m*.evil.test", False),
        ("good.test", "good.test", True),
        (".good.test", "mx.good.test", True),
        (".good.test", "good.test", False),
    ],
)
def test_a_strategy_takes_these_names(strategy, name, fits):
    found = matching(certificate(name), [strategy], hostname="mx.evil.test", nexthop="b.test")
    assert (found is not None) == fits
    assert not fits or found[0] == strategy


def test_the_common_name_counts_only_without_a_dns_name():
    assert certificate_names(certificate("a.test", common_name="b.test")) == ["a.test"]
    assert certificate_names(certificate(common_name="b.test", addresses=["192.0.2.1"])) == ["192.0.2.1", "b.test"]


def test_an_address_is_matched_whole_and_never_by_a_wildcard():
    where = {"hostname": "192.0.2.1", "nexthop": "192.0.2.1"}
    assert matching(certificate(addresses=["192.0.2.1"]), ["nexthop"], **where)
    assert not matching(certificate("*.0.2.1"), ["nexthop"], **where)


def test_no_strategy_takes_nobody():
    assert matching(certificate("b.test"), [], hostname="b.test", nexthop="b.test") is None
    assert matching({}, ["nexthop", "hostname"], hostname="", nexthop="") is None
