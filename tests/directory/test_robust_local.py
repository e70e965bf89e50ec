"""Bytes of strangers and lines of administrators: an answer each time, and never a relay."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastmta.config.schema import Config
from fastmta.delivery.routing import Router
from fastmta.directory.aliases import parse_targets, split_targets
from fastmta.directory.recipients import Directory
from fastmta.directory.source import parse_aliases, parse_map
from fastmta.model.envelope import LocalTarget
from fastmta.model.errors import ConfigError

LINES = st.text(alphabet='ab:"\\, \t\n#|/@()<>', max_size=80)


@settings(max_examples=300, deadline=None)
@given(LINES, st.sampled_from([parse_map, parse_aliases]))
def test_any_source_is_read_or_refused_with_its_line(text, parser):
    try:
        entries = list(parser(text, "f"))
    except ConfigError as error:
        assert str(error).startswith("f:")
    else:
        for entry in entries:
            assert entry.key or '"' in text
            parse_targets(entry.value)


@settings(max_examples=300, deadline=None)
@given(LINES)
def test_any_value_is_split(value):
    assert all(item == item.strip() and item for item in split_targets(value))


class Empty:
    directory_version = 1

    @property
    def accounts(self):
        return self

    aliases = accounts

    def lookup(self, address):
        return None

    def oldest(self):
        return None


@pytest.fixture(scope="module")
def directory():
    config = Config(
        myorigin="ours.test",
        mydestination=("ours.test",),
        relay_domains=("relay.test",),
        virtual_mailbox_domains=("boxes.test",),
        recipient_delimiter="+-",
    )
    return Directory(config, Empty(), Router(config))


DOMAINS = st.sampled_from(["ours.test", "relay.test", "sub.relay.test", "boxes.test", "evil.test", "[192.0.2.1]", ""])
PIECES = st.lists(st.sampled_from(["a", "%", "!", "@", '"', "\\", "+", ".", " ", "evil.test", "ours.test"]), max_size=8)


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(PIECES, DOMAINS)
def test_a_stranger_reaches_no_foreign_host_by_any_spelling(directory, pieces, domain):
    address = f"{''.join(pieces)}@{domain}".encode()
    resolution = directory.resolve(address, may_relay=False)
    assert (resolution.refusal is None) == bool(resolution.targets)
    for target in resolution.targets:
        assert not isinstance(target, LocalTarget)
        assert target.forward_path.rpartition(b"@")[2] in (b"relay.test", b"sub.relay.test")
        assert not any(mark in target.forward_path.rpartition(b"@")[0] for mark in (b"%", b"!", b"@"))


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_get_an_answer(directory, raw, may_relay):
    resolution = directory.resolve(raw, may_relay=may_relay)
    assert (resolution.refusal is None) == bool(resolution.targets)
    if resolution.refusal is not None:
        assert resolution.refusal.text.isascii()
        assert resolution.refusal.text.isprintable()
