"""CATENATE's bounds: parts, octets, quota; sources that go meanwhile, and clients that leave."""

import pytest

from fastmta.imap import upload as upload_module
from fastmta.imap.url import parse
from fastmta.model.limits import IMAP_CATENATE_PARTS, IMAP_COPY_BYTES, IMAP_URL_BYTES
from tests.imap.harness import World
from tests.imap.test_append import MEGABYTE, set_quota

URL = b'URL "/INBOX/;UID=1"'


@pytest.mark.parametrize("count", [IMAP_CATENATE_PARTS, IMAP_CATENATE_PARTS + 1])
async def test_parts_are_bounded(world: World, count: int) -> None:
    client = await world.login()
    await client.append(b"abc")
    lines = await client.do(b"APPEND INBOX CATENATE (%b)" % b" ".join([URL] * count))
    good = count == IMAP_CATENATE_PARTS
    assert lines[-1].startswith(b"OK" if good else b"BAD APPEND: Too many parts"), lines


@pytest.mark.parametrize("over", [0, 1])
async def test_a_message_is_as_large_as_the_limit_allows(world: World, over: int) -> None:
    client = await world.login()
    await client.append(b"x" * 250_000)
    tail = b" TEXT {%d+}\r\n%b)" % (1 + over, b"y" * (1 + over))
    world.services.config.message_size_limit = 1_000_001
    lines = await client.do(b"APPEND INBOX CATENATE (%b%b" % (b" ".join([URL] * 4), tail))
    assert lines[-1].startswith(b"NO [TOOBIG]" if over else b"OK"), lines


async def test_the_quota_counts_what_is_copied(world: World) -> None:
    await set_quota(world, 1000)
    client = await world.login()
    await client.append(b"x" * 400)
    assert (await client.do(b"APPEND INBOX CATENATE (%b %b)" % (URL, URL)))[-1].startswith(b"NO [OVERQUOTA]")
    assert (await client.do(b"APPEND INBOX CATENATE (%b) CATENATE (%b)" % (URL, URL)))[-1].startswith(b"NO [OVERQUOTA]")
    assert (await client.do(b"APPEND INBOX CATENATE (%b)" % URL))[-1].startswith(b"OK")


@pytest.mark.parametrize("over", [0, 1])
async def test_what_a_command_copies_is_bounded_without_any_other_limit(
    world: World, over: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload_module, "IMAP_COMMAND_UPLOAD_BYTES", 3000 - over)
    world.services.config.message_size_limit = 0
    client = await world.login()
    await client.append(b"x" * 1000)
    lines = await client.do(b"APPEND INBOX CATENATE (%b %b %b)" % (URL, URL, URL))
    assert lines[-1].startswith(b"NO [LIMIT]" if over else b"OK"), lines


@pytest.mark.parametrize("store_kind", ["lmdb"])
async def test_long_parts_are_copied_a_piece_at_a_time(world: World) -> None:
    world.services.config.message_size_limit = 50 * MEGABYTE
    client = await world.login("INBOX")
    text = b"".join(b"%07d\r\n" % number for number in range(2 * IMAP_COPY_BYTES // 9))
    await client.append(text)
    out = await client.send(
        b'a APPEND INBOX CATENATE (URL "/INBOX/;UID=1" URL "/INBOX/;UID=1/;PARTIAL=9" TEXT {1+}\r\n!)\r\n'
    )
    assert b"a OK [APPENDUID" in out
    whole = text + text[9:] + b"!"
    assert await client.send(b"b FETCH 2 BODY.PEEK[]\r\n") == (
        b"* 2 FETCH (BODY[] {%d}\r\n%b)\r\nb OK FETCH completed\r\n" % (len(whole), whole)
    )


@pytest.mark.parametrize("store_kind", ["memory"])
async def test_a_source_that_goes_meanwhile_refuses_the_command(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await world.login("INBOX")
    await client.append(b"x" * 3 * IMAP_COPY_BYTES)
    monkeypatch.setattr(world.store.mailboxes, "read_on", lambda row, offset, length: None)
    lines = await client.do(b"APPEND INBOX CATENATE (%b)" % URL)
    assert lines[-1].startswith(b"NO [EXPUNGEISSUED]")
    assert world.services.limits.appending(client.protocol.session.account_id) == 0


async def test_a_client_that_leaves_in_the_middle_leaves_nothing(world: World) -> None:
    client = await world.login("INBOX")
    await client.append(b"x" * 3 * IMAP_COPY_BYTES)
    for tail in (b")\r\n", b" TEXT {3}\r\n", b" TEXT {3+}\r\na"):
        other = await world.login("INBOX")
        other.protocol.data_received(b"a APPEND INBOX CATENATE (TEXT {3+}\r\nabc " + URL + tail)
        other.transport.close()
        await other.settle()
        assert world.services.limits.appending(world.account_id) == 0
    assert world.server.sessions == 1
    assert (await client.append(b"abc")).startswith(b"OK")


@pytest.mark.parametrize("length", [IMAP_URL_BYTES, IMAP_URL_BYTES + 1])
def test_a_url_is_bounded(length: int) -> None:
    raw = b"/" + b"x" * (length - 8) + b"/;UID=1"
    assert len(raw) == length
    assert (parse(raw) is not None) is (length <= IMAP_URL_BYTES)


@pytest.mark.parametrize(
    "raw",
    [b"", b"/", b";UID=", b"/INBOX;UID=x", b"/INBOX/;UID=1/;SECTION=", b"imap:///INBOX/;UID=1", b"/%FF/;UID=1"],
)
def test_what_is_no_url_of_a_message(raw: bytes) -> None:
    assert parse(raw) is None


def test_a_url_of_a_named_mailbox() -> None:
    url = parse(b"imap://a%40b;AUTH=*@host:143/R%26D/%C3%BC;UIDVALIDITY=7/;UID=5/;SECTION=1.2.MIME/;PARTIAL=3.4")
    assert url is not None
    assert (url.user, url.mailbox, url.uid_validity, url.uid) == ("a@b", "R&D/ü", 7, 5)
    assert (url.section, url.begin, url.length) == (b"1.2.MIME", 3, 4)


async def test_very_many_urls_let_others_work(world: World) -> None:
    greedy, other = await world.login("INBOX"), await world.login("INBOX")
    await greedy.append(b"abc")
    message = b" CATENATE (%b)" % b" ".join([b'URL "/INBOX/;UID=1/;SECTION=HEADER"', *[URL] * 99])
    greedy.protocol.data_received(b"a APPEND INBOX" + message * 40 + b"\r\n")
    assert greedy.protocol.waiting
    assert (await other.do("NOOP"))[-1].startswith(b"OK")
    await greedy.settle()
    assert b"a OK [APPENDUID" in greedy.take()


@pytest.mark.parametrize("end", [b")\r\n", b" TEXT {3}\r\n"])
async def test_a_bad_url_among_good_ones_leaves_nothing_held(world: World, end: bytes) -> None:
    client = await world.login("INBOX")
    await client.append(b"abc")
    out = await client.send(b'a APPEND INBOX CATENATE (%b URL "/INBOX/;UID=1/;SECTION=1]x"%b' % (URL, end))
    assert out.startswith(b"a NO [BADURL "), out
    assert client.protocol.session.upload is None
    assert world.services.limits.appending(client.protocol.session.account_id) == 0
    assert (await client.append(b"abc")).startswith(b"OK")
