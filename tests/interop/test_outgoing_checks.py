"""smtp_header_checks and its kin beside Postfix: under the same tables both send the same message."""

import asyncio
import smtplib
from pathlib import Path

import pytest

from tests.delivery.test_outgoing_checks import LETTER
from tests.support import postfix
from tests.support.server import Server
from tests.support.smtp_sink import SmtpSink

TABLES = {
    "smtp_header_checks": "/^X-Secret: (.)/ REPLACE X-Pub: $1\n/^Subject: (.*)/ REPLACE Subject: ($1)\n"
    "/^Received: from inside/ IGNORE\n/^X-Twice:/ PREPEND X-Before: y\n/^X-Gone:/ STRIP it went\n",
    "smtp_mime_header_checks": "/^Content-Type: text/ STRIP\n/^X-Part:/ REPLACE X-Of-Part: 1\n",
    "smtp_nested_header_checks": "/^Subject: (.*)/ REPLACE Subject: [$1]\n",
    "smtp_body_checks": "/^hello$/ REPLACE .good day\n/^bye$/ PREPEND so\n/^line 9(\\d+)$/ IGNORE\n/^$/ STRIP\n"
    "/^line 8/ WARN seen\n/^line 7/ DUNNO\n/^long (.{10})/ REPLACE short $1\n",
}
COMPLETE = b"Date: x\r\nFrom: a@b.test\r\nMessage-ID: <x@b.test>\r\n"
LETTERS = (
    LETTER,
    b"X-Twice: 1\r\nX-Gone: 1\r\n\tfolded\r\nX-Twice: 2\r\nSubject: x\r\n\r\n"
    + b"".join(b"line %d\r\n" % n for n in range(9_000))
    + b"long 0123456789 and so on\r\nhello\r\n",
    b"Subject: x\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\npreamble\r\n--a\r\nX-Part: 1\r\n\r\nbye\r\n\r\n"
    b"--a\r\nContent-Type: text/plain\r\n\r\nhello\r\n--a--\r\nhello\r\n",
)


@pytest.fixture(scope="module", autouse=True)
def _postfix_is_there() -> None:
    reason = postfix.missing()
    if reason:
        pytest.skip(f"{reason} (tests/install_packages.sh)")


async def test_both_send_the_same(tmp_path: Path) -> None:
    async with SmtpSink() as sink:
        for key, text in TABLES.items():
            (tmp_path / key).write_text(text)
        relay = f"[127.0.0.1]:{sink.port}"
        settings = {"relayhost": relay, "delivery": {key: [f"pcre:{tmp_path / key}"] for key in TABLES}}
        with postfix.Postfix({"relayhost": relay}) as theirs, Server(tmp_path / "ours", settings=settings) as ours:
            for key, text in TABLES.items():  # in Postfix's own directory, which its user can enter
                copy = theirs.config / key
                copy.write_text(text.replace(r"\d", "[0-9]"))
                theirs.set(key, f"regexp:{copy}")
            await asyncio.to_thread(_send, theirs.port)
            await sink.until(lambda: len(sink.messages) == len(LETTERS))
            await asyncio.to_thread(_send, ours.port("smtp"))
            await sink.until(lambda: len(sink.messages) == 2 * len(LETTERS))
    found = [_without_ours(taken.data) for taken in sink.messages]
    by_postfix, by_us = sorted(found[: len(LETTERS)]), sorted(found[len(LETTERS) :])
    assert by_us == by_postfix


def _send(port: int) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
        for letter in LETTERS:
            client.sendmail("a@client.example", ["b@elsewhere.example"], COMPLETE + letter)


def _without_ours(message: bytes) -> bytes:
    """Without what the server itself puts on top."""
    return message[message.index(b"Date: x\r\n") :]
