"""PREVIEW (RFC 8970)."""

import time

import pytest

from fastmta.imap.preview import CHARACTERS, shortened, without_markup
from tests.imap.harness import World
from tests.support.waiting import assert_within


def mail(body: str, kind: str = "text/plain; charset=utf-8", encoding: str = "8bit") -> bytes:
    head = f"Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    return (head + body).encode()


ALTERNATIVE = '--b\r\nContent-Type: text/plain\r\n\r\nthe "plain" one\r\n--b\r\n'
ALTERNATIVE += "Content-Type: text/html\r\n\r\n<p>html\r\n--b--\r\n"


@pytest.mark.parametrize(
    ("raw", "preview"),
    [
        (mail("Hello\r\n\r\n  there\tyou \r\n"), b'"Hello there you"'),
        (mail("Gr\u00fc\u00dfe"), b"{7}\r\nGr\xc3\xbc\xc3\x9fe"),
        (mail("Gr=C3=BC=\r\n=C3=9Fe", encoding="quoted-printable"), b"{7}\r\nGr\xc3\xbc\xc3\x9fe"),
        (mail("SGVsbG8=\r\n", encoding="base64"), b'"Hello"'),
        (mail("<html><head><title>no</title></head><header>Yes</header> &amp; <b>so</b>", "text/html"), b'"Yes & so"'),
        (mail(ALTERNATIVE, 'multipart/alternative; boundary="b"'), b'"the \\"plain\\" one"'),
        (mail("AAAA", "image/png", "base64"), b'""'),
        (mail("x" * 1000), b'"' + b"x" * CHARACTERS + b'"'),
        (b"Subject: only\r\n\r\n", b'""'),
    ],
)
async def test_a_preview_is_the_text_as_a_person_reads_it(world: World, raw: bytes, preview: bytes) -> None:
    client = await world.login("INBOX")
    await client.append(raw)
    await client.ok("NOOP")
    assert await client.ok("FETCH 1 PREVIEW") == [b"* 1 FETCH (PREVIEW " + preview + b")"]
    assert await client.ok("UID FETCH 1 (FLAGS preview (lazy))") == [
        b"* 1 FETCH (UID 1 FLAGS (\\Recent) PREVIEW " + preview + b")"
    ]


async def test_lazy_and_other_modifiers_are_told_apart(world: World) -> None:
    client = await world.login("INBOX")
    await client.append(b"Subject: x\r\n\r\nhi")
    await client.ok("NOOP")
    lines = await client.ok("FETCH 1 PREVIEW (CHANGEDSINCE 1)")
    assert lines[-1] == b'* 1 FETCH (MODSEQ (2) PREVIEW "hi")'
    assert await client.ok("FETCH 1 PREVIEW (LAZY) (CHANGEDSINCE 9)") == []
    for bad in ("FETCH 1 PREVIEW (EAGER)", "FETCH 1 PREVIEW(LAZY)", "FETCH 1 (PREVIEW (LAZY)", "FETCH 1 PREVIEW (LAZY"):
        assert (await client.do(bad))[-1].startswith(b"BAD"), bad


MARKUP = ["<" * 16_000, "<!--" * 4000, "<style>" * 2000, "<script" * 2000, "&" * 16_000, "<a" * 8000]


@pytest.mark.parametrize("text", MARKUP)
def test_hostile_markup_costs_little(text: str) -> None:
    assert_within(0.05, lambda: shortened(without_markup(text)), clock=time.process_time)


def test_hidden_elements_leave_nothing() -> None:
    assert shortened(without_markup("a<style>p{}</style>b<!-- c -->d<SCRIPT>x<y</SCRIPT >e<head")) == "a b d e"
    assert shortened(without_markup("\u0130<b>x")) == "\u0130 x"
