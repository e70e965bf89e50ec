"""The header scan: counts, presence, where the header ends; the same for every cut."""

import pytest

from fastmta._parser import HeaderScan
from tests.support.feed import same_for_every_cut


def run(pieces: list[bytes]) -> tuple[int, int, bool, bool, bool, tuple[bytes, ...], bool]:
    scan = HeaderScan()
    for piece in pieces:
        scan.feed(piece)
    return (
        scan.lines, scan.received, scan.has_date, scan.has_message_id, scan.has_from,
        tuple(scan.delivered_to_addresses()), scan.is_done,
    )  # fmt: skip


def test_fields_are_counted_in_any_case_and_only_in_the_header() -> None:
    data = (
        b"Received: a\r\n by b\r\nreceived : c\r\nReceivedX: no\r\nX-Received: no\r\nDELIVERED-TO: Me@Example.org\r\n"
        b"From: x\r\n Date: folded, so none\r\nmessage-id: <1@x>\r\n\r\nReceived: body\r\nDate: body\r\n"
    )
    assert same_for_every_cut(data, run) == (9, 2, False, True, True, (b"me@example.org",), True)


def message_id(pieces: list[bytes]) -> bytes:
    scan = HeaderScan()
    for piece in pieces:
        scan.feed(piece)
    return scan.message_id()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"A: b\r\nMessage-ID: <1@x> \r\nMessage-ID: <2@x>\r\n\r\nMessage-ID: <3@x>\r\n", b"<1@x>"),
        (b"message-id:<1@x>\r\n more\r\n\r\n", b"<1@x>"),
        (b"Message-Id:\r\n\t<folded@x>\r\nA: b\r\n\r\n", b"<folded@x>"),
        (b"Message-ID:\r\nA: b\r\n c\r\n\r\n", b""),
        (b"Message-ID: <no-end", b"<no-end"),
        (b"A: b\r\n\r\n", b""),
    ],
)
def test_the_first_message_id_is_kept(data: bytes, expected: bytes) -> None:
    assert same_for_every_cut(data, message_id) == expected


@pytest.mark.parametrize("length", [511, 512, 513, 5000])
def test_a_message_id_is_kept_up_to_a_bound(length: int) -> None:
    data = b"Message-ID: " + b"x" * length + b"\r\n\r\n"
    assert message_id([data]) == b"x" * min(length, 512)


def test_a_header_without_body_goes_on() -> None:
    assert same_for_every_cut(b"Date: x\r\n", run) == (1, 0, True, False, False, (), False)


def test_an_mbox_separator_on_top_is_passed_over() -> None:
    assert same_for_every_cut(b"From me Mon Jan  1\r\nDate: x\r\n\r\n", run)[2] is True


@pytest.mark.parametrize("body", [b"just text\r\nDate: no\r\n", b"text\r\n", b" folded first\r\nDate: x\r\n"])
def test_a_line_that_is_no_field_begins_the_body(body: bytes) -> None:
    assert same_for_every_cut(body, run)[2] is False
    assert HeaderScan().feed(body) == 0


def test_the_offset_is_that_of_the_empty_line() -> None:
    scan = HeaderScan()
    assert scan.feed(b"A: b\r\n\r\nbody") == 6
    assert scan.ended_by_blank


def test_a_million_fields_cost_linear_time_and_constant_memory() -> None:
    scan = HeaderScan()
    for _ in range(100):
        scan.feed(b"Delivered-To: someone@example.org\r\n" * 2000)
    assert scan.lines == 200_000
    assert len(scan.delivered_to_addresses()) < 2000
    scan.feed(b"X" * 10_000_000)
    scan.feed(b": y\r\n\r\n")
    assert scan.is_done
