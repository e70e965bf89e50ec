"""_mime.Structure: one record for every cut, valid for every input, bounded; the standard library as oracle."""

import email
import email.policy
import random
import sys
from collections.abc import Iterator
from email.message import Message

import pytest

from fastmta import _mime
from fastmta.model import limits
from tests.mime.messages import BROKEN, CASES, generated
from tests.mime.wire import check_body, check_envelope, parse
from tests.support.feed import same_for_every_cut

ALL = {**CASES, **BROKEN}


def record_of(pieces: list[bytes]) -> bytes:
    structure = _mime.Structure()
    for piece in pieces:
        structure.feed(piece)
    return structure.finish()


def check(message: bytes, record: bytes) -> None:
    check_envelope(parse(_mime.envelope_of(record)))
    check_body(parse(_mime.body_of(record)), False)
    check_body(parse(_mime.bodystructure_of(record)), True)
    parts = _mime.parts_of(record)
    assert parts[0].path == ""
    assert parts[0].header_length + parts[0].body_length == len(message)
    for part in parts:
        assert part.header_offset + part.header_length <= len(message)
        assert part.body_offset + part.body_length <= len(message)
        body = message[part.body_offset : part.body_offset + part.body_length]
        if part.kind in ("text", "message"):
            assert part.lines == body.count(b"\n")
        if not part.is_message and part.kind != "message":
            assert _mime.find_part(record, part.path) == (part.body_offset, part.body_length)


@pytest.mark.parametrize("name", ALL)
def test_record_is_the_same_for_every_cut_and_valid(name: str) -> None:
    check(ALL[name], same_for_every_cut(ALL[name], record_of))


@pytest.mark.parametrize("name", ALL)
def test_object_is_clear_after_finish(name: str) -> None:
    structure = _mime.Structure()
    structure.feed(CASES["forwarded"][:200])
    structure.finish()
    structure.feed(ALL[name])
    assert structure.size == len(ALL[name])
    assert structure.finish() == record_of([ALL[name]])
    structure.feed(b"rest")
    structure.clear()
    assert structure.finish() == record_of([])


def test_random_cuts_and_damage_give_valid_records() -> None:
    source = random.Random(7)
    for seed in range(150):
        message = bytearray(generated(seed))
        for _ in range(source.randrange(4)):
            at = source.randrange(len(message))
            message[at : at + source.randrange(3)] = source.choice(
                (b"\n", b"--", b"\r", b'"', b"(", b"\0", b":", b"\xff", b"")
            )
        whole = record_of([bytes(message)])
        check(bytes(message), whole)
        cuts = sorted(source.randrange(len(message) + 1) for _ in range(5))
        pieces = [bytes(message[a:b]) for a, b in zip([0, *cuts], [*cuts, len(message)], strict=True)]
        assert record_of(pieces) == whole


def leaves(message: Message) -> Iterator[Message]:
    if message.get_content_maintype() == "multipart" or message.get_content_type() == "message/rfc822":
        for part in message.get_payload():
            assert isinstance(part, Message)
            yield from leaves(part)
    else:
        yield message


@pytest.mark.parametrize("seed", range(60))
def test_leaves_are_those_of_the_standard_library(seed: int) -> None:
    raw = generated(seed)
    record = record_of([raw])
    parts = [part for part in _mime.parts_of(record) if part.kind not in ("multipart", "message")]
    expected = list(leaves(email.message_from_bytes(raw, policy=email.policy.compat32)))
    assert [part.content_type for part in parts] == [leaf.get_content_type() for leaf in expected]
    for part, leaf in zip(parts, expected, strict=True):
        body = raw[part.body_offset : part.body_offset + part.body_length]
        assert body == str(leaf.get_payload()).encode()
        header = raw[part.header_offset : part.header_offset + part.header_length]
        assert [name.encode() for name, _ in leaf.items()] == [
            line.split(b":")[0] for line in header.split(b"\r\n")[:-2]
        ]


@pytest.mark.parametrize(
    "name", ["plain", "groups", "quotes", "routes", "sender_reply_to", "encoded_words", "phrase_dots"]
)
def test_envelope_addresses_are_those_of_the_standard_library(name: str) -> None:
    raw = CASES[name]
    envelope = parse(_mime.envelope_of(record_of([raw])))
    message = email.message_from_bytes(raw, policy=email.policy.default)
    for index, field in ((2, "From"), (5, "To"), (6, "Cc"), (7, "Bcc")):
        header = message[field]
        expected = [(a.username, a.domain) for a in header.addresses] if header is not None else []
        ours = [(a[2].decode(), a[3].decode()) for a in envelope[index] or () if a[3] is not None]
        assert ours == expected


def envelope(header: bytes) -> bytes:
    return _mime.envelope_of(record_of([header.replace(b"\n", b"\r\n") + b"\r\nx\r\n"]))


@pytest.mark.parametrize(
    ("header", "wire"),
    [
        (b"", b"(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"),
        (b"Subject:\nDate: \n", b'("" "" NIL NIL NIL NIL NIL NIL NIL NIL)'),
        (b"Subject: a\n  b\n", b'(NIL "a  b" NIL NIL NIL NIL NIL NIL NIL NIL)'),
        (b"Subject: caf\xc3\xa9\n", b"(NIL {5}\r\ncaf\xc3\xa9 NIL NIL NIL NIL NIL NIL NIL NIL)"),
        (b"Subject: one\nSubject: two\n", b'(NIL "one" NIL NIL NIL NIL NIL NIL NIL NIL)'),
        (
            b"From: A <a@b.c>\n",
            b'(NIL NIL (("A" NIL "a" "b.c")) (("A" NIL "a" "b.c")) (("A" NIL "a" "b.c")) NIL NIL NIL NIL NIL)',
        ),
        (
            b"To: root\nCc: T: a@b.c;\nBcc: nobody:;\n",
            b'(NIL NIL NIL NIL NIL ((NIL NIL "root" "MISSING_DOMAIN")) '
            b'((NIL NIL "T" NIL)(NIL NIL "a" "b.c")(NIL NIL NIL NIL)) '
            b'((NIL NIL "nobody" NIL)(NIL NIL NIL NIL)) NIL NIL)',
        ),
        (b"To: <@a.b,@c.d:e@f.g>\n", b'(NIL NIL NIL NIL NIL ((NIL "@a.b,@c.d" "e" "f.g")) NIL NIL NIL NIL)'),
        (
            b'To: a . b @ c . d, "q r"@[1.2.3.4]\n',
            b'(NIL NIL NIL NIL NIL ((NIL NIL "a.b" "c.d")(NIL NIL "q r" "[1.2.3.4]")) NIL NIL NIL NIL)',
        ),
        (b"To: (no) a@b.c (Yes \\) it)\n", b'(NIL NIL NIL NIL NIL (("Yes ) it" NIL "a" "b.c")) NIL NIL NIL NIL)'),
        (
            b"To : a@b.c\nIn-reply-to: <1@2>\nmessage-ID: <3@4>\n",
            b'(NIL NIL NIL NIL NIL ((NIL NIL "a" "b.c")) NIL NIL "<1@2>" "<3@4>")',
        ),
    ],
)
def test_envelope(header: bytes, wire: bytes) -> None:
    assert envelope(header) == wire


@pytest.mark.parametrize("first", ["Name <a@b.c", "Name <a@b.c,", '<a@b.c "x, y"', "N <a@b.c; "])
def test_a_bracket_that_is_not_closed_takes_nobody_along(first: str) -> None:
    message = f"To: {first}, D <d@e.f>\r\n\r\n".encode()
    people = [each[2:] for each in parse(_mime.envelope_of(record_of([message])))[5]]
    assert people == [[b"a", b"b.c"], [b"d", b"e.f"]]


def test_several_from_fields_are_one_list() -> None:
    """So that no two readers take different senders from a forged message."""
    wire = envelope(b"From: a@b.c\nSubject: s\nFrom: d@e.f\n")
    assert b'((NIL NIL "a" "b.c")(NIL NIL "d" "e.f"))' in wire


@pytest.mark.parametrize(
    ("content_type", "wire"),
    [
        (b"text/plain", b'"text" "plain" ("charset" "us-ascii")'),
        (b"TEXT/HTML; Charset=UTF-8", b'"TEXT" "HTML" ("Charset" "UTF-8")'),
        (b"nonsense", b'"text" "plain" ("charset" "us-ascii")'),
        (b"image/png", b'"image" "png" NIL'),
        (b'a/b; n="x \\"y\\""; m=(c)z', b'"a" "b" ("n" "x \\"y\\"" "m" "z")'),
        (b"a/b; n*1=two; n*0=one; o=1", b'"a" "b" ("n" "onetwo" "o" "1")'),
        (b"a/b; n*0*=u''%41; n*1=\"5% c\"", b'"a" "b" ("n*" "u\'\'%415%25 c")'),
        (b"a/b; n*1=x; n*2=y", b'"a" "b" ("n*1" "x" "n*2" "y")'),
        (b"multipart/mixed", b'"text" "plain" ("charset" "us-ascii")'),
    ],
)
def test_media_type_and_parameters(content_type: bytes, wire: bytes) -> None:
    message = b"Content-Type: " + content_type + b"\r\n\r\nx\r\n"
    assert _mime.body_of(record_of([message])).startswith(b"(" + wire + b' NIL NIL "7bit" 3')


def test_limits_are_those_of_the_model() -> None:
    assert {name: getattr(limits, "MIME_" + name.upper()) for name in _mime.LIMITS} == _mime.LIMITS


def nested(depth: int) -> bytes:
    opening = b"".join(
        b'Content-Type: multipart/mixed; boundary="b%d."\r\n\r\n--b%d.\r\n' % (i, i) for i in range(depth)
    )
    return opening + b"\r\nx\r\n"


@pytest.mark.parametrize("depth", [limits.MIME_DEPTH - 1, limits.MIME_DEPTH, limits.MIME_DEPTH + 1, 10_000])
def test_nesting_stops_at_the_depth_cap(depth: int) -> None:
    message = nested(depth)
    record = record_of([message])
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(2000)
    try:
        check(message, record)
    finally:
        sys.setrecursionlimit(limit)
    kinds = [part.kind for part in _mime.parts_of(record)]
    assert kinds.count("multipart") == min(depth, limits.MIME_DEPTH)
    assert ("opaque" in kinds) == (depth > limits.MIME_DEPTH)


@pytest.mark.parametrize("count", [998, 999, 1000, 50_000])
def test_last_part_takes_the_rest_at_the_part_cap(count: int) -> None:
    message = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n" + b"--b\r\n\r\nx\r\n" * count
    parts = _mime.parts_of(record_of([message]))
    assert len(parts) == min(count + 1, limits.MIME_PARTS)
    assert parts[-1].body_offset + parts[-1].body_length == len(message)


def test_nested_messages_stop_at_the_depth_cap() -> None:
    message = b"Content-Type: message/rfc822\r\n\r\n" * 10_000
    parts = _mime.parts_of(record_of([message]))
    assert [part.kind for part in parts] == ["message"] * limits.MIME_DEPTH + ["opaque"]


@pytest.mark.parametrize("count", [99, 100, 101, 100_000])
def test_parameters_are_capped(count: int) -> None:
    message = b"Content-Type: a/b" + b"".join(b";\r\n n*%d=x" % i for i in range(count)) + b"\r\n\r\nx\r\n"
    record = record_of([message])
    check(message, record)
    joined = b"x" * min(count, limits.MIME_PARAMETERS)
    assert b'("n" "' + joined + b'")' in _mime.body_of(record)


def test_huge_headers_stay_bounded() -> None:
    structure = _mime.Structure()
    structure.feed(b"To: ")
    for _ in range(2000):
        structure.feed(b"someone@example.org,\r\n " * 1000)
    structure.feed(b"\r\nSubject: ")
    for _ in range(100):
        structure.feed(b"x" * 100_000)
    structure.feed(b"\r\n" + b"X-Junk: y\r\n" * 100_000 + b"Cc: a@b.c\r\n\r\nbody\r\n")
    record = structure.finish()
    assert len(record) < 400_000
    value = parse(_mime.envelope_of(record))
    assert {tuple(address) for address in value[5]} == {(None, None, b"someone", b"example.org")}
    assert len(value[1]) <= limits.MIME_FIELD_BYTES
    assert value[6] == [[None, None, b"a", b"b.c"]]


def test_address_count_is_capped() -> None:
    message = b"To: " + b"a@b," * 16_000 + b"\r\n\r\n"
    assert len(parse(_mime.envelope_of(record_of([message])))[5]) == limits.MIME_ADDRESSES


def test_prefix_length_moves_the_table() -> None:
    structure = _mime.Structure()
    structure.feed(CASES["mixed"])
    moved = structure.finish(10)
    plain = record_of([CASES["mixed"]])
    for section in ("", "HEADER", "TEXT", "1", "1.MIME"):
        assert _mime.find_part(moved, section) == _mime.find_part(plain, section, 10)


@pytest.mark.parametrize(
    "parameter",
    [
        "boundary*=us-ascii'en'x%20y",
        "boundary*=''x%20y",
        'boundary*="x y"',
        'boundary*0="x "; boundary*1=y',
        "boundary*1*=%79; boundary*0*=utf-8''x%20",
        "BOUNDARY*0*=utf-8''x%20; charset=z; boundary*1=\"y\"",
        "boundary*=''wrong; boundary=\"x y\"",
    ],
)
def test_a_boundary_may_come_in_the_forms_of_rfc_2231(parameter: str) -> None:
    message = (
        f"Content-Type: multipart/mixed; {parameter}\r\n\r\n--x y\r\n\r\none\r\n"
        "--x y\r\nContent-Type: text/plain; charset*=''iso-8859%2D2\r\n\r\ntwo\r\n--x y--\r\n"
    )
    structure = _mime.Structure()
    structure.feed(message.encode())
    parts = _mime.parts_of(structure.finish())
    assert [part.path for part in parts] == ["", "1", "2"]
    assert parts[2].charset == "iso-8859-2"


@pytest.mark.parametrize("parameter", ["boundary*", "boundary*x=a", "boundary*1=a", "boundary*=", "xboundary*=''a"])
def test_what_is_no_boundary_in_these_forms_makes_no_parts(parameter: str) -> None:
    structure = _mime.Structure()
    structure.feed(f"Content-Type: multipart/mixed; {parameter}\r\n\r\n--a\r\n\r\none\r\n--a--\r\n".encode())
    assert len(_mime.parts_of(structure.finish())) == 1


@pytest.mark.parametrize(
    "part, mime, header, body",
    [
        (b"Content-Type: text/plain\r\n\r\n", b"Content-Type: text/plain\r\n", None, b""),
        (b"Content-Type: text/plain\r\n", b"Content-Type: text/plain", None, b""),
        (b"Content-Type: text/plain\r\n\r\n\r\n", b"Content-Type: text/plain\r\n\r\n", None, b""),
        (b"Content-Type: message/rfc822\r\n\r\n", b"Content-Type: message/rfc822\r\n", b"", b""),
        (b"Content-Type: message/rfc822\r\n\r\n\r\n", b"Content-Type: message/rfc822\r\n\r\n", b"", b""),
        (b"Content-Type: message/rfc822\n\nA: b\n\n", b"Content-Type: message/rfc822\n\n", b"A: b\n", b"A: b\n"),
        (b"Content-Type: message/rfc822\n\nA: b\n\n\n", b"Content-Type: message/rfc822\n\n", b"A: b\n\n", b"A: b\n\n"),
        (b"Content-Type: message/rfc822\n\nA: b\n", b"Content-Type: message/rfc822\n\n", b"A: b", b"A: b"),
    ],
)
def test_the_line_end_before_a_delimiter_is_not_its_headers(
    part: bytes, mime: bytes, header: bytes | None, body: bytes
) -> None:
    """RFC 2046 §5.1.1: a part that ends in its header has no empty line, where the delimiter needs its line end."""
    text = b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n" + part + b"--b\r\n\r\nlast\r\n--b--\r\n"
    record = same_for_every_cut(text, record_of)
    check(text, record)

    def section(name: str) -> bytes | None:
        found = _mime.find_part(record, name)
        return None if found is None else text[found[0] : found[0] + found[1]]

    assert (section("1.MIME"), section("1"), section("1.HEADER")) == (mime, body, header)
    assert section("1.TEXT") == (None if header is None else b"")
    assert section("2") == b"last"
