"""Whose mail is: by login, by sender, by recipient, by what `tenant_maps` say."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from fastmta._intake import Recipient
from fastmta.delivery.routing import Router
from fastmta.directory.recipients import Directory
from fastmta.model.envelope import RecipientTail
from fastmta.runtime.clock import ManualClock
from tests.directory.test_recipients import CONFIG, Account, Store

NAMES = """
user@example.test       Acme Ltd
@boxes.test             acme
ann+big@elsewhere.test  big
@elsewhere.test         far
"""
Make = Callable[[str], Directory]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(names: str = "") -> Directory:
        (tmp_path / "tenants").write_text(names)
        maps = (f"texthash:{tmp_path / 'tenants'}",) if names else ()
        store = Store()
        for number, address in enumerate(("user@example.test", "box@boxes.test"), 1):
            store.accounts.known[address] = Account(number, number * 10)
        store.aliases.known["ext@example.test"] = ("somebody@away.test",)
        config = msgspec.structs.replace(CONFIG, tenant_maps=maps)
        return Directory(config, store, Router(config), clock=ManualClock())

    return made


@pytest.mark.parametrize(
    ("login", "sender", "tenant"),
    [
        ("user@example.test", b"box@boxes.test", "example.test"),
        ("user@example.test", b"", "example.test"),
        ("", b"anybody@EXAMPLE.test", "example.test"),
        ("", b"x@sub.relay.test", "sub.relay.test"),
        ("", b"x@away.test", ""),
        ("", b"", ""),
        ("", b"root", ""),
        ("", b"\xff@\xff", ""),
    ],
)
def test_each_domain_of_ours_is_a_tenant(make: Make, login: str, sender: bytes, tenant: str) -> None:
    assert make("").tenants.of_sender(login, sender) == tenant


@pytest.mark.parametrize(
    ("sender", "tenant"),
    [
        (b"user@example.test", "Acme Ltd"),
        (b"User+tag@Example.test", "Acme Ltd"),
        (b"other@example.test", "example.test"),
        (b"box@boxes.test", "acme"),
        (b"ann@elsewhere.test", "far"),
        (b"ann+big@elsewhere.test", "big"),
        (b"ann@away.test", ""),
    ],
)
def test_a_table_names_them(make: Make, sender: bytes, tenant: str) -> None:
    tenants = make(NAMES).tenants
    assert tenants.of_sender("", sender) == tenant
    assert tenants.of_sender(sender.decode(), b"somebody@example.net") == tenant


@pytest.mark.parametrize(
    ("recipient", "tenant"),
    [
        (b"user@example.test", "Acme Ltd"),
        (b"ext@example.test", "example.test"),  # and not whoever its alias leads to
        (b"box@boxes.test", "acme"),
        (b"x@relay.test", "relay.test"),
        (b"x@away.test", ""),
    ],
)
def test_a_recipient_has_the_one_of_the_address_that_was_given(make: Make, recipient: bytes, tenant: str) -> None:
    resolution = make(NAMES).resolve(recipient, may_relay=True)
    assert resolution.tenant == tenant
    made = Recipient(recipient, resolution)
    tails = [msgspec.msgpack.decode(target.tail, type=RecipientTail) for target in made.targets]
    assert {tail.tenant for tail in tails} == {tenant}
    onward = Recipient.onward(tails[0], make("").resolve(b"user@example.test", may_relay=True))
    assert msgspec.msgpack.decode(onward.targets[0].tail, type=RecipientTail).tenant == tenant


def test_a_refusal_is_nobodys(make: Make) -> None:
    assert make(NAMES).resolve(b"nobody@boxes.test", may_relay=True).tenant == ""
