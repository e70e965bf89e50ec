"""8-bit mail for a server without 8BITMIME, and lines that are too long: we do with them what Postfix does."""

import asyncio
import email
import smtplib

import pytest

from fastmta.smtp.conversion import converted
from fastmta.smtp.folding import Folder
from tests.support import postfix
from tests.support.smtp_sink import SmtpSink

TYPE = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n"
NESTED = (
    b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: 8bit\r\nContent-Type: multipart/mixed; boundary=a\r\n\r\npre\r\n"
    b"--a\r\nContent-Type: multipart/alternative; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    b"--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\ngr\xc3\xbc\xc3\x9fe \r\n"
    b"--b\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=C3=A9\r\n--b--\r\n"
    b"--a\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\nSubject: in\r\n"
    + TYPE
    + b"\r\n\xe9\r\n"
    b"--a\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw0KGgo=\r\n--a--\r\nepi\r\n"
)
MESSAGES = {
    "text": TYPE + b"\r\nf\xfcr = x \r\n.\r\n..\r\nFrom me\r\n\ttab\t\r\n",
    "long": TYPE + b"\r\n" + b"\xe9" + b"word " * 190 + b"\r\n" + b"y" * 76 + b"\r\n",
    "nested": NESTED,
}


@pytest.fixture(scope="module", autouse=True)
def _postfix_is_there() -> None:
    reason = postfix.missing()
    if reason:
        pytest.skip(f"{reason} (tests/install_packages.sh)")


def _shape(raw: bytes) -> list[tuple[str, str, bytes]]:
    """Of every entity its type, its label and, of a leaf, what it stands for."""
    out = []
    for part in email.message_from_bytes(raw).walk():
        body = b"" if part.is_multipart() else bytes(part.get_payload(decode=True))
        out.append((part.get_content_type(), str(part.get("Content-Transfer-Encoding", "")).lower(), body))
    return out


def _relay(parameters: dict[str, str], raw: bytes) -> None:
    with postfix.Postfix(parameters) as upstream:
        with smtplib.SMTP(upstream.host, upstream.port, timeout=60) as client:
            client.sendmail("s@a.example", ["r@b.example"], raw, ["BODY=8BITMIME"])
        upstream.wait_empty()


@pytest.mark.parametrize("name", sorted(MESSAGES))
async def test_postfix_converts_in_the_same_way(name: str) -> None:
    raw = b"Subject: " + name.encode() + b"\r\n" + MESSAGES[name]
    async with SmtpSink(capabilities=("SIZE",)) as sink:
        await asyncio.to_thread(_relay, {"relayhost": f"[127.0.0.1]:{sink.port}"}, raw)
        theirs = sink.messages[0].data
    ours = converted(raw)
    assert theirs.isascii() and ours.isascii()
    assert _shape(ours) == _shape(theirs)


@pytest.mark.parametrize("limit", [998, 100])
async def test_postfix_folds_in_the_same_way(limit: int) -> None:
    header = b"Subject: " + b"s" * 1500 + b"\r\n  and " + b"t" * 1100 + b"\r\n"
    body = b"".join(b".%b\r\n" % (b"y" * n) for n in (0, 98, 99, 100, 996, 997, 998, 999, 1994, 1995, 1996, 2047, 5000))
    async with SmtpSink(capabilities=("SIZE", "8BITMIME")) as sink:
        parameters = {"relayhost": f"[127.0.0.1]:{sink.port}", "smtp_line_length_limit": str(limit)}
        await asyncio.to_thread(_relay, parameters, header + b"\r\n" + body)
        theirs = sink.messages[0].data
    head, _, rest = theirs.partition(b"\r\n\r\n")
    assert Folder(limit).fold(header) in head
    assert Folder(limit).fold(body) == rest
