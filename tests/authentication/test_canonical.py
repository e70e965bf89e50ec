"""Canonical forms: RFC 6376 §3.4.5's example, and the same hash however the body is cut."""

import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastmta._canonical import TagError, joined, parse_tags, unsigned_form, without_spaces
from fastmta.authentication.canonical import BodyHash, canonical_body, canonical_field, signed_fields
from fastmta.authentication.message import Field, parse_fields, split_message
from tests.authentication import slow_forms

EXAMPLE = b"A: X\r\nB : Y\t\r\n\tZ  \r\n\r\n C \r\nD \t E\r\n\r\n\r\n"


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
    expected = hashlib.sha256(slow_forms.body(body, form)).digest()
    for first, second in itertools.combinations_with_replacement(range(len(body) + 1), 2):
        hasher = BodyHash(form)  # type: ignore[arg-type]
        for piece in (body[:first], body[first:second], body[second:]):
            hasher.update(piece)
        assert hasher.digest() == expected, (body, first, second)


def test_a_line_without_end_is_hashed_as_any_other() -> None:
    hasher, whole = BodyHash("relaxed"), b"x " * 400_000
    for at in range(0, len(whole), 10_000):
        hasher.update(whole[at : at + 10_000])
    assert hasher.digest() == hashlib.sha256(slow_forms.body(whole, "relaxed")).digest()


def test_a_name_takes_the_lowest_field_that_is_left() -> None:
    fields = parse_fields(b"To: 1\r\nFrom: a\r\nTo: 2\r\n")
    taken = signed_fields(fields, [b"to", b"TO", b"to", b"from", b"absent"])
    assert [field.value for field in taken] == [b" 2\r\n", b" 1\r\n", b" a\r\n"]


def test_what_is_no_field_has_no_name() -> None:
    fields = parse_fields(b"From x Mon\r\nno colon\r\n Sub ject: y\r\nSubject : z\r\n")
    assert [field.name for field in fields] == [b"", b"", b"subject"]
    assert isinstance(fields[0], Field)


SEEDS = rb"\r\n,\r\n ,\r\n\t, ,\t,\r,\n,;,b=, b =,=,:,A,a1,x;b,\0,\xff,\v,_,bh=QQ==".decode("unicode_escape")
OCTETS = st.lists(st.sampled_from([seed.encode("latin-1") for seed in SEEDS.split(",")]), max_size=16).map(b"".join)


@given(OCTETS)
def test_fields_are_those_of_the_definition(header: bytes) -> None:
    assert [(field.name, field.raw) for field in parse_fields(header)] == slow_forms.fields(header)


@given(OCTETS)
def test_tags_are_those_of_the_definition(raw: bytes) -> None:
    try:
        expected = slow_forms.tags(raw)
    except TagError:
        with pytest.raises(TagError):
            parse_tags(raw)
        with pytest.raises(TagError):
            _ = Field(b"x", b"x:" + raw).tags
        return
    assert list(parse_tags(raw).items()) == list(expected.items())
    assert Field(b"x", b"x:" + raw).tags == expected
    assert without_spaces(raw) == raw.translate(None, b" \t\r\n")


@given(OCTETS, OCTETS, st.sampled_from(["simple", "relaxed"]))
def test_forms_of_fields_are_those_of_the_definition(first: bytes, second: bytes, form: str) -> None:
    one, own = Field(b"to", b"To " + first), Field(b"dkim-signature", b"DKIM-Signature:" + second)
    assert canonical_field(one, form) == slow_forms.field(one, form)  # type: ignore[arg-type]
    assert unsigned_form(own, form) == slow_forms.unsigned(own, form)  # type: ignore[arg-type]
    whole = slow_forms.field(one, form) + slow_forms.field(own, form) + slow_forms.unsigned(own, form)
    assert joined([one, own], form, own) == whole  # type: ignore[arg-type]


def test_very_many_empty_lines_are_given_out_in_pieces() -> None:
    pieces: list[bytes] = []
    hasher = BodyHash("relaxed", pieces.append)
    body = b"a \r\n" + b" \r\n" * 100_000 + b"\r"
    for at in range(0, len(body), 50_000):
        hasher.update(body[at : at + 50_000])
    hasher.digest()
    assert b"".join(pieces) == slow_forms.body(body, "relaxed")
    assert max(map(len, pieces)) <= 1 << 16
