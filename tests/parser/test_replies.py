"""The client's parser of replies, dot-stuffing and line-end normalisation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmta._parser import DataReceiver, ReplyParser, normalize, stuff
from fastmta.model.errors import ProtocolViolation
from fastmta.model.limits import SMTP_REPLY_BYTES, SMTP_REPLY_LINE_BYTES
from fastmta.model.reply import Reply
from tests.support.feed import same_for_every_cut


def run(pieces: list[bytes]) -> list[Reply]:
    parser = ReplyParser()
    return [reply for piece in pieces for reply in parser.feed(piece)]


def test_replies_of_one_and_of_more_lines() -> None:
    data = b"220 mx ESMTP\r\n250-mx\r\n250-SIZE 10\n250 HELP\r\n550-5.1.1 no\r\n550 5.1.1 such\r\n354\r\n250 2.1 x\r\n"
    assert same_for_every_cut(data, run) == [
        Reply(220, "", "mx ESMTP"),
        Reply(250, "", "mx\nSIZE 10\nHELP"),
        Reply(550, "5.1.1", "no\nsuch"),
        Reply(354, "", ""),
        Reply(250, "", "2.1 x"),
    ]


def test_an_enhanced_code_of_another_class_is_text() -> None:
    assert run([b"250 5.1.1 odd\r\n"]) == [Reply(250, "", "5.1.1 odd")]


def test_control_bytes_and_bad_utf8_are_escaped() -> None:
    assert run([b"550 a\x00b\xff\x1b[2J\r\n"])[0].text == "a\\x00b\\xff\\x1b[2J"


@pytest.mark.parametrize("line", [b"", b"25", b"abc", b"250x", b"150 x", b"650 x", b"25a x", b"250-a\r\n251 b"])
def test_what_is_no_reply_ends_the_connection(line: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        run([line + b"\r\n"])


def test_a_reply_line_is_bounded() -> None:
    assert run([b"250 " + b"x" * (SMTP_REPLY_LINE_BYTES - 4) + b"\r\n"])
    for end in (b"\r\n", b""):
        with pytest.raises(ProtocolViolation):
            run([b"250 " + b"x" * (SMTP_REPLY_LINE_BYTES - 3 + 1) + end])


def test_a_whole_reply_is_bounded() -> None:
    line = b"250-" + b"x" * 994 + b"\r\n"
    with pytest.raises(ProtocolViolation):
        run([line] * (SMTP_REPLY_BYTES // 1000 + 1))


def passed(pieces: list[bytes], passes: int) -> tuple[int, list[Reply]]:
    parser = ReplyParser()
    count, replies = 0, []
    for piece in pieces:
        replies += parser.feed(piece, 0 if replies else passes - count)
        count += parser.passed
    return count, replies


def test_positive_replies_in_front_are_only_counted() -> None:
    data = b"250 2.1.0 ok\r\n251-a\r\n251 b\r\n250 c\r\n354 go\r\n250 d\r\n"
    rest = [Reply(250, "", "c"), Reply(354, "", "go"), Reply(250, "", "d")]
    assert same_for_every_cut(data, lambda pieces: passed(pieces, 2)) == (2, rest)
    assert same_for_every_cut(data, lambda pieces: passed(pieces, 9)) == (3, rest[1:])
    data = b"250 ok\r\n550-5.1.1 no\r\n550 5.1.1 such\r\n250 e\r\n"
    rest = [Reply(550, "5.1.1", "no\nsuch"), Reply(250, "", "e")]
    assert same_for_every_cut(data, lambda pieces: passed(pieces, 9)) == (1, rest)


@pytest.mark.parametrize("data", [b"250-a\r\n251 b\r\n", b"250x\r\n", b"2\r\n", b"250-" + b"x" * 1000 * 1000])
def test_a_reply_that_is_only_counted_has_the_same_form_and_bounds(data: bytes) -> None:
    with pytest.raises(ProtocolViolation):
        ReplyParser().feed(data, 9)


def test_idle_tells_of_bytes_behind_the_last_reply() -> None:
    parser = ReplyParser()
    assert parser.feed(b"220 go\r\n") and parser.is_idle
    parser.feed(b"2")
    assert not parser.is_idle


lines = st.lists(st.sampled_from([b".", b"..", b"a", b"\r\n", b"x.y", b"\r\n."]), max_size=12).map(b"".join)


@given(lines, st.integers(0, 30))
def test_stuffed_and_received_again_is_the_same(data: bytes, cut: int) -> None:
    data += b"\r\n"
    first, at_start = stuff(data[:cut], True)
    second, at_start = stuff(data[cut:], at_start)
    assert at_start
    assert DataReceiver().feed(first + second + b".\r\n")[0] == data


@given(st.lists(st.sampled_from([b"\r", b"\n", b"a", b"\r\n"]), max_size=12).map(b"".join), st.integers(0, 20))
def test_normalize_leaves_no_bare_newline_and_keeps_good_lines(data: bytes, cut: int) -> None:
    first, owed = normalize(data[:cut], False)
    second, owed = normalize(data[cut:], owed)
    expected = data.replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\n", b"\r\n")
    assert first + second + (b" " if owed else b"") == expected
