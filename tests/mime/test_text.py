"""Header fields by name, encoded words, transfer encodings and charsets."""

import email.header
import tracemalloc

import pytest

from fastmta._mime import HeaderFields, decode_body, decode_header, header_fields

HEADER = b"From: a@b.c\r\nTo: x@y.z,\r\n  q@r.s\r\nno colon\r\nSubject : s\r\nto: second@y.z\r\n\r\nFrom: body\r\n"


@pytest.mark.parametrize(
    ("names", "invert", "expected"),
    [
        ([b"TO"], False, b"To: x@y.z,\r\n  q@r.s\r\nto: second@y.z\r\n\r\n"),
        (["subject", "from"], False, b"From: a@b.c\r\nSubject : s\r\n\r\n"),
        (["to"], True, b"From: a@b.c\r\nno colon\r\nSubject : s\r\n\r\n"),
        (["absent"], False, b"\r\n"),
        ([], True, HEADER.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"),
    ],
)
def test_header_fields(names: list[str | bytes], invert: bool, expected: bytes) -> None:
    assert header_fields(HEADER, names, invert) == expected
    assert header_fields(memoryview(HEADER), names, invert) == expected


@pytest.mark.parametrize(
    ("raw", "expected"), [(b"", b"\r\n"), (b"A: x", b"A: x\r\n\r\n"), (b"A: x\n\nA: y", b"A: x\n\r\n")]
)
def test_header_without_its_end(raw: bytes, expected: bytes) -> None:
    assert header_fields(raw, ["a"]) == expected


PIECES = [
    HEADER,
    b"A",
    b"a: x\r\n\r",
    b"a\r\n b\n\tc\r\nTo : x\r",
    b"To" + b"o" * 2000 + b": x\r\nTo: y\n \n\n",
    b"\r\n",
]


@pytest.mark.parametrize("raw", PIECES, ids=range(len(PIECES)))
@pytest.mark.parametrize("names", [["to"], ["from", "a"], []], ids=str)
@pytest.mark.parametrize("invert", [False, True])
def test_a_header_in_pieces_gives_what_the_whole_one_gives(raw: bytes, names: list[str], invert: bool) -> None:
    whole = header_fields(raw, names, invert)
    for size in (1, 2, 3, 7):
        picked = HeaderFields(names, invert)
        out = [picked.feed(raw[at : at + size]) for at in range(0, len(raw), size)]
        assert b"".join(out) + picked.end() == whole
    for at in range(len(raw)):
        picked = HeaderFields(names, invert)
        assert picked.feed(raw[:at]) + picked.feed(raw[at:]) + picked.end() == whole


def test_a_header_of_very_many_lines_takes_the_memory_of_its_octets() -> None:
    raw = b"a\n" * 500_000
    tracemalloc.start()
    try:
        assert header_fields(raw, ["x"], True) == raw + b"\r\n"
        assert tracemalloc.get_traced_memory()[1] < 3 * len(raw)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b" plain", "plain"),
        (b"=?utf-8?q?caf=C3=A9_au?= lait", "café au lait"),
        (b"=?UTF-8?B?w6k=?=\r\n =?utf-8?b?w6g=?=", "éè"),
        (b"=?iso-8859-1?q?=E9?= =?utf-8?q?=C3=A8?= x", "éè x"),
        (b"caf\xc3\xa9", "café"),
        (b"caf\xe9", "café"),
        (b"=?nosuch?q?a=C3=A9?=", "aé"),
        (b"=?utf-8*en?q?a?=", "a"),
        (b"=?utf-8?x?a?=", "=?utf-8?x?a?="),
        (b"=?utf-8?b?w6?=", "\ufffd"),
        (b"=?utf-8?b?!?=", ""),
        (b"=?zlib?b?eJwDAAAAAAE=?=", None),
        (b"=?utf-8?q?a=0D=0ABcc:_x?=", "aBcc: x"),
        (b"one\r\n two", "one two"),
    ],
)
def test_decode_header(raw: bytes, text: str | None) -> None:
    decoded = decode_header(raw)
    assert text is None or decoded == text


def test_decode_header_agrees_with_the_standard_library() -> None:
    for text in ("grüße aus köln", "a" * 200 + "é" * 100, "日本語のテスト" * 10):
        for charset in ("utf-8", "iso-8859-15", "iso-2022-jp"):
            try:
                raw = email.header.Header(text, charset, maxlinelen=60).encode(linesep="\r\n").encode()
            except UnicodeEncodeError:
                continue
            assert decode_header(raw) == text


@pytest.mark.parametrize(
    ("raw", "encoding", "charset", "text"),
    [
        (b"caf\xc3\xa9", "8bit", "utf-8", "café"),
        (b"caf=C3=A9 =\r\nx", "quoted-printable", "utf-8", "café x"),
        (b"Y2Fm\r\nw6k=\r\n", "BASE64", "UTF-8", "café"),
        (b"Y2Fm!w6k", b"base64", b"utf-8", "café"),
        (b"caf\xe9", "", "iso-8859-1", "café"),
        (b"\xff", "7bit", "us-ascii", "\ufffd"),
        (b"x", "x-unknown", "rot13", "x"),
        (b"x", "7bit", "\0", "x"),
    ],
)
def test_decode_body(raw: bytes, encoding: str | bytes, charset: str | bytes, text: str) -> None:
    assert decode_body(raw, encoding, charset) == text


def test_decode_body_reads_no_more_than_its_limit() -> None:
    assert decode_body(b"x" * 100, "7bit", "utf-8", 10) == "x" * 10


def test_encoded_words_of_a_hostile_header_are_linear() -> None:
    assert len(decode_header(b"=?utf-8?q?a?= " * 20_000)) == 20_000
    decode_header(b"=?utf-8?q?" * 20_000)
    decode_header(b"=?" * 50_000 + b" " * 50_000)
