"""SEARCH and charsets: what it takes, and what it answers to others (RFC 3501 §6.4.4, §7.1 BADCHARSET)."""

import time

import pytest

from fastmta import _mime
from tests.imap.harness import World

MESSAGE = "Subject: =?utf-8?b?0L/RgNC40LLQtdGC?=\r\nFrom: a@example.test\r\n\r\nмир\r\n".encode()


@pytest.mark.parametrize("charset", ["UTF-8", "utf-8", "koi8-r", "KOI8-R", "windows-1251", "ISO-8859-5"])
async def test_a_search_string_may_come_in_every_listed_charset(world: World, charset: str) -> None:
    client = await world.login("INBOX")
    await client.append(MESSAGE)
    for key, word in ((b"SUBJECT", "ПРИВЕТ"), (b"BODY", "мир")):
        needle = word.encode(charset)
        command = b"SEARCH CHARSET %b %b {%d+}\r\n%b" % (charset.encode(), key, len(needle), needle)
        assert await client.ok(command) == [b"* SEARCH 1"]


@pytest.mark.parametrize("charset", ["-punycode", "idna", "zlib", "x-nosuch", '"\\"a"', "utf-8-", '""'])
async def test_an_unknown_charset_is_refused_with_the_list_of_known_ones(world: World, charset: str) -> None:
    client = await world.login("INBOX")
    answer = (await client.do(f"SEARCH CHARSET {charset} ALL"))[-1]
    assert answer.startswith(b"NO [BADCHARSET (US-ASCII UTF-8 ")
    assert answer.partition(b"(")[2].partition(b")")[0].decode().split() == list(_mime.CHARSETS)


async def test_a_string_that_does_not_fit_its_charset_is_bad(world: World) -> None:
    client = await world.login("INBOX")
    for charset in ("US-ASCII", "UTF-8", "ISO-2022-JP"):
        answer = await client.do(b"SEARCH CHARSET %b TEXT {2+}\r\n\xff\xfe" % charset.encode())
        assert answer[-1].startswith(b"BAD")


async def test_a_message_in_a_quadratic_charset_is_searched_in_linear_time(world: World) -> None:
    client = await world.login("INBOX")
    for charset in (b"-punycode", b"punycode-", b"_punycode", b"idna"):
        body = b"a" * 200_000 + b"-" + b"9" * 200_000
        await client.append(b"Content-Type: text/plain; charset=%b\r\n\r\n%b\r\n" % (charset, body))
    started = time.process_time()
    assert await client.ok("SEARCH BODY nowhere") == [b"* SEARCH"]
    assert time.process_time() - started < 1
