"""The cursor: arguments by the grammar of RFC 3501 §9."""

import pytest

from fastmta._imap import BadSyntax, Cursor


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"abc", b"abc"),
        (b"a]c", b"a]c"),
        (b'""', b""),
        (b'"a b"', b"a b"),
        (b'"a\\"b\\\\"', b'a"b\\'),
        (b"{3}\r\na\r\n", b"a\r\n"),
        (b"{0+}\r\n", b""),
        (b'"\xc3\xa9"', b"\xc3\xa9"),
    ],
)
def test_astring(raw: bytes, expected: bytes) -> None:
    cursor = Cursor(raw)
    assert cursor.astring() == expected
    assert cursor.at_end()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"(",
        b")",
        b"%",
        b"*",
        b"\\x",
        b'"abc',
        b'"a\\n"',
        b'"a\\',
        b'"a\0"',
        b'"a\rb"',
        b"{3}\r\nab",
        b"{3}abc",
        b"{99999999999}\r\n",
        b"{1}\r\n\0",
        b"\x7f",
        b"\xe9",
        b"{-1}\r\n",
    ],
)
def test_what_is_no_astring(raw: bytes) -> None:
    with pytest.raises(BadSyntax):
        Cursor(raw).astring()


def test_a_tag_has_no_plus() -> None:
    assert Cursor(b"a.1 x").tag() == b"a.1"
    with pytest.raises(BadSyntax):
        Cursor(b"+ x").tag()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"1", [1, 1]),
        (b"1:3,5", [1, 3, 5, 5]),
        (b"*", [0, 0]),
        (b"4:*", [4, 0]),
        (b"*:4", [0, 4]),
        (b"4294967295", [4294967295, 4294967295]),
    ],
)
def test_sequence_set(raw: bytes, expected: list[int]) -> None:
    cursor = Cursor(raw)
    assert list(cursor.sequence_set()) == expected
    assert cursor.at_end()


@pytest.mark.parametrize("raw", [b"", b"0", b"0:1", b"1:", b"1,", b",1", b"a", b"-1", b"4294967296", b"1:0"])
def test_what_is_no_sequence_set(raw: bytes) -> None:
    with pytest.raises(BadSyntax):
        Cursor(raw).sequence_set()


def test_depth_of_parentheses_is_bounded() -> None:
    for depth, good in ((31, True), (32, True), (33, False)):
        cursor = Cursor(b"(" * depth)
        if good:
            for _ in range(depth):
                cursor.open()
        else:
            with pytest.raises(BadSyntax):
                for _ in range(depth):
                    cursor.open()


def test_flags() -> None:
    assert Cursor(b"(\\Seen $Forwarded a)").flag_list() == [b"\\Seen", b"$Forwarded", b"a"]
    assert Cursor(b"()").flag_list() == []
    for raw in (b"(\\)", b"(a", b"( a)", b'("a")'):
        with pytest.raises(BadSyntax):
            Cursor(raw).flag_list()


def test_several_spaces_count_as_one() -> None:
    cursor = Cursor(b"a  b   ")
    assert cursor.atom() == b"A"
    cursor.sp()
    assert cursor.atom() == b"B"
    assert not cursor.try_sp()
    assert Cursor(b"(a  b)").flag_list() == [b"a", b"b"]
    for raw in (b"", b"   "):
        assert not Cursor(raw).try_sp()


def test_spaces_at_the_end_are_forgiven_and_nothing_else() -> None:
    Cursor(b"  ").end()
    with pytest.raises(BadSyntax):
        Cursor(b" x").end()


@pytest.mark.parametrize(
    ("text", "announces"),
    [
        (b"{5}", True),
        (b"{5+}", True),
        (b"~{0}", True),
        (b"~{17+}", True),
        (b"", False),
        (b"UTF8 (", False),
        (b"~", False),
    ],
)
def test_an_announcement_ends_what_there_is(text: bytes, announces: bool) -> None:
    cursor = Cursor(text)
    assert cursor.announcement() is announces
    assert cursor.at_end() is (announces or not text)


@pytest.mark.parametrize("text", [b"{}", b"{5", b"{5} ", b"{5-}", b"~{x}", b"~{5} {6}", b"{+}"])
def test_what_begins_as_an_announcement_and_is_none_is_bad(text: bytes) -> None:
    with pytest.raises(BadSyntax, match="Literal expected"):
        Cursor(text).announcement()
