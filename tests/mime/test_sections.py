"""BODY[section] by RFC 3501 §6.4.5, and the table behind it."""

import pytest

from fastmta import _mime
from tests.mime.messages import CASES
from tests.mime.test_structure import record_of


def section(name: str, which: str | bytes, prefix: bytes = b"") -> bytes | None:
    found = _mime.find_part(record_of([CASES[name]]), which, len(prefix))
    whole = prefix + CASES[name]
    return None if found is None else whole[found[0] : found[0] + found[1]]


@pytest.mark.parametrize(
    ("name", "which", "content"),
    [
        ("plain", "1", b"line one\r\nline two\r\n"),
        ("plain", "TEXT", b"line one\r\nline two\r\n"),
        ("plain", b"text", b"line one\r\nline two\r\n"),
        ("plain", "2", None),
        ("plain", "1.1", None),
        ("plain", "1.HEADER", None),
        ("mixed", "1", b"implicit text\r\ntwo lines"),
        ("mixed", "1.MIME", b"\r\n"),
        ("mixed", "3", b"AAAA\r\n"),
        ("mixed", "3.MIME", b"Content-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\n"),
        ("mixed", "4", None),
        ("mixed", "0", None),
        ("mixed", "1.TEXT", None),
        ("mixed", "MIME", None),
        ("mixed", "HEADER.1", None),
        ("mixed", "99999999999999999999", None),
        ("mixed", "1..MIME", None),
        ("alternative_in_mixed", "1.2", b"<b>"),
        (
            "forwarded",
            "2.HEADER",
            b"From: in@ner.org\r\nSubject: inner\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n",
        ),
        ("forwarded", "2.TEXT", b"--c\r\n\r\none\r\n--c\r\nContent-Type: text/html\r\n\r\ntwo\r\n--c--\r\n"),
        ("forwarded", "2.MIME", b"Content-Type: message/rfc822\r\n\r\n"),
        ("forwarded", "2.2", b"two"),
        ("forwarded", "2.2.MIME", b"Content-Type: text/html\r\n\r\n"),
        ("message_at_top", "1", b"Subject: inner\r\nFrom: a@b.c\r\n\r\nbody\r\nmore\r\n"),
        ("message_at_top", "1.HEADER", b"Subject: inner\r\nFrom: a@b.c\r\n\r\n"),
        ("message_at_top", "1.1", b"body\r\nmore\r\n"),
        ("digest", "2.1", b"second"),
        ("digest", "3", b"third"),
        ("empty_parts", "1", b""),
        ("only_close", "1", None),
    ],
)
def test_section(name: str, which: str | bytes, content: bytes | None) -> None:
    assert section(name, which) == content


def test_prefix_belongs_to_the_header() -> None:
    prefix = b"Return-Path: <a@b.c>\r\n"
    assert section("mixed", "", prefix) == prefix + CASES["mixed"]
    assert section("mixed", "HEADER", prefix) == prefix + (section("mixed", "HEADER") or b"")
    for which in ("TEXT", "1", "2.MIME", "3"):
        assert section("mixed", which, prefix) == section("mixed", which)
    assert section("plain", "1.MIME", prefix) == section("plain", "HEADER", prefix)


@pytest.mark.parametrize("damage", [b"", b"\0" * 15, b"\xff" * 40, b"\0" * 16, b"\0" * 12 + b"\4\0\0\0\5\0\0\0"])
def test_damaged_record_is_a_value_error(damage: bytes) -> None:
    with pytest.raises(ValueError, match="structure record"):
        _mime.parts_of(damage)
    with pytest.raises(ValueError, match="structure record"):
        _mime.find_part(damage, "1")


def test_every_cut_of_a_record_is_refused() -> None:
    record = record_of([CASES["mixed"]])
    for length in range(len(record)):
        with pytest.raises(ValueError, match="structure record"):
            _mime.parts_of(record[:length])


@pytest.mark.parametrize("which", ["1.HEADER", "1.TEXT", "1.1"])
def test_record_of_a_message_part_without_its_message_is_refused(which: str) -> None:
    record = bytearray(record_of([CASES["plain"]]))
    table = record.index(b"\x047bit")  # the first row's strings follow its kind and is_message
    record[table - 2] = _mime.KINDS.index("message")
    with pytest.raises(ValueError, match="structure record"):
        _mime.find_part(bytes(record), which)
