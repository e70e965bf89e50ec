"""ENVELOPE, BODY, BODYSTRUCTURE and sections beside Dovecot's answers for the same messages."""

import imaplib
from collections.abc import Iterator
from typing import Any

import pytest

from fastmta import _mime
from tests.mime.messages import CASES, generated
from tests.mime.test_structure import record_of
from tests.mime.wire import parse
from tests.support import dovecot

#: Where Dovecot 2.3 answers otherwise, and ours is the better reading.
DIFFERENT = {
    "folded",  # it turns the tab of a fold into a space
    "obsolete_spaces",  # it knows no space around "@" and dots
    "rfc2231",  # it leaves "%" of a section that is not encoded as it is
    "boundary_with_spaces",  # it keeps the trailing space of a boundary, and so finds no part
    "prefix_boundaries",  # it leaves the last CRLF of an inner multipart to it
    "bad_type",  # it shows an empty subtype
    "empty_type",
}
MESSAGES = {name: text for name, text in CASES.items() if name not in DIFFERENT} | {
    f"generated-{seed}": generated(seed) for seed in range(40)
}
SECTIONS = (
    "HEADER",
    "TEXT",
    "1",
    "2",
    "1.MIME",
    "2.MIME",
    "1.HEADER",
    "2.HEADER",
    "2.TEXT",
    "1.1",
    "1.2",
    "2.1",
    "2.2",
    "1.1.1",
)

pytestmark = [pytest.mark.interop, pytest.mark.skipif(bool(dovecot.missing()), reason=dovecot.missing() or "-")]


@pytest.fixture(scope="module")
def answers() -> Iterator[imaplib.IMAP4]:
    with dovecot.Dovecot({"u": "p"}) as server:
        client = imaplib.IMAP4("127.0.0.1", server.port("imap"))
        client.login("u", "p")
        client.select("INBOX")
        for text in MESSAGES.values():
            client.append("INBOX", None, None, text)  # type: ignore[arg-type]
        client.noop()
        yield client
        client.logout()


def wire_of(response: list[Any]) -> bytes:
    return b"".join(x[0] + b"\r\n" + x[1] if isinstance(x, tuple) else x for x in response)


@pytest.mark.parametrize("name", MESSAGES)
def test_same_as_dovecot(answers: imaplib.IMAP4, name: str) -> None:
    number = list(MESSAGES).index(name) + 1
    text = MESSAGES[name]
    record = record_of([text])
    for item, ours in (
        ("ENVELOPE", _mime.envelope_of),
        ("BODY", _mime.body_of),
        ("BODYSTRUCTURE", _mime.bodystructure_of),
    ):
        theirs = wire_of(answers.fetch(str(number), f"({item})")[1]).split(b" ", 1)[1]
        assert parse(theirs.replace(item.encode() + b" ", b"", 1)) == [parse(ours(record))]
    for section in SECTIONS:
        found = _mime.find_part(record, section)
        if found is None:
            continue
        first = answers.fetch(str(number), f"BODY.PEEK[{section}]")[1][0]
        theirs = first[1] if isinstance(first, tuple) else b""
        mine = text[found[0] : found[0] + found[1]]
        if not (
            section.endswith("MIME") and mine == b"\r\n"
        ):  # the empty line before an empty body: header or delimiter
            assert mine == theirs, section
