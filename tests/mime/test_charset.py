"""Charsets: an allow-list by name, linear decoders, bounded encoded words."""

import codecs
import itertools
import random
import sys
import time
from typing import Any

import pytest

from fastmta._mime import CHARSETS, decode_body, decode_header, decode_text, knows_charset

HOSTILE = [
    *(
        "-punycode",
        "punycode-",
        "_punycode",
        "punycode",
        "PUNYCODE ",
        "p\u1d58nycode",
        "idna",
        "-idna",
        "unicode_escape",
    ),
    *(
        "unicode-escape-",
        "raw_unicode_escape",
        "undefined",
        "zlib",
        "zlib_codec",
        "hex",
        "rot13",
        "bz2",
        "base64",
        "uu",
    ),
    *(
        "mbcs",
        "oem",
        "quopri",
        "../../etc/passwd",
        "os",
        "encodings.punycode",
        "a" * 400,
        "\0",
        "",
        " ",
        "*",
        "utf_8_sig",
    ),
]


@pytest.mark.parametrize("charset", HOSTILE)
def test_a_charset_that_is_not_listed_is_read_as_utf_8(charset: str) -> None:
    assert decode_body("café".encode(), "8bit", charset) == "café"
    assert not knows_charset(charset)
    with pytest.raises(LookupError):
        decode_text(b"a", charset)


@pytest.mark.parametrize("charset", ["-punycode", "punycode-", "_punycode", "pUNYCODE", "idna"])
def test_no_spelling_of_a_name_reaches_a_quadratic_codec(charset: str) -> None:
    started = time.process_time()
    decode_body(b"a" * 400_000 + b"-" + b"9" * 400_000, "7bit", charset)
    decode_header(b"=?%b?q?%b-99999?= " % (charset.encode(), b"a" * 60) * 4000)
    assert time.process_time() - started < 1


def test_unknown_names_are_kept_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(name: str) -> Any:
        raise AssertionError(f"{name} reached the registry")

    decode_body(b"a", "7bit", "utf-8")
    monkeypatch.setattr(codecs, "lookup", lookup)
    modules = set(sys.modules)
    for n in range(5000):
        decode_body(b"a", "7bit", f"x-{n}")
        decode_header(b"=?x-%d?q?a?=" % n)
    assert set(sys.modules) == modules


@pytest.mark.parametrize("charset", CHARSETS)
def test_every_listed_charset_decodes_in_linear_time(charset: str) -> None:
    size = 131_072
    noise = random.Random(1).randbytes(size)
    for piece in (
        b"a",
        b"\xff",
        b"\x80",
        b"\x1b",
        b"\x1b$B",
        b"~{",
        b"\xd8\0",
        b"+",
        b"+AAA\xff",
        b"\x1b$)C\x0e",
        noise,
    ):
        data = piece * (size // len(piece))
        assert any(_seconds(data, charset) < 0.5 for _ in range(3))  # on a busy machine one may take longer


def _seconds(data: bytes, charset: str) -> float:
    started = time.process_time()
    decode_body(data, "8bit", charset)
    return time.process_time() - started


@pytest.mark.parametrize("charset", CHARSETS)
def test_every_listed_charset_reads_ascii_or_is_wide(charset: str) -> None:
    assert knows_charset(charset)
    assert knows_charset(charset.lower().encode())
    wide = charset.startswith(("UTF-16", "UTF-32"))
    text = "Hello, world"
    assert decode_text(text.encode(charset) if wide else text.encode(), charset) == text


@pytest.mark.parametrize(
    ("charset", "raw", "text"),
    [
        ("ISO-8859-15", b"\xa4", "€"),
        ("windows-1252", b"\x80", "€"),
        ("KOI8-R", b"\xcd\xc9\xd2", "мир"),
        ("gb2312", "中文".encode("gb2312"), "中文"),
        ("big5", "中文".encode("big5"), "中文"),
        ("x-sjis", "日本".encode("shift_jis"), "日本"),
        ("iso-2022-jp", "日本".encode("iso2022-jp"), "日本"),
        ("EUC-KR", "한국".encode("euc-kr"), "한국"),
        ("ks_c_5601-1987", "한국".encode("euc-kr"), "한국"),
        ("utf-8*de", "ß".encode(), "ß"),
        ('"utf-8"', "ß".encode(), "ß"),
        ("utf-7", b"Hi Mom -+Jjo--!", "Hi Mom -\u263a-!"),
        ("utf-7", b"A+ImIDkQ.", "A\u2262\u0391."),
        ("unicode-1-1-utf-7", b"1 +- 1 +ZeVnLIqe-", "1 + 1 日本語"),
    ],
)
def test_labels_that_mail_uses(charset: str, raw: bytes, text: str) -> None:
    assert decode_body(raw, "8bit", charset) == text


def test_utf_7_is_read_as_the_standard_library_reads_it() -> None:
    for words in itertools.product(("a", "é", "日本", "+", "-", "\U0001f600"), repeat=3):
        text = "".join(words)
        assert decode_body(text.encode("utf-7"), "7bit", "utf-7") == text


@pytest.mark.parametrize(("size", "taken"), [(75, True), (4096, True), (4097, False), (4_000_000, False)])
def test_an_encoded_word_over_its_bound_stays_as_it_is(size: int, taken: bool) -> None:
    started = time.process_time()
    raw = b"=?utf-8?q?" + b"a" * size + b"?="
    assert decode_header(raw) == ("a" * size if taken else raw.decode())
    assert time.process_time() - started < 1
