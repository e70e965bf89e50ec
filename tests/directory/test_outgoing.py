"""Copies and routes by sender: whom an accepted envelope brings along, by Postfix's look-ups."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastmta._intake import Recipient
from fastmta.model.envelope import NOTIFY_NEVER, RecipientTail
from fastmta.model.errors import TemporaryFailure
from tests.directory.test_recipients import World


def world(tmp_path: Path, virtual: str = "", **tables: str) -> World:
    changes: dict[str, Any] = {}
    for name, text in tables.items():
        if name in ("always_bcc", "relayhost"):
            changes[name] = text
            continue
        path = tmp_path / name
        path.write_text(text)
        changes[name] = (f"hash:{path}",)
    return World(tmp_path, virtual, **changes)


def adjusted(known: World, sender: str, *recipients: str, copies: bool = True) -> list[str]:
    given = [Recipient(each.encode(), known.directory.resolve(each.encode(), may_relay=True)) for each in recipients]
    out = known.directory.adjusted(sender.encode(), given, copies=copies)
    assert [each.forward_path for each in out[: len(given)]] == [each.forward_path for each in given]
    return [each.forward_path.decode() for each in out[len(given) :]]


def hops(known: World, sender: str, recipient: str) -> list[str]:
    given = Recipient(recipient.encode(), known.directory.resolve(recipient.encode(), may_relay=True))
    return [to.hop.decode() for to in known.directory.adjusted(sender.encode(), [given])[0].targets]


def test_without_tables_nothing_is_asked(tmp_path: Path) -> None:
    assert not world(tmp_path).directory.adjusts


@pytest.mark.parametrize(
    ("sender", "recipients", "expected"),
    [
        ("ann@a.test", ["x@b.test"], ["of-ann@c.test", "all@c.test"]),
        ("ANN+ext@A.test", ["x@b.test"], ["of-ann@c.test", "all@c.test"]),
        ("bob@a.test", ["x@b.test"], ["of-a@c.test", "all@c.test"]),
        ("user@example.test", ["x@b.test"], ["of-user@c.test", "all@c.test"]),
        ("", ["x@b.test"], ["all@c.test"]),
        ("o@o.test", ["to+ext@b.test", "to@b.test"], ["of-ext@c.test", "of-to@c.test", "all@c.test"]),
        ("o@o.test", ["alias@example.test"], ["of-alias@c.test", "all@c.test"]),
        ("o@o.test", ["two@b.test"], ["one@c.test", "two@c.test", "all@c.test"]),
    ],
)
def test_copies(tmp_path: Path, sender: str, recipients: list[str], expected: list[str]) -> None:
    known = world(
        tmp_path,
        virtual="alias@example.test real@b.test\n",
        always_bcc="all@c.test",
        sender_bcc_maps="ann@a.test of-ann@c.test\n@a.test of-a@c.test\nuser of-user@c.test\n",
        recipient_bcc_maps=(
            "to+ext@b.test of-ext@c.test\nto@b.test of-to@c.test\nalias@example.test of-alias@c.test\n"
            "real@b.test never@c.test\ntwo@b.test one@c.test, two@c.test\n"
        ),
    )
    assert known.directory.adjusts
    assert adjusted(known, sender, *recipients) == expected


def test_our_own_mail_has_no_copies(tmp_path: Path) -> None:
    assert adjusted(world(tmp_path, always_bcc="all@c.test"), "", "x@b.test", copies=False) == []


def test_a_copy_goes_by_aliases_and_nothing_is_reported_of_it(tmp_path: Path) -> None:
    known = world(tmp_path, virtual="all@example.test archive@b.test\n", always_bcc="all@example.test")
    given = Recipient(b"x@b.test", known.resolve("x@b.test", True))
    copy = known.directory.adjusted(b"a@b.test", [given])[1]
    (target,) = copy.targets
    tail = msgspec.msgpack.decode(target.tail, type=RecipientTail)
    assert (tail.forward_path, tail.notify, target.hop) == (b"archive@b.test", NOTIFY_NEVER, b"smtp:b.test")


def test_a_copy_to_nobody_is_bounced_in_silence(tmp_path: Path) -> None:
    known = world(tmp_path, always_bcc="nobody@example.test")
    given = Recipient(b"x@b.test", known.resolve("x@b.test", True))
    (target,) = known.directory.adjusted(b"a@b.test", [given])[1].targets
    assert target.hop.startswith(b"error:5.1.1 ")
    assert msgspec.msgpack.decode(target.tail, type=RecipientTail).notify == NOTIFY_NEVER


def test_a_changed_table_is_obeyed(tmp_path: Path) -> None:
    known = world(tmp_path, sender_bcc_maps="")
    version = known.directory.version
    assert adjusted(known, "ann@a.test", "x@b.test") == []
    (tmp_path / "sender_bcc_maps").write_text("ann@a.test new@c.test\n")
    known.clock.advance(2)
    assert adjusted(known, "ann@a.test", "x@b.test") == ["new@c.test"]
    assert known.directory.version != version


@pytest.mark.parametrize(
    ("sender", "recipient", "expected"),
    [
        ("ann@a.test", "x@b.test", "smtp:[ann.test]:587"),
        ("bob@a.test", "x@b.test", "smtp:[gate.test]"),
        ("carl@a.test", "x@b.test", "lmtp:[192.0.2.1]:24"),
        ("", "x@b.test", "smtp:[null.test]"),
        ("z@z.test", "x@b.test", "smtp:[gate.test]"),
        ("ann@a.test", "nobody@relay.test", "smtp:[ann.test]:587"),
        ("carl@a.test", "x@relay.test", "smtp:[gate.test]"),
    ],
)
def test_the_sender_decides_about_the_relayhost(tmp_path: Path, sender: str, recipient: str, expected: str) -> None:
    known = world(
        tmp_path,
        relayhost="[gate.test]",
        sender_dependent_relayhost_maps=(
            "ann@a.test [ann.test]:587\nbob@a.test DUNNO\n@a.test [gate.test]\n<> [null.test]\n"
        ),
        sender_dependent_default_transport_maps="carl@a.test lmtp:[192.0.2.1]:24\n",
    )
    assert hops(known, sender, recipient) == [expected]


def test_a_mailbox_here_is_nobodys_to_move(tmp_path: Path) -> None:
    known = world(tmp_path, sender_dependent_relayhost_maps="@a.test [ann.test]\n")
    assert hops(known, "ann@a.test", "user@example.test") == ["local:"]


def test_what_is_no_route_puts_the_mail_off(tmp_path: Path) -> None:
    known = world(tmp_path, sender_dependent_relayhost_maps="@a.test [ann\n")
    with pytest.raises(TemporaryFailure):
        hops(known, "ann@a.test", "x@b.test")


def test_relay_recipient_maps_say_who_there_is(tmp_path: Path) -> None:
    known = world(tmp_path, relay_recipient_maps="known@relay.test x\n@all.relay.test x\n")
    assert known.targets("known@relay.test") == ["smtp:relay.test known@relay.test"]
    assert known.targets("Known+ext@relay.test") == ["smtp:relay.test Known+ext@relay.test"]
    assert known.targets("any@all.relay.test") == ["smtp:all.relay.test any@all.relay.test"]
    assert known.refusal("other@relay.test") == "550 5.1.1"
    assert world(tmp_path).targets("other@relay.test") == ["smtp:relay.test other@relay.test"]


def test_a_line_that_is_no_route_is_told(tmp_path: Path) -> None:
    known = world(tmp_path, transport_maps="b.test nonsense:x\n")
    assert known.refusal("x@b.test", True) == "451 4.3.5"
    assert len(known.logged) == 1 and "transport_maps: b.test: " in known.logged[0]


def test_a_route_of_a_changed_table_is_obeyed(tmp_path: Path) -> None:
    known = world(tmp_path, transport_maps="b.test smtp:[one.test]\n")
    assert known.targets("x@b.test", True) == ["smtp:[one.test] x@b.test"]
    (tmp_path / "transport_maps").write_text("b.test smtp:[three.test]\n")
    known.clock.advance(2)
    assert known.targets("x@b.test", True) == ["smtp:[three.test] x@b.test"]


def test_checks_may_add_copies(tmp_path: Path) -> None:
    known = world(tmp_path)
    given = [Recipient(b"user@example.test", known.directory.resolve(b"user@example.test", may_relay=True))]
    out = known.directory.adjusted(b"a@b.test", given, more=(b"other@example.test", b"nobody@example.test"))
    assert [each.forward_path for each in out[1:]] == [b"other@example.test", b"nobody@example.test"]
    assert [to.hop.startswith(b"error:") for each in out[2:] for to in each.targets] == [True]


@pytest.mark.parametrize("text", ["a\n RCPT TO:<v@b.test>\n@c.test", '"a\r\nb"@c.test', "a\0b@c.test", "a@c.test\n\tx"])
def test_a_copy_whose_address_has_a_line_break_reaches_no_next_hop(tmp_path: Path, text: str) -> None:
    """A table of patterns may put together what a stranger has folded."""
    known = world(tmp_path)
    assert str(known.directory.resolve(text.encode(), may_relay=True).refusal).startswith("553 5.1.3")
    given = Recipient(b"x@b.test", known.directory.resolve(b"x@b.test", may_relay=True))
    _, copy = known.directory.adjusted(b"o@o.test", [given], more=[text.encode()])
    assert [to.hop.decode()[:11] for to in copy.targets] == ["error:5.1.3"]
