"""DATA: only CRLF.CRLF ends it, however the bytes were cut; bare newlines are found; arrival bits are right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmta._parser import DataReceiver
from tests.parser import data_oracle
from tests.support.feed import same_for_every_cut

SMUGGLING = [
    b"\n.\r\n",
    b"\n.\n",
    b"\r.\r",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\r\n.\r\r\n",
    b"\r.\r\n",
    b"\n.\r",
    b"\r\r\n.\n",
]
PIECES = [b"\r\n", b".", b"\r", b"\n", b"a", b"..", b"\r\n.", b"\r\n.\r\n", b"\x00", b"\xff", b"x" * 996, b"y" * 130]
hostile = st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join)


def run(pieces: list[bytes]) -> tuple[bytes, int, bool, int]:
    receiver = DataReceiver()
    out, taken = b"", 0
    for piece in pieces:
        message, n, done = receiver.feed(piece)
        out += message
        taken += n
        if done:
            return out, taken, True, receiver.bits
    return out, taken, False, receiver.bits


def run_normalized(pieces: list[bytes]) -> tuple[bytes, bool]:
    receiver = DataReceiver(normalize=True)
    out = b""
    for piece in pieces:
        message, _, done = receiver.feed(piece)
        out += message
        if done:
            return out, True
    return out, False


@pytest.mark.parametrize("trick", SMUGGLING)
def test_nothing_but_crlf_dot_crlf_ends_the_data(trick: bytes) -> None:
    data = b"a" + trick + b"MAIL FROM:<x@y>\r\n.\r\nNEXT"
    message, taken, done, bits = same_for_every_cut(data, run)
    assert done and data[taken:] == b"NEXT"
    assert bits & data_oracle.BARE
    assert b"MAIL FROM" in message


@pytest.mark.parametrize("trick", SMUGGLING)
def test_normalizing_ends_at_the_same_place_and_leaves_no_bare_newline(trick: bytes) -> None:
    message, done = same_for_every_cut(b"a" + trick + b"MAIL\r\n.\r\nNEXT", run_normalized)
    assert done and message.endswith(b"MAIL\r\n")
    assert b"\r" not in message.replace(b"\r\n", b"") and b"\n" not in message.replace(b"\r\n", b"")


def test_the_empty_message_is_empty() -> None:
    assert same_for_every_cut(b".\r\nQUIT\r\n", run) == (b"", 3, True, 0)


def test_the_last_crlf_is_kept() -> None:
    assert same_for_every_cut(b"a\r\n.\r\n", run) == (b"a\r\n", 6, True, 0)


def test_one_dot_is_taken_from_each_stuffed_line() -> None:
    assert same_for_every_cut(b"..a\r\n.b\r\n...\r\n.\r\n", run)[0] == b".a\r\nb\r\n..\r\n"


@pytest.mark.parametrize(("length", "long"), [(997, False), (998, False), (999, True), (1000, True)])
def test_a_long_line_has_more_than_998_octets(length: int, long: bool) -> None:
    for lead in (b"", b"k\r\n", b"."):
        bits = same_for_every_cut(lead + b"z" * length + b"\r\n.\r\n", run)[3]
        assert bool(bits & data_oracle.LONG_LINE) is long


@pytest.mark.parametrize(
    ("line", "long"), [(b"z" * 998, False), (b"z" * 998 + b"\r", False), (b"z" * 999, True), (b"z" * 998 + b"\n", True)]
)
def test_an_unfinished_line_is_measured_without_its_cr(line: bytes, long: bool) -> None:
    assert bool(same_for_every_cut(line, run)[3] & data_oracle.LONG_LINE) is long


@given(hostile)
def test_the_receiver_is_the_oracle_at_every_cut(data: bytes) -> None:
    expected = data_oracle.receive(data)
    cut_a, cut_b = len(data) // 3, len(data) // 2
    for pieces in (
        [data],
        [data[i : i + 1] for i in range(len(data))],
        [data[:cut_a], data[cut_a:cut_b], data[cut_b:]],
    ):
        assert run(pieces) == expected
    for cut in range(len(data) if len(data) < 60 else 0):
        assert run([data[:cut], data[cut:]]) == expected


@given(hostile)
def test_normalizing_is_the_oracle_at_every_cut(data: bytes) -> None:
    data += b"\r\n.\r\n"
    expected = data_oracle.receive_normalized(data)
    assert run_normalized([data]) == expected
    assert run_normalized([data[i : i + 1] for i in range(len(data))]) == expected
