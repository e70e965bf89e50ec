"""Canonical forms: RFC 6376 §3.4.5's example, and the same hash however the body is cut."""

import hashlib
import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmta.authentication.canonical import BodyHash, canonical_body, canonical_field, signed_fields
from fastmta.authentication.message import Field, parse_fields, split_message

EXAMPLE = b"A: X\r\nB : Y\t\r\n\tZ  \r\n\r\n C \r\nD \t E\r\n\r\n\r\n"


def slow_body(body: bytes, form: str) -> bytes:
    """The definition, word by word."""
    if form == "relaxed":
        body = re.sub(rb"[ \t]+(?=\r\n|\Z)", b"", body)
        body = re.sub(rb"[ \t]+", b" ", body)
    body = re.sub(rb"(\r\n)*\Z", b"", body)
    return body + b"\r\n" if body or form == "simple" else b""


def test_the_rfcs_example() -> None:
    header, body = split_message(EXAMPLE)
    fields = parse_fields(header)
    assert b"".join(canonical_field(field, "relaxed") for field in fields) == b"a:X\r\nb:Y Z\r\n"
    assert b"".join(canonical_field(field, "simple") for field in fields) == header
    assert canonical_body(body, "relaxed") == b" C\r\nD E\r\n"
    assert canonical_body(body, "simple") == b" C \r\nD \t E\r\n"


@pytest.mark.parametrize(("form", "expected"), [("simple", b"\r\n"), ("relaxed", b"")])
@pytest.mark.parametrize("body", [b"", b"\r\n", b"\r\n\r\n\r\n"])
def test_an_empty_body(form: str, expected: bytes, body: bytes) -> None:
    assert canonical_body(body, form) == expected  # type: ignore[arg-type]


PIECES = st.lists(st.sampled_from([b"\r\n", b" ", b"\t", b"a", b"b.c", b"\r", b"\n", b"  \r\n"]), max_size=14)


@given(PIECES, st.sampled_from(["simple", "relaxed"]))
def test_every_cut_gives_the_definitions_hash(pieces: list[bytes], form: str) -> None:
    body = b"".join(pieces)
    expected = hashlib.sha256(slow_body(body, form)).digest()
    for first, second in itertools.combinations_with_replacement(range(len(body) + 1), 2):
        hasher = BodyHash(form)  # type: ignore[arg-type]
        for piece in (body[:first], body[first:second], body[second:]):
            hasher.update(piece)
        assert hasher.digest() == expected, (body, first, second)


def test_a_line_without_end_is_hashed_in_bounded_memory() -> None:
    hasher, whole = BodyHash("relaxed"), b"x " * 400_000
    for at in range(0, len(whole), 10_000):
        hasher.update(whole[at : at + 10_000])
        assert len(hasher._pending) < 100_000
    assert hasher.digest() == hashlib.sha256(slow_body(whole, "relaxed")).digest()


def test_a_name_takes_the_lowest_field_that_is_left() -> None:
    fields = parse_fields(b"To: 1\r\nFrom: a\r\nTo: 2\r\n")
    taken = signed_fields(fields, [b"to", b"TO", b"to", b"from", b"absent"])
    assert [field.value for field in taken] == [b" 2\r\n", b" 1\r\n", b" a\r\n"]


def test_what_is_no_field_has_no_name() -> None:
    fields = parse_fields(b"From x Mon\r\nno colon\r\n Sub ject: y\r\nSubject : z\r\n")
    assert [field.name for field in fields] == [b"", b"", b"subject"]
    assert isinstance(fields[0], Field)
