"""Rules of address rewriting that need no Postfix beside them; tests/interop/test_address_rewriting.py compares."""

import pytest

from fastmta.config.load import parse
from fastmta.directory import addresses
from fastmta.directory.canonical import AddressMap, Canonical
from fastmta.model.errors import ConfigError, TemporaryFailure


def canonical(text: str) -> Canonical:
    return Canonical(parse('myorigin = "o.test"\nmydestination = ["o.test"]\n' + text, base="/x"))


def test_a_map_that_leads_in_a_circle_puts_the_message_off() -> None:
    made = canonical('canonical_maps = "inline:{a@x.test=b@x.test, b@x.test=a@x.test}"')
    with pytest.raises(TemporaryFailure, match="circle"):
        made.sender(b"a@x.test")
    assert made.sender(b"c@x.test") == b"c@x.test"


def test_a_map_that_cannot_be_read_puts_the_message_off() -> None:
    made = canonical('canonical_maps = "texthash:/nowhere/map"')
    with pytest.raises(TemporaryFailure):
        made.sender(b"a@x.test")


def test_nothing_configured_changes_nothing() -> None:
    made = canonical("")
    assert not made
    assert made.sender(b"a@x.test") == b"a@x.test"
    assert made.recipient(addresses.parse("a@x.test")).key == "a@x.test"


def test_a_result_that_is_no_address_changes_nothing() -> None:
    config = parse('myorigin = "o.test"', base="/x")
    for value in ("@", '""', "a@b@", "@\x01"):
        found = AddressMap(config, (f"inline:{{ {{ a@x.test = {value} }} }}",), propagates=True)
        assert found.to_the_end(addresses.parse("a@x.test")).key == "a@x.test"


@pytest.mark.parametrize("word", ["permit_tls_clientcerts", "everybody"])
def test_a_word_that_means_nothing_is_an_error(word: str) -> None:
    with pytest.raises(ConfigError, match="local_header_rewrite_clients"):
        parse(f'local_header_rewrite_clients = "{word}"', base="/x")
