"""Which certificate a TLSA record stands for: RFC 6698 and 7672, case by case."""

import datetime

import pytest

from fastmta.tls.tlsa import Tlsa, fingerprints, matching_record
from tests.support.authority import DAY, issue

NOW = datetime.datetime.now(datetime.UTC)


def record(text):
    usage, selector, matching, data = text.split(" ", 3)
    return Tlsa(int(usage), int(selector), int(matching), bytes.fromhex(data))


@pytest.fixture(scope="module")
def root():
    return issue(["Root of Tests"], ca=True)


@pytest.fixture(scope="module")
def middle(root):
    return issue(["Middle of Tests"], root, ca=True)


@pytest.fixture(scope="module")
def leaf(middle):
    return issue(["mx.test", "*.wild.test"], middle)


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
def test_dane_ee_takes_its_certificate_or_key_whatever_its_name_and_date(selector, matching):
    old = issue(["whoever.test"], since=-20 * DAY, until=-10 * DAY)
    other = issue(["whoever.test"])
    ours = record(old.tlsa(3, selector, matching))
    assert matching_record(old.chain(), [ours], ["mx.test"], NOW) is ours
    assert matching_record(other.chain(), [ours], ["mx.test"], NOW) is None


@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
def test_dane_ta_takes_what_its_anchor_issued(root, middle, leaf, selector, matching):
    for anchor in (root, middle):
        ours = record(anchor.tlsa(2, selector, matching))
        assert matching_record(leaf.chain(), [ours], ["mx.test"], NOW) is ours


@pytest.mark.parametrize(
    ("names", "fits"),
    [
        (["mx.test"], True),
        (["MX.test."], True),
        (["other.test", "mx.test"], True),
        (["a.wild.test"], True),
        (["a.b.wild.test"], False),
        (["wild.test"], False),
        (["other.test"], False),
        ([], False),
    ],
)
def test_dane_ta_asks_for_a_name(root, leaf, names, fits):
    ours = record(root.tlsa(2, 0, 1))
    assert (matching_record(leaf.chain(), [ours], names, NOW) is not None) == fits


def test_dane_ta_wants_a_whole_chain_of_good_certificates(root, middle, leaf):
    by_root = record(root.tlsa(2, 0, 1))
    assert matching_record(leaf.chain()[:2], [by_root], ["mx.test"], NOW) is None  # the anchor was not sent
    whole = record(root.tlsa(2, 0, 0))
    assert matching_record(leaf.chain()[:2], [whole], ["mx.test"], NOW) is whole  # but here the record holds it
    assert matching_record([leaf.der(), root.der()], [by_root], ["mx.test"], NOW) is None  # the middle is missing
    stranger = issue(["mx.test"], issue(["Root of Tests"], ca=True))
    assert matching_record([stranger.der(), root.der()], [by_root], ["mx.test"], NOW) is None  # a name is no signature
    assert matching_record(leaf.chain(), [by_root], ["mx.test"], NOW + 60 * DAY) is None  # expired
    no_authority = issue(["mx.test"])
    forged = issue(["mx.test"], no_authority)
    assert matching_record(forged.chain(), [record(no_authority.tlsa(2, 0, 1))], ["mx.test"], NOW) is None
    itself = record(leaf.tlsa(2, 0, 1))
    assert matching_record(leaf.chain(), [itself], ["mx.test"], NOW) is None  # a leaf is no anchor


@pytest.mark.parametrize(
    "text", ["0 0 1 {a}", "1 1 1 {a}", "3 2 1 {a}", "3 1 3 {a}", "3 1 1 00", "3 1 2 {a}", "2 0 9 {a}"]
)
def test_what_cannot_be_used_matches_nothing(leaf, text):
    assert not record(text.format(a="ab" * 32)).is_usable


def test_any_of_several_records_will_do(leaf):
    records = [record("3 1 1 " + "00" * 32), record(leaf.tlsa(3, 1, 1)), record("0 0 1 " + "00" * 32)]
    assert matching_record(leaf.chain(), records, [], NOW) is records[1]


@pytest.mark.parametrize("chain", [[], [b""], [b"\x30\x03\x02\x01\x01"], [b"\xff" * 100]])
def test_what_is_no_certificate_matches_nothing(leaf, chain):
    assert matching_record(chain, [record(leaf.tlsa(3, 1, 1))], ["mx.test"], NOW) is None
    assert all(":" in each for raw in chain for each in fingerprints(raw, "sha256"))


def test_a_fingerprint_is_of_the_certificate_or_of_its_key(leaf):
    assert fingerprints(leaf.der(), "sha256") == (leaf.fingerprint(), leaf.fingerprint(key=True))


@pytest.mark.parametrize(
    ("raw", "made", "has_key"),
    [
        (b"\xa0\3\2\1\2", b"\xa0\3\2\1\4", False),  # version 5
        (b"\6\3\x55\x1d\x11", b"\6\3\x55\x1d\x13", True),  # two extensions of one kind
        (b"\x2a\x86\x48\xce\x3d\3\1\7", b"\x2a\x86\x48\xce\x3d\3\1\6", False),  # a curve that nobody knows
        (b"\x0c\7mx.test", b"\x0c\7\xff\xff\xff\xff\xff\xff\xff", True),  # a common name that is no text
    ],
    ids=["version", "extensions", "curve", "name"],
)
def test_what_cannot_be_read_of_a_certificate_proves_nothing(middle, raw, made, has_key):
    hostile = issue(["mx.test"], middle)
    broken = hostile.der().replace(raw, made)
    assert broken != hostile.der()
    anchor, ours = record(middle.tlsa(2, 1, 1)), record(hostile.tlsa(3, 1, 1))
    for chain in ([broken, middle.der()], [broken, broken]):
        assert matching_record(chain, [anchor], ["mx.test"], NOW) is None
    assert matching_record([broken], [ours], ["mx.test"], NOW) is (ours if has_key else None)
