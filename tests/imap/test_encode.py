"""Strings of responses, LIST patterns, masks."""

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmta import _imap


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"", b'""'),
        (b"a b", b'"a b"'),
        (b'a"b\\', b'"a\\"b\\\\"'),
        (b"a\r\nb", b"{4}\r\na\r\nb"),
        (b"\xc3\xa9", b"{2}\r\n\xc3\xa9"),
        (b"x" * 1025, b"{1025}\r\n" + b"x" * 1025),
    ],
)
def test_quoted(text: bytes, expected: bytes) -> None:
    assert _imap.quoted(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [(b"INBOX", b"INBOX"), (b"a b", b'"a b"'), (b"nil", b'"nil"'), (b"", b'""'), (b"a&-", b"a&-")]
)
def test_astring(text: bytes, expected: bytes) -> None:
    assert _imap.astring(text) == expected


def model_match(pattern: str, name: str) -> bool:
    if not pattern:
        return not name
    if pattern[0] in "*%":
        return model_match(pattern[1:], name) or (
            bool(name) and (pattern[0] == "*" or name[0] != "/") and model_match(pattern, name[1:])
        )
    return bool(name) and name[0] == pattern[0] and model_match(pattern[1:], name[1:])


@given(st.text("a/b*%", max_size=7), st.text("ab/", max_size=8))
def test_list_patterns_against_the_definition(pattern: str, name: str) -> None:
    assert _imap.list_match(pattern, name) == model_match(pattern, name)


def test_a_pattern_of_many_stars_is_quick() -> None:
    assert not _imap.list_match("*a" * 2000, "a" * 500 + "b")


def test_masks() -> None:
    flags = array("I", [1, 3, 0, 9])
    assert _imap.mask_flags(flags, 1, 0) == b"\1\1\0\1"
    assert _imap.mask_flags(flags, 1, 8) == b"\1\1\0\0"
    assert _imap.mask_between(flags, 1, 3) == b"\1\1\0\0"
    assert _imap.mask_members(array("I", [1, 2, 5]), array("I", [2, 3, 5])) == b"\0\1\1"
    assert _imap.mask_combine(b"\0\0\1\1", b"\0\1\0\1", 0) == b"\0\0\0\1"
    assert _imap.mask_combine(b"\0\0\1\1", b"\0\1\0\1", 1) == b"\0\1\1\1"
    assert _imap.mask_combine(b"\0\0\1\1", b"\0\1\0\1", 2) == b"\0\0\1\0"
    assert list(_imap.mask_select(b"\1\0\1\1", flags)) == [1, 0, 9]
    assert _imap.numbers_line(array("I", [1, 20, 4294967295])) == b" 1 20 4294967295"
    assert _imap.first_without(flags, 1) == 2
    assert _imap.first_without(array("I"), 1) == -1
