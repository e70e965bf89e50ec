"""Fields that are put in front of a message, or hidden, when it has ended: its structure is that of what is shown."""

from typing import Any

import pytest

from fastmta import _mime
from fastmta._mime import Structure

BODY = (
    b"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/html\r\n\r\n"
    b"<p>\r\n--b\r\n\r\ntext\r\nmore\r\n--b--\r\n"
)
HEADERS = [
    b"",
    b"From: a@example.org\r\nTo: b@example.org\r\nSubject: came\r\n",
    b"Subject: folded\r\n over lines\r\nFrom: a@example.org\r\nDate: Thu, 1 Jan 1970 00:00:00 +0000\r\n"
    b"Message-ID: <came@x>\r\n",
]
HEADS = [
    b"Received: by x\r\n\tid 1; now\r\n",
    b"Received: by x\r\nDate: Fri, 2 Jan 1970 00:00:00 +0000\r\nMessage-ID: <ours@x>\r\n",
    b"Subject: ours\r\nFrom: first@example.net\r\nFrom: second@example.net\r\nTo: c@example.net\r\n\td@example.net\r\n",
    b"Content-Type: text/plain\r\nCc: e@example.net\r\n",
]


def record_of(data: bytes, piece: int = 7) -> bytes:
    parser = Structure()
    for at in range(0, len(data), piece):
        parser.feed(data[at : at + piece])
    return parser.finish()


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize("head", HEADS[:3])
def test_a_head_counts_as_if_it_had_come_first(head: bytes, header: bytes) -> None:
    parser = Structure()
    parser.feed(header + BODY)
    assert parser.finish(head=head) == record_of(head + header + BODY)


@pytest.mark.parametrize("head", [b"", *HEADS[:3]])
def test_fields_that_are_cut_do_not_count(head: bytes) -> None:
    cut = b"Subject: forged\r\n of course\r\nDate: never\r\n"
    kept = b"To: b@example.org\r\nCc: x@example.org\r\n"
    parser = Structure()
    parser.feed(cut + kept + BODY)
    end = BODY.index(b"\r\n\r\n") + 4
    assert parser.finish(head=head, cut=len(cut), header=head + kept + BODY[:end]) == record_of(head + kept + BODY)


def test_a_head_does_not_say_what_the_body_is() -> None:
    parser = Structure()
    parser.feed(HEADERS[1] + BODY)
    head = HEADS[3]
    assert parser.finish(head=head) == record_of(
        HEADERS[1] + b"Cc: e@example.net\r\n" + b"X" * (len(head) - 22) + b":\r\n" + BODY
    )


def test_a_header_that_never_ends_is_completed_too() -> None:
    for tail in (b"Subject: x\r\n", b"Subject: x", b""):
        parser = Structure()
        parser.feed(tail)
        assert parser.finish(head=HEADS[1]) == record_of(HEADS[1] + tail)


@pytest.mark.parametrize(
    "came, marks, how",
    [
        (b"Subject: a\r\nTo: x@y\r\nTo: z@y\r\nReceived: a\r\nReceived: b\r\n", 1, {}),
        (b"Subject: a\r\nsubject : a\r\n", 3, {}),
        (b"Subject: a\r\n", 3, {"head": b"Subject: b\r\n"}),
        (b"To: a@b\r\n", 1, {"head": b"To: c@d\r\nReceived: x\r\n"}),
        (b"Subject: a\r\n", 3, {"head": b"Date: 1\r\nDate: 2\r\n"}),
        (b"Subject: a\r\nSubject: b\r\n", 1, {"cut": 12, "header": b"Subject: b\r\n"}),
        (b"Subject: a\r\n", 3, {"header": b"Subject: b\r\nSubject: a\r\n"}),
        (b"Content-Type: a/b\r\nContent-Type: c/d\r\n", 1, {}),
        (b"Subject: " + b"x" * 65_536 + b"\r\n", 3, {}),
        (b"To: " + b"a@b, " * 14_000 + b"\r\n", 5, {}),
        (b"To: " + b"a@b," * 5_000 + b"\r\n", 1, {}),
        (b"To: " + b"a@b," * 5_000 + b"c\r\n", 5, {}),
    ],
)
def test_a_record_says_that_the_header_has_more_than_its_envelope(came: bytes, marks: int, how: dict[str, Any]) -> None:
    structure = Structure()
    structure.feed(came + b"\r\nbody\r\n")
    record = structure.finish(**how)
    table = 16 + len(_mime.envelope_of(record)) + len(_mime.body_of(record)) + len(_mime.bodystructure_of(record))
    assert record[table + 33] == marks
    assert [part.is_message for part in _mime.parts_of(record)] == [True]
