"""RETURN's options (RFC 4731, RFC 5182, RFC 9394)."""

import random
from array import array

import pytest

from fastmta import _imap
from fastmta.imap import search_returns
from fastmta.imap.partial_range import parse_range
from fastmta.imap.search_returns import SLICE, Returns, set_pieces, window
from tests.imap.harness import World


def test_a_partial_range_is_counted_from_either_end() -> None:
    rng = random.Random(2)
    for _ in range(500):
        found = list(range(100, 100 + rng.randint(0, 12)))
        low, high = sorted((rng.randint(1, 15), rng.randint(1, 15)))
        begin, end = window(low, high, len(found))
        assert found[begin:end] == [each for place, each in enumerate(found, 1) if low <= place <= high]
        begin, end = window(-low, -high, len(found))
        want = [each for place, each in enumerate(reversed(found), 1) if low <= place <= high]
        assert found[begin:end] == sorted(want)


def test_a_backward_range_is_told_forwards() -> None:
    for raw, ends in ((b"4:2", (2, 4)), (b"2:4", (2, 4)), (b"-9:-3", (-3, -9)), (b"-3:-9", (-3, -9)), (b"5:5", (5, 5))):
        assert parse_range(_imap.Cursor(raw)) == ends


@pytest.mark.parametrize("count", [0, 1, SLICE, SLICE + 1, 3 * SLICE])
def test_a_set_in_pieces_is_a_set(count: int) -> None:
    numbers = array("I", range(1, 2 * count, 2))
    text = b"".join(set_pieces(numbers))
    assert text == b",".join(b"%d" % each for each in numbers)
    pairs = _imap.uid_pairs(numbers)
    assert list(pairs) == [each for number in numbers for each in (number, number)]


def test_pairs_merge_neighbours() -> None:
    assert list(_imap.uid_pairs(array("I", (1, 2, 3, 7, 9, 10)))) == [1, 3, 7, 7, 9, 10]
    assert list(_imap.uid_pairs(array("I", (2**32 - 2, 2**32 - 1)))) == [2**32 - 2, 2**32 - 1]


def test_what_is_saved_is_what_is_returned() -> None:
    found = array("I", (4, 6, 8, 10))
    assert list(Returns(frozenset({b"SAVE", b"MIN"})).picked(found)) == [4]
    assert list(Returns(frozenset({b"SAVE", b"MAX", b"MIN"})).picked(found)) == [4, 10]
    assert list(Returns(frozenset({b"SAVE", b"MAX", b"COUNT"})).picked(found)) == [4, 6, 8, 10]
    assert list(Returns(frozenset({b"SAVE"})).picked(found)) == [4, 6, 8, 10]
    assert list(Returns(frozenset({b"SAVE", b"MIN", b"PARTIAL"}), 2, 3).picked(found)) == [4, 6, 8]
    assert list(Returns(frozenset({b"SAVE", b"MIN"})).picked(array("I"))) == []


@pytest.mark.parametrize("cut", [1, 2, 5])
async def test_an_extended_search_may_come_in_any_pieces(world: World, cut: int) -> None:
    client = await world.login("INBOX")
    await client.append(b"x")
    await client.ok("NOOP")
    raw = b"z1 SEARCH RETURN (SAVE COUNT) ALL\r\nz2 FETCH $ UID\r\nz3 UID SEARCH RETURN (PARTIAL -1:-2) $\r\n"
    out = b""
    for begin in range(0, len(raw), cut):
        out += await client.send(raw[begin : begin + cut])
    assert b'* ESEARCH (TAG "z1") COUNT 1\r\nz1 OK' in out
    assert b"* 1 FETCH (UID 1)\r\nz2 OK" in out
    assert b'* ESEARCH (TAG "z3") UID PARTIAL (-1:-2 1)\r\nz3 OK' in out


async def test_what_others_expunge_leaves_the_saved_result(world: World) -> None:
    client, other = await world.login("INBOX"), await world.login("INBOX")
    for _ in range(3):
        await client.append(b"x")
    await client.ok("NOOP")
    await other.ok("NOOP")
    await client.ok("SEARCH RETURN (SAVE) ALL")
    await other.ok("STORE 2 +FLAGS.SILENT (\\Deleted)")
    await other.ok("EXPUNGE")
    await client.ok("NOOP")
    assert await client.ok("FETCH $ UID") == [b"* 1 FETCH (UID 1)", b"* 2 FETCH (UID 3)"]
    await client.ok("SELECT INBOX")
    assert await client.ok("FETCH $ UID") == []


def test_options_are_parsed_whole() -> None:
    assert search_returns.parse(_imap.Cursor(b"()")).options == {b"ALL"}
    for bad in (b"(MIN MIN)", b"(MIN", b"(PARTIAL)", b"(PARTIAL 1)", b"(PARTIAL 1:-1)", b"( MIN)", b"(PARTIAL 1:*)"):
        with pytest.raises(_imap.BadSyntax):
            search_returns.parse(_imap.Cursor(bad))
