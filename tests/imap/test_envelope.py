"""The loops that SEARCH runs over ENVELOPE lines, against a slow reading of the same lines."""

import random
from array import array
from email.utils import formatdate

import pytest

from fastmta import _imap, _mime
from tests.mime.wire import parse

FIELDS = [b"Date", b"Subject", b"From", b"Sender", b"Reply-To", b"To", b"Cc", b"Bcc", b"In-Reply-To", b"Message-ID"]
VALUES = [
    b"a@b.c", b"Ann <ann@example.test>", b'"Doe, John" <j.doe@Example.TEST>, x@y.z', b"group: a@b, c@d;, e@f",
    b"=?utf-8?q?J=C3=BCrgen?= <j@x.test>", b"J\xc3\xbcrgen <j@x.test>", b"", b" ", b"undisclosed-recipients:;",
    b"@r1,@r2:a@b", b"nobody", b'"a\\"b\\\\c" <q@q>', b"Hello (comment) world", b"<x@y>", b"((((", b")", b'"',
    b"Fri, 14 Nov 2025 10:00:00 +0000", b"14 Nov 2025 10:00:00 +0000", b"31 Dec 2025 23:59:59 -0800", b"x{3}\r\n y",
    b"* 2 FETCH (ENVELOPE (NIL", b"NIL", b"{5}", b"\\", b"a\x00b", b"\xff\xfe", b"MISSING_DOMAIN",
]  # fmt: skip


def envelope(header: bytes) -> bytes:
    structure = _mime.Structure()
    structure.feed(header)
    return _mime.envelope_of(structure.finish())


def shown(value: object) -> bytes | None:
    """A parsed field as the search text; None for NIL."""
    if value is None or isinstance(value, bytes):
        return value
    assert isinstance(value, list)
    out = b""
    separate = False
    for name, _route, mailbox, host in value:
        if host is None and mailbox is None:
            out += b";"
            separate = True
            continue
        out += b", " if separate else b""
        separate = host is not None
        if host is None:
            out += (mailbox or b"") + b": "
            continue
        address = b"" if mailbox == b"MISSING_MAILBOX" else mailbox
        address += b"" if host == b"MISSING_DOMAIN" else b"@" + host
        out += address if name is None else name + b" <" + address + b">"
    return out


def test_every_field_is_read_as_the_slow_reader_reads_it() -> None:
    rng = random.Random(20251114)
    lines, texts = [], []
    for n in range(400):
        header = b"".join(
            b"%b: %b\r\n" % (name, rng.choice(VALUES)) for name in rng.sample(FIELDS, rng.randrange(len(FIELDS)))
        )
        raw = envelope(header)
        lines.append(b"* %d FETCH (ENVELOPE %b)\r\n" % (n + 1, raw))
        texts.append([shown(value) for value in parse(raw)])
    whole = b"".join(lines)
    for field in range(10):
        for needle in (b"", b"a", b"example.test", b"j", b"nil", b'a"b\\c', b"nov 2025", b"\xc3\xbc", b"@", b", "):
            found = bytearray(len(lines))
            unsure = dict(_imap.envelope_matches(whole, field, needle, found))
            for n, text in enumerate(text[field] for text in texts):
                if n in unsure:
                    assert unsure[n] == text
                    assert text is not None and (b"=?" in text or b"?" in text or max(text) > 126 or min(text) < 32)
                else:
                    assert bool(found[n]) == (text is not None and needle in text.lower()), (field, needle, text)
        assert [_imap.envelope_text(line, field) for line in lines] == [text[field] for text in texts]


@pytest.mark.parametrize(
    "line", [b"", b"* 1", b"* 1 FETCH (ENVELOPE NIL)\r\n", b"* 1 FETCH (ENVELOPE (", b"* 1 FETCH (X)"]
)
def test_a_line_without_an_envelope_is_handed_back(line: bytes) -> None:
    assert _imap.envelope_matches(line, 2, b"a", bytearray(1)) in ([], [(0, None)])
    assert _imap.envelope_days(line, 0, 1, bytearray(1)) in ([], [(0, None)])


def test_no_bytes_make_it_read_outside() -> None:
    rng = random.Random(7)
    good = b"* 1 FETCH (ENVELOPE %b)\r\n" % envelope(b"From: a b <c@d>\r\nSubject: caf\xc3\xa9\r\nTo: g: x@y;\r\n")
    for _ in range(20_000):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.choice(b'(){}"\\ N0129\r\n\xff')
        cut = bytes(data[: rng.randrange(len(data) + 1)])
        for field in (0, 2, 9):
            _imap.envelope_matches(cut, field, b"c@d", bytearray(2))
        _imap.envelope_days(cut, 0, 99999, bytearray(2))


def test_a_long_needle_in_a_long_value_is_linear() -> None:
    line = b'* 1 FETCH (ENVELOPE (NIL "%b" NIL NIL NIL NIL NIL NIL NIL NIL))\r\n' % (b"a" * 60_000)
    for _ in range(50):
        assert _imap.envelope_matches(line, 1, b"a" * 30_000 + b"b" + b"a" * 20_000, bytearray(1)) == []


def test_days_are_those_of_the_calendar() -> None:
    for day in range(0, 60_000, 37):
        date = formatdate(day * 86400 + 3600).encode()
        line = b'* 1 FETCH (ENVELOPE ("%b" NIL NIL NIL NIL NIL NIL NIL NIL NIL))\r\n' % date
        found = bytearray(1)
        unsure = _imap.envelope_days(line, day, day, found)
        assert found[0] or unsure == [(0, date)], date
        assert int(date.split()[1]) <= 28 or unsure


def test_masks_of_ranges_and_tables() -> None:
    numbers = array("I", [1, 2, 5, 9, 10, 30])
    assert _imap.mask_ranges(numbers, array("I", [2, 5, 10, 29])) == bytes([0, 1, 1, 0, 1, 0])
    assert _imap.mask_ranges(numbers, array("I")) == bytes(6)
    assert _imap.mask_ranges(array("I"), array("I", [1, 2])) == b""
    assert _imap.mask_table(array("I", [0, 2, 1, 7]), b"\0\1\0") == bytes([0, 0, 1, 0])
    assert list(_imap.merged_ranges(array("I", [1, 0, 5, 9, 1, 0]), 100)) == [1, 100]
    assert list(_imap.merged_ranges(array("I", [1, 101, 7, 0]), 100)) == [1, 101]
