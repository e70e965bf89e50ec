"""The push parser: every command three ways, limits at, under and over."""

from typing import Any

import pytest

from fastmta import _imap
from fastmta._imap import CommandParser
from tests.support.feed import same_for_every_cut

NAMES = {
    getattr(_imap, name): name
    for name in (
        "COMMAND",
        "LITERAL",
        "APPEND",
        "DATA",
        "APPEND_END",
        "LINE",
        "LINE_TOO_LONG",
        "LITERAL_TOO_BIG",
        "FATAL",
    )
}


def events(
    pieces: list[bytes],
    *,
    accept: bool = True,
    limits: tuple[int, int, int] = (200, 50, 1000),
    argument: bytes = b"",
) -> list[Any]:
    """(name, bytes) of every event; the streamed literal's pieces are joined. `argument` ends what announces one."""
    parser = CommandParser(*limits)
    out: list[Any] = []
    for piece in pieces:
        parser.feed(piece)
        while True:
            event = parser.next()
            if event == _imap.NEED_MORE:
                break
            name = NAMES[event]
            if event == _imap.DATA:
                if out and out[-1][0] == "DATA":
                    out[-1] = ("DATA", out[-1][1] + bytes(parser.data))
                else:
                    out.append(("DATA", bytes(parser.data)))
                continue
            out.append((name, parser.command if event != _imap.LITERAL else b""))
            if event == _imap.APPEND:
                if argument and parser.command.endswith(argument):
                    inlined = parser.inline()
                    if inlined != _imap.NEED_MORE:
                        out.append((NAMES[inlined], b""))
                elif accept:
                    parser.accept()
                else:
                    parser.refuse()
    assert parser.idle() or out[-1:] == [("FATAL", out[-1][1])]
    return out


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a NOOP\r\n", [("COMMAND", b"a NOOP")]),
        (b"a NOOP\nb NOOP\n", [("COMMAND", b"a NOOP"), ("COMMAND", b"b NOOP")]),
        (b"\r\n", [("COMMAND", b"")]),
        (
            b"a LOGIN {3}\r\nabc {2}\r\nde\r\nb NOOP\r\n",
            [
                ("LITERAL", b""),
                ("LITERAL", b""),
                ("COMMAND", b"a LOGIN {3}\r\nabc {2}\r\nde"),
                ("COMMAND", b"b NOOP"),
            ],
        ),
        (b"a X {3+}\r\n\r\n\r\r\n", [("COMMAND", b"a X {3+}\r\n\r\n\r")]),
        (b"a X {0+}\r\n\r\n", [("COMMAND", b"a X {0+}\r\n")]),
        (b"a X {}\r\n", [("COMMAND", b"a X {}")]),
        (b"a X {+}\r\n", [("COMMAND", b"a X {+}")]),
        (b"a X 5}\r\n", [("COMMAND", b"a X 5}")]),
        (
            b"a APPEND INBOX {5+}\r\nhello\r\nb NOOP\r\n",
            [("APPEND", b"a APPEND INBOX {5+}"), ("DATA", b"hello"), ("APPEND_END", b""), ("COMMAND", b"b NOOP")],
        ),
        (
            b"a APPEND x {2+}\r\nhi (\\Seen) {5+}\r\nthere {3}\r\nyou\r\nb NOOP\r\n",
            [
                ("APPEND", b"a APPEND x {2+}"),
                ("DATA", b"hi"),
                ("APPEND", b" (\\Seen) {5+}"),
                ("DATA", b"there"),
                ("APPEND", b" {3}"),
                ("DATA", b"you"),
                ("APPEND_END", b""),
                ("COMMAND", b"b NOOP"),
            ],
        ),
        (
            b"a uid replace 7 x ~{2+}\r\n\0\0)\r\n",
            [("APPEND", b"a uid replace 7 x ~{2+}"), ("DATA", b"\0\0"), ("APPEND_END", b")")],
        ),
        (
            b"a UID APPEND x {2+}\r\nhi\r\n",
            [("COMMAND", b"a UID APPEND x {2+}\r\nhi")],
        ),
        (
            b"a APPEND x {2+}\r\nhi {99999999999}\r\nb NOOP\r\n",
            [
                ("APPEND", b"a APPEND x {2+}"),
                ("DATA", b"hi"),
                ("LITERAL_TOO_BIG", b" {99999999999}"),
                ("COMMAND", b"b NOOP"),
            ],
        ),
        (
            b"a APPEND x {2+}\r\nhi {99999999999+}\r\n",
            [("APPEND", b"a APPEND x {2+}"), ("DATA", b"hi"), ("FATAL", b" {99999999999+}")],
        ),
    ],
)
def test_commands_come_out_whole_however_they_are_cut(data: bytes, expected: list[Any]) -> None:
    assert same_for_every_cut(data, events) == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            b"a append {5+}\r\nINBOX (\\Seen) {2}\r\nhi\r\n",
            [("APPEND", b"a append {5+}"), ("APPEND", b"a append {5+}\r\nINBOX (\\Seen) {2}"), ("DATA", b"hi")],
        ),
        (
            b"a APPEND x CATENATE (TEXT {2}\r\nhi URL {5}\r\nin\r\nx TEXT {1}\r\ny)\r\n",
            [
                ("APPEND", b"a APPEND x CATENATE (TEXT {2}"),
                ("DATA", b"hi"),
                ("APPEND", b" URL {5}"),
                ("LITERAL", b""),
                ("APPEND", b" URL {5}\r\nin\r\nx TEXT {1}"),
                ("DATA", b"y"),
            ],
        ),
        (
            b"a APPEND {51}\r\nb NOOP\r\n",
            [("APPEND", b"a APPEND {51}"), ("LITERAL_TOO_BIG", b""), ("COMMAND", b"b NOOP")],
        ),
    ],
)
def test_a_literal_of_an_upload_may_be_an_argument(data: bytes, expected: list[Any]) -> None:
    arguments = (b"append {5+}", b"URL {5}", b"APPEND {51}")
    found = same_for_every_cut(data, lambda pieces: events(pieces, argument=next(a for a in arguments if a in data)))
    assert found[: len(expected)] == expected


def test_a_refused_synchronising_append_literal_never_comes() -> None:
    data = b"a APPEND x {100}\r\nb NOOP\r\n"
    assert same_for_every_cut(data, lambda pieces: events(pieces, accept=False)) == [
        ("APPEND", b"a APPEND x {100}"),
        ("COMMAND", b"b NOOP"),
    ]


def test_a_refused_non_synchronising_literal_is_skipped_with_its_command() -> None:
    data = b"a APPEND x {4+}\r\nb X\n {6+}\r\nc NOOP\r\nd NOOP\r\n"
    assert same_for_every_cut(data, lambda pieces: events(pieces, accept=False)) == [
        ("APPEND", b"a APPEND x {4+}"),
        ("COMMAND", b"d NOOP"),
    ]


@pytest.mark.parametrize("size", [49, 50])
def test_a_literal_up_to_its_limit_is_taken(size: int) -> None:
    assert events([b"a X {%d+}\r\n" % size + b"x" * size + b"\r\n"])[0][0] == "COMMAND"


@pytest.mark.parametrize(
    ("announced", "expected"),
    [
        (b"{51}", "LITERAL_TOO_BIG"),
        (b"{4294967295}", "LITERAL_TOO_BIG"),
        (b"{4294967296}", "LITERAL_TOO_BIG"),
        (b"{99999999999999999999999999}", "LITERAL_TOO_BIG"),
        (b"{1001+}", "FATAL"),
        (b"{4294967295+}", "FATAL"),
        (b"{9999999999+}", "FATAL"),
        (b"{18446744073709551617+}", "FATAL"),
    ],
)
def test_a_literal_over_its_limit_is_refused_unread(announced: bytes, expected: str) -> None:
    found = same_for_every_cut(b"a X " + announced + b"\r\n", events)
    assert found == [(expected, b"a X " + announced)]


def test_a_refused_large_non_synchronising_literal_is_skipped() -> None:
    data = b"a X {60+}\r\n" + b"\r\n" * 30 + b" y {3+}\r\nz\r\n\r\nb NOOP\r\n"
    assert same_for_every_cut(data, events) == [("LITERAL_TOO_BIG", b"a X {60+}"), ("COMMAND", b"b NOOP")]


def test_many_literals_of_one_command_share_its_limit() -> None:
    data = b"a X" + b" {50+}\r\n" + b"x" * 50 + b" {50+}\r\n" + b"x" * 50 + b" {50+}\r\n" + b"x" * 50
    assert events([data + b" {50+}\r\n" + b"x" * 50 + b"\r\nb NOOP\r\n"])[-2:] == [
        ("LITERAL_TOO_BIG", (data + b" {50+}")[:128]),
        ("COMMAND", b"b NOOP"),
    ]


def test_a_line_up_to_its_limit_is_taken_and_over_it_discarded() -> None:
    assert events([b"a " + b"x" * 198 + b"\n"])[0][0] == "COMMAND"
    for pieces in ([b"a " + b"x" * 199 + b"\nb NOOP\n"], [b"a ", b"x" * 150, b"x" * 49, b"\n", b"b NOOP\n"]):
        found = events(pieces)
        assert [name for name, _ in found] == ["LINE_TOO_LONG", "COMMAND"]
        assert found[0][1].startswith(b"a x")


@pytest.mark.parametrize("piece", [1, 7, 150, 1000])
def test_an_endless_line_is_refused_once_and_then_cut_off(piece: int) -> None:
    parser = CommandParser(200, 50, 1000, 600)
    seen: list[int] = []
    sent = 0
    while _imap.FATAL not in seen:
        parser.feed(b"x" * piece)
        sent += piece
        while event := parser.next():
            seen.append(event)
            if event == _imap.FATAL:
                break
        assert sent <= 801 + piece
    assert seen == [_imap.LINE_TOO_LONG, _imap.FATAL]


def test_a_long_line_that_ends_leaves_the_next_command_alone() -> None:
    found = events([b"a " + b"x" * 5000 + b"\r\nb NOOP\r\n"])
    assert [name for name, _ in found] == ["LINE_TOO_LONG", "COMMAND"]


def test_a_raw_line_has_no_literals() -> None:
    parser = CommandParser(200, 50)
    parser.expect_line()
    parser.feed(b"DONE {5}\r\na NOOP\r\n")
    assert parser.next() == _imap.LINE
    assert parser.command == b"DONE {5}"
    assert parser.next() == _imap.COMMAND


def test_clear_forgets_what_was_pipelined() -> None:
    parser = CommandParser(200, 50)
    parser.feed(b"a STARTTLS\r\nb LOGIN x y\r\n")
    assert parser.next() == _imap.COMMAND
    parser.clear()
    assert parser.next() == _imap.NEED_MORE
    assert parser.idle()


def test_nothing_is_parsed_while_an_append_waits_for_its_verdict() -> None:
    parser = CommandParser(200, 50)
    parser.feed(b"a APPEND x {2+}\r\nhi\r\n")
    assert parser.next() == _imap.APPEND
    assert (parser.literal_size, parser.literal_sync) == (2, False)
    assert parser.next() == _imap.NEED_MORE
    parser.accept()
    assert parser.next() == _imap.DATA


def test_an_abandoned_stream_is_dropped_to_its_end() -> None:
    parser = CommandParser(200, 50)
    parser.feed(b"a APPEND x {6+}\r\nab")
    assert parser.next() == _imap.APPEND
    parser.accept()
    assert parser.next() == _imap.DATA
    parser.abandon()
    parser.feed(b"cd\r\n\r\nb NOOP\r\n")
    assert parser.next() == _imap.COMMAND
    assert parser.command == b"b NOOP"
