"""URLAUTH (RFC 4467): who may read what by a URL, until when, and that nothing else is told."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from fastmta._store import TABLE_CREDENTIAL
from fastmta.model.limits import IMAP_CHUNK_BYTES, IMAP_URLS
from tests.imap.harness import Client, World, make_world

MESSAGE = (
    b"Subject: x\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nfirst\r\n--b\r\n\r\nsecond\r\n--b--\r\n"
)
BASE = "imap://user%40example.test@mail.example.test/INBOX/;UID=1"


@pytest_asyncio.fixture(params=["memory", "lmdb"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    made = await make_world(tmp_path, engine=request.param, message_size_limit=10_000_000)
    for name in ("ann", "bob"):
        account = await made.store.accounts.add(f"{name}@example.test", "x")
        made.services.authenticator.accounts[f"{name}@example.test"] = ("secret", account)
    owner = await made.login()
    await owner.append(MESSAGE)
    yield made
    await made.close()


async def user(world: World, name: str) -> Client:
    client = world.connect()
    await client.settle()
    client.take()
    await client.ok(f"LOGIN {name}@example.test secret")
    return client


async def made(client: Client, rump: str) -> str:
    (line,) = await client.ok(f'GENURLAUTH "{rump}" INTERNAL')
    url = line.removeprefix(b"* GENURLAUTH ").strip(b'"').decode()
    assert re.fullmatch(re.escape(rump) + ":internal:[0-9a-f]{64}", url)
    return url


async def fetched(client: Client, url: str) -> bytes | None:
    """The octets that a URL gives; None for NIL."""
    (line,) = await client.ok(f'URLFETCH "{url}"')
    rest = line.removeprefix(b"* URLFETCH ").removeprefix(url.encode()).removeprefix(b'"%b"' % url.encode()).strip(b" ")
    if rest == b"NIL":
        return None
    return rest[rest.index(b"\r\n") + 2 :]


async def test_a_url_gives_what_it_names(world: World) -> None:
    owner, ann = await user(world, "user"), await user(world, "ann")
    assert await fetched(ann, await made(owner, f"{BASE};URLAUTH=anonymous")) == MESSAGE
    assert await fetched(ann, await made(owner, f"{BASE}/;SECTION=2;URLAUTH=authuser")) == b"second"
    assert await fetched(ann, await made(owner, f"{BASE}/;SECTION=1/;PARTIAL=1.3;URLAUTH=authuser")) == b"irs"
    fields = await made(owner, f"{BASE}/;SECTION=HEADER.FIELDS%20(Subject);URLAUTH=anonymous")
    assert await fetched(ann, fields) == b"Subject: x\r\n\r\n"
    assert await fetched(owner, fields) == b"Subject: x\r\n\r\n"


async def test_only_who_is_named_may_read(world: World) -> None:
    owner, ann, bob = [await user(world, name) for name in ("user", "ann", "bob")]
    url = await made(owner, f"{BASE};URLAUTH=user+ann%40example.test")
    assert await fetched(ann, url) == MESSAGE
    assert await fetched(bob, url) is None
    assert await fetched(ann, await made(owner, f"{BASE};URLAUTH=submit+ann%40example.test")) is None


async def test_a_url_expires(world: World) -> None:
    owner, ann = await user(world, "user"), await user(world, "ann")
    late = await made(owner, f"{BASE};EXPIRE=2999-01-01T00:00:00Z;URLAUTH=anonymous")
    assert await fetched(ann, late) == MESSAGE
    early = await made(owner, f"{BASE};EXPIRE=2000-01-01T00:00:00+02:00;URLAUTH=anonymous")
    assert await fetched(ann, early) is None


async def test_a_bare_name_is_one_at_the_urls_host(world: World) -> None:
    owner, ann = await user(world, "user"), await user(world, "ann")
    for host in ("example.test", "Example.test:143"):
        url = await made(owner, f"imap://user@{host}/INBOX/;UID=1;URLAUTH=user+ann@example.test")
        assert await fetched(ann, url) == MESSAGE
    elsewhere = '"imap://user@mail.example.test/INBOX/;UID=1;URLAUTH=anonymous" INTERNAL'
    assert (await owner.do(f"GENURLAUTH {elsewhere}"))[-1].startswith(b"BAD ")


async def test_a_url_that_was_changed_gives_nothing(world: World) -> None:
    owner, ann = await user(world, "user"), await user(world, "ann")
    await owner.append(MESSAGE)
    url = await made(owner, f"{BASE};EXPIRE=2000-01-01T00:00:00Z;URLAUTH=user+bob%40example.test")
    for old, new in (
        ("UID=1", "UID=2"),
        ("2000-", "2999-"),
        ("user+bob", "user+ann"),
        ("user+bob%40example.test", "anonymous"),
        (url[-1], "0" if url[-1] != "0" else "1"),
        ("mail.example", "other.example"),
        ("user%40", "nobody%40"),
        ("INBOX", "Sent"),
        ("internal", "other"),
        (url, "x"),
        (url, url.partition(":internal")[0]),
    ):
        changed = url.replace(old, new) if old != url[-1] else url[:-1] + new
        assert await fetched(ann, changed) is None


async def test_resetkey_makes_urls_worthless(world: World) -> None:
    owner, ann = await user(world, "user"), await user(world, "ann")
    await owner.append(MESSAGE, "Sent")
    inbox = await made(owner, f"{BASE};URLAUTH=anonymous")
    sent = await made(owner, BASE.replace("INBOX", "Sent") + ";URLAUTH=anonymous")
    assert await made(owner, f"{BASE};URLAUTH=anonymous") == inbox  # the key stays
    assert (await owner.do("RESETKEY INBOX INTERNAL OTHER"))[-1].startswith(b"OK [URLMECH INTERNAL]")
    assert await fetched(ann, inbox) is None
    assert await fetched(ann, sent) == MESSAGE
    await owner.ok("RESETKEY")
    assert await fetched(ann, sent) is None
    assert world.store.raw.scan(TABLE_CREDENTIAL, world.account_id.to_bytes(8, "big") + b"u", b"", 10) == []


async def test_what_is_gone_or_closed_gives_nothing(world: World) -> None:
    owner, ann = await user(world, "user"), await user(world, "ann")
    url = await made(owner, f"{BASE};URLAUTH=anonymous")
    await world.store.accounts.set_enabled("user@example.test", False)
    assert await fetched(ann, url) is None
    await world.store.accounts.set_enabled("user@example.test", True)
    assert await fetched(ann, url) == MESSAGE
    await owner.ok("SELECT INBOX")
    await owner.ok("STORE 1 +FLAGS.SILENT (\\Deleted)")
    await owner.ok("EXPUNGE")
    assert await fetched(ann, url) is None


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        f'"{BASE};URLAUTH=anonymous"',
        f'"{BASE};URLAUTH=anonymous" OTHER',
        f'"{BASE}" INTERNAL',
        f'"{BASE};EXPIRE=tomorrow;URLAUTH=anonymous" INTERNAL',
        f'"{BASE};EXPIRE=2030-01-01T00:00:00;URLAUTH=anonymous" INTERNAL',
        '"imap://ann%40example.test@h/INBOX/;UID=1;URLAUTH=anonymous" INTERNAL',
        '"imap://user%40example.test@h/Nowhere/;UID=1;URLAUTH=anonymous" INTERNAL',
        '"/INBOX/;UID=1;URLAUTH=anonymous" INTERNAL',
        f'"{BASE};URLAUTH=anonymous:internal:00" INTERNAL',
    ],
)
async def test_what_cannot_be_authorized_is_bad(world: World, arguments: str) -> None:
    assert (await (await user(world, "user")).do(f"GENURLAUTH {arguments}"))[-1].startswith(b"BAD ")


async def test_so_many_urls_in_one_command(world: World) -> None:
    ann = await user(world, "ann")
    assert len(await ann.ok("URLFETCH" + " x" * IMAP_URLS)) == IMAP_URLS
    assert (await ann.do("URLFETCH" + " x" * (IMAP_URLS + 1)))[-1].startswith(b"BAD ")
    assert (await ann.do("URLFETCH"))[-1].startswith(b"BAD ")
    assert (await ann.do("RESETKEY Nowhere"))[-1].startswith(b"NO ")


async def test_a_reader_that_never_reads_takes_no_memory(world: World) -> None:
    owner, ann = await user(world, "user"), await user(world, "ann")
    await owner.append(b"Subject: big\r\n\r\n" + b"x" * 200_000)
    url = await made(owner, f"{BASE.replace('UID=1', 'UID=2')};URLAUTH=anonymous")
    ann.transport.full = True
    protocol: Any = ann.protocol
    protocol.data_received(b"a URLFETCH " + b" ".join([b'"%b"' % url.encode()] * 10) + b"\r\n")
    await ann.settle()
    # A chunk, and what began before the peer was known to be slow; all would be 2 MB.
    assert len(ann.transport.out) + protocol.written() < 3 * IMAP_CHUNK_BYTES
