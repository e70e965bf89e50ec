"""BINARY, MULTIAPPEND and CATENATE beside Debian's Dovecot on the same mail.

Known to differ: Dovecot sends every decoded part as a literal8 and an absent one as empty, where we send a literal and
NIL; it decodes the parts of BINARY[] too, refuses damaged base64 with [PARSE], and copies nothing for a part that is
not there, where we say BADURL. Its BINARY.SIZE is below
zero at times.
"""

import base64
import email
import imaplib
import quopri
import random
import re
from collections.abc import Iterator
from email.message import Message
from pathlib import Path

import pytest

from tests.imap.harness import Client, make_world
from tests.support import dovecot

pytestmark = pytest.mark.skipif(bool(dovecot.missing()), reason=dovecot.missing())


@pytest.fixture(scope="module")
def server() -> Iterator[dovecot.Dovecot]:
    with dovecot.Dovecot({"user": "secret"}) as running:
        yield running


def part(rng: random.Random, depth: int) -> bytes:
    """An entity: header, empty line, body."""
    kind = rng.randrange(5 if depth < 2 else 4)
    if kind == 4:
        boundary = b"b%d" % rng.randrange(1000)
        inner = b"".join(b"--%b\r\n%b\r\n" % (boundary, part(rng, depth + 1)) for _ in range(rng.randint(1, 3)))
        return b"Content-Type: multipart/mixed; boundary=%b\r\n\r\n%b--%b--\r\n" % (boundary, inner, boundary)
    raw = rng.randbytes(rng.randint(0, 3000))
    if kind == 0:
        body = base64.encodebytes(raw).replace(b"\n", b"\r\n")
        return b"Content-Type: application/x\r\nContent-Transfer-Encoding: BASE64\r\n\r\n" + body
    if kind == 1:
        body = quopri.encodestring(raw.replace(b"\r", b"x").replace(b"\n", b"y\r\n"))
        body = re.sub(rb"(?<!\r)\n", b"\r\n", body)
        return b"Content-Type: text/plain\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n" + body
    text = b"".join(b"line %d\r\n" % rng.randrange(10**9) for _ in range(rng.randint(0, 50)))
    encoding = b"Content-Transfer-Encoding: 8bit\r\n" if kind == 2 else b""
    return b"Content-Type: text/plain\r\n" + encoding + b"\r\n" + text


def message(seed: int) -> bytes:
    return b"From: a@x.test\r\nSubject: %d\r\nMIME-Version: 1.0\r\n" % seed + part(random.Random(seed), 0)


def content(response: bytes) -> bytes:
    """A FETCH response's one item: a literal's octets, or what stands there."""
    found = re.match(rb"(?s).*?~?\{(\d+)\}\r\n", response)
    if found:
        return response[found.end() : found.end() + int(found[1])]
    return re.sub(rb'.*\](?:<\d+>)? (NIL|""|\d+)\)$', rb"\1", response).replace(b"NIL", b"").replace(b'""', b"")


def leaves(entity: Message, path: str = "") -> Iterator[str]:
    """The numbers of the parts that hold no others (RFC 3501 §6.4.5)."""
    if not entity.is_multipart():
        yield path or "1"
        return
    for number, below in enumerate(entity.get_payload(), 1):
        assert isinstance(below, Message)
        yield from leaves(below, f"{path}.{number}" if path else str(number))


async def ours_fetch(client: Client, item: str) -> bytes:
    (line,) = await client.ok(f"FETCH 1 {item}")
    return content(line)


def theirs_fetch(theirs: imaplib.IMAP4, item: str) -> bytes:
    kind, data = theirs.fetch("1", item)
    assert kind == "OK"
    first = data[0]
    return first[1] if isinstance(first, tuple) else content(first or b"")


@pytest.mark.parametrize("seed", range(12))
async def test_binary(server: dovecot.Dovecot, tmp_path: Path, seed: int) -> None:
    raw = message(seed)
    theirs = imaplib.IMAP4(server.host, server.port("imap"))
    theirs.login("user", "secret")
    theirs.create(f"binary{seed}")
    theirs.append(f"binary{seed}", "", "", raw)
    theirs.select(f"binary{seed}")
    world = await make_world(tmp_path)
    client = await world.login()
    assert (await client.append(raw)).startswith(b"OK")
    await client.ok("SELECT INBOX")
    for place in leaves(email.message_from_bytes(raw)):
        for item in (f"BINARY.PEEK[{place}]", f"BINARY.PEEK[{place}]<3.50>"):
            assert await ours_fetch(client, item) == theirs_fetch(theirs, item), item
        decoded = theirs_fetch(theirs, f"BINARY.PEEK[{place}]")
        assert await ours_fetch(client, f"BINARY.SIZE[{place}]") == b"%d" % len(decoded)
    theirs.logout()
    await world.close()


async def test_multiappend_and_catenate(server: dovecot.Dovecot, tmp_path: Path) -> None:
    raw = message(5)
    theirs = imaplib.IMAP4(server.host, server.port("imap"))
    theirs.login("user", "secret")
    theirs.create("cat")
    world = await make_world(tmp_path)
    client = await world.login()
    await client.ok("CREATE cat")
    command = b"APPEND cat (\\Seen) {%d+}\r\n%b (\\Flagged) {3+}\r\nabc" % (len(raw), raw)
    urls = [b"1", b"1.MIME", b"HEADER", b"TEXT", b"1/;PARTIAL=2.30", b"HEADER.FIELDS%20(SUBJECT)"]
    texts = b" ".join(b'URL "/cat/;UID=1/;SECTION=%b" TEXT {2+}\r\n--' % url for url in urls)
    for each in (command, b'APPEND cat CATENATE (%b URL "/cat/;UID=2")' % texts):
        assert (await client.do(each))[-1].startswith(b"OK [APPENDUID ")
        tag = theirs._new_tag()  # type: ignore[attr-defined]
        theirs.send(tag + b" " + each + b"\r\n")
        theirs._command_complete("APPEND", tag)  # type: ignore[attr-defined]
    theirs.select("cat")
    await client.ok("SELECT cat")
    for number in (1, 2, 3):
        _, data = theirs.fetch(str(number), "BODY.PEEK[]")
        first = data[0]
        assert isinstance(first, tuple)
        (line,) = await client.ok(f"FETCH {number} BODY.PEEK[]")
        assert content(line) == first[1]
    theirs.logout()
    await world.close()
