"""SRS: rewritten senders and the way back; what is forged, expired or made by an old secret; old ones."""

import stat

import pytest

from fastmta.config.schema import Config
from fastmta.delivery.routing import Router
from fastmta.directory import addresses
from fastmta.directory.addresses import Address
from fastmta.directory.domains import DomainClass
from fastmta.directory.recipients import Directory
from fastmta.directory.srs import Srs, SrsRefused, make_secrets, own_srs, read_secrets
from fastmta.model.errors import ConfigError
from fastmta.runtime.clock import ManualClock
from tests.directory.test_recipients import Store

DAY = 86_400
NOW = 1_795_800_000
ANN = Address("Ann.B+x", "author.example")


class Clock:
    def __init__(self) -> None:
        self.at = float(NOW)

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(clock: Clock, *secrets: bytes, domain: str = "srs.test", excluded: tuple[str, ...] = ()) -> Srs:
    return Srs(domain, secrets or (b"first",), excluded, 21 * DAY, clock)


def local(path: bytes | None) -> str:
    assert path is not None
    return path.decode().rpartition("@")[0]


def test_a_sender_comes_back_as_it_was(clock: Clock) -> None:
    srs = make(clock)
    path = srs.forward(ANN)
    assert path is not None and path.startswith(b"SRS0=") and path.endswith(b"=author.example=Ann.B+x@srs.test")
    assert srs.reverse(local(path)) == ANN
    assert srs.reverse(local(path).lower()) == Address("ann.b+x", "author.example")  # hosts that fold case


def test_a_second_forwarder_leads_back_to_the_first_and_a_third_too(clock: Clock) -> None:
    first, second, third = (make(clock, name.encode(), domain=f"{name}.test") for name in ("one", "two", "three"))
    sender = ANN
    path = first.forward(sender)
    again = second.forward(Address(local(path), "one.test"))
    assert again is not None and again.startswith(b"SRS1=") and again.count(b"author.example") == 1
    assert second.reverse(local(again)) == Address(local(path), "one.test")
    more = third.forward(Address(local(again), "two.test"))
    assert more is not None and more.endswith(b"@three.test")
    assert third.reverse(local(more)) == Address(local(path), "one.test")
    assert first.reverse(third.reverse(local(more)).local_part) == ANN


@pytest.mark.parametrize(
    "text",
    [
        "SRS0=AAAA=ZZ=author.example=ann",
        "SRS0=AA=ZZ=author.example=ann",
        "SRS0=AAAA=author.example=ann",
        "SRS0====",
        "SRS0=",
        "SRS0+x",
        "SRS1=AAAA=one.test==BBBB=ZZ=author.example=ann",
        "SRS1=AAAA=one.test",
        "SRS1====",
        "SRS1==" + "=" * 50,
        "SRS0=" + "A" * 200 + "=ZZ=a.example=b",
        "SRS0=\xe9\xe9\xe9\xe9=ZZ=a.example=b",
    ],
)
def test_what_we_did_not_make_is_refused(clock: Clock, text: str) -> None:
    with pytest.raises(SrsRefused):
        make(clock).reverse(text)


def test_an_address_is_good_for_its_days_and_from_a_clock_a_day_ahead(clock: Clock) -> None:
    srs = make(clock)
    made = local(srs.forward(ANN))
    clock.at = NOW - DAY
    assert srs.reverse(made) == ANN
    clock.at = NOW + 21 * DAY
    assert srs.reverse(made) == ANN
    clock.at = NOW + 22 * DAY
    with pytest.raises(SrsRefused, match="expired"):
        srs.reverse(made)


def test_a_new_secret_makes_and_the_old_one_still_checks(clock: Clock) -> None:
    old = local(make(clock, b"old").forward(ANN))
    both = make(clock, b"new", b"old")
    assert both.reverse(old) == ANN
    assert local(both.forward(ANN)) != old
    with pytest.raises(SrsRefused):
        make(clock, b"new").reverse(old)


def test_excluded_domains_keep_their_senders(clock: Clock) -> None:
    srs = make(clock, excluded=("keep.example", ".below.example"))
    assert srs.is_excluded("keep.example") and srs.is_excluded("a.below.example") and srs.is_excluded("srs.test")
    assert not srs.is_excluded("below.example") and not srs.is_excluded("a.keep.example")


def test_a_sender_that_would_be_too_long_is_left(clock: Clock) -> None:
    assert make(clock).forward(Address("a" * 64, "b" * 60 + "." + "c" * 120 + ".example")) is None


def test_an_odd_local_part_comes_back(clock: Clock) -> None:
    odd = Address('a b"=c', "author.example")
    srs = make(clock)
    path = srs.forward(odd)
    assert path is not None and path.startswith(b'"SRS0=')
    assert srs.reverse(addresses.parse(path.decode()).local_part) == odd


def test_secrets_are_made_once_and_read_with_comments(tmp_path) -> None:
    config = Config(srs_domain="srs.test", data_directory=str(tmp_path))
    with pytest.raises(ConfigError):
        own_srs(config, lambda: NOW)
    make_secrets(config)
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    first = read_secrets(path)
    make_secrets(config)
    assert read_secrets(path) == first and len(first[0]) > 30
    path.write_text("# the newest first\nnew\n\nold\n")
    assert read_secrets(path) == (b"new", b"old")
    path.write_text("# none\n")
    with pytest.raises(ConfigError, match="no secret"):
        read_secrets(path)
    path.write_text("x\n" * 11)
    with pytest.raises(ConfigError, match="more than 10"):
        read_secrets(path)


# --- in the directory ---


@pytest.fixture
def directory(tmp_path) -> Directory:
    config = Config(srs_domain="srs.test", data_directory=str(tmp_path), mydestination=("example.test",))
    make_secrets(config)
    return Directory(config, Store(), Router(config), clock=ManualClock())


def test_a_bounce_goes_on_to_the_author_and_a_forged_one_nowhere(directory: Directory) -> None:
    assert directory.srs is not None
    path = directory.srs.forward(Address("ann", "author.example"))
    assert path is not None
    found = directory.resolve(path, may_relay=False)
    assert [target.forward_path for target in found.targets] == [b"ann@author.example"]
    forged = directory.resolve(path.replace(b"=ann@", b"=eve@"), may_relay=False)
    assert forged.refusal is not None and forged.refusal.code == 550 and "SRS" in forged.refusal.text
    assert directory.class_of("srs.test") is DomainClass.ALIAS
    other = directory.resolve(b"nobody@srs.test", may_relay=False)
    assert other.refusal is not None and other.refusal.code == 550
    assert not directory.resolve(path, may_relay=False).refusal
    steps = directory.explain(path, may_relay=False)[1]
    assert [by for _, by, _ in steps] == ["SRS"]


def test_without_secrets_such_mail_is_put_off(tmp_path) -> None:
    config = Config(srs_domain="srs.test", data_directory=str(tmp_path), mydestination=("example.test",))
    directory = Directory(config, Store(), Router(config), clock=ManualClock())
    reply = directory.resolve(b"SRS0=AAAA=ZZ=a.example=b@srs.test", may_relay=False).refusal
    assert reply is not None and reply.code == 451
    assert any("srs_secrets" in problem for problem in directory.problems())


def test_a_sender_that_could_not_come_back_stays_as_it_is(clock: Clock) -> None:
    assert make(clock).forward(Address("ann", "a=b.example")) is None
    assert make(clock).forward(Address("SRS0=AAAA=BB=c.example=ann", "a=b.example")) is None
