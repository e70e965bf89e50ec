"""rspamd, spamd and clamd, played by servers that speak their protocols."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from fastmta.authentication.message import parse_fields
from fastmta.config.load import parse
from fastmta.model.errors import ConfigError
from fastmta.model.limits import SCANNER_REPLY_BYTES
from fastmta.model.stages import Stage
from fastmta.model.verdict import Action, Verdict
from fastmta.policy.check import Context
from fastmta.policy.checks import clamav, rspamd, spamassassin
from fastmta.policy.checks.rspamd import Answer, verdict_of
from fastmta.policy.scanner import ScannerTrouble, safe
from fastmta.runtime.clock import ManualClock

LETTER = b"X-Spam: No\r\nSubject: Words\r\nX-Spam-Flag: NO\r\n\r\nHello\r\n"


class FakeLog:
    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.told.append((event, fields))


class Parts:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.log = FakeLog()


class Letter:
    fields = None

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.size = len(raw)

    async def read(self, offset: int, octets: int) -> bytes:
        return self.raw[offset : offset + octets]


def context_of(message: bytes) -> Context:
    return Context(
        stage=Stage.END,
        service="smtp",
        session=1,
        client_ip="192.0.2.7",
        client_name="client.test",
        trusted=False,
        tls=False,
        helo="evil)\r\nX-A: b",
        sender=b"ann@sender.test",
        recipients=(b"bob@example.test", b"eve@example.test"),
        message=Letter(message),
    )


class Played:
    """A program that gives one answer to all, once it has seen what ends a question."""

    def __init__(self) -> None:
        self.answer = b""
        self.ends = b"Hello\r\n"
        self.silent = False
        self.heard = b""
        self.address = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while self.silent or self.ends not in self.heard:
            piece = await reader.read(65_536)
            if not piece:
                break
            self.heard += piece
        writer.write(self.answer)
        await writer.drain()
        writer.close()


Ask = Callable[..., Any]


@pytest.fixture
async def played() -> AsyncIterator[Played]:
    program = Played()
    server = await asyncio.start_server(program.serve, "127.0.0.1", 0)
    program.address = f"inet:127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield program
    server.close()
    await server.wait_closed()


async def asked(build: Any, text: str, message: bytes = LETTER) -> Verdict:
    (check,) = build(parse(text), Parts())
    verdict: Verdict = await check.check(context_of(message))
    return verdict


def test_without_a_key_nobody_is_asked() -> None:
    for module in (clamav, rspamd, spamassassin):
        assert module.build(parse(""), Parts()) == []  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="clamd"):
        parse('clamd = "/run/clamd"')


def test_a_peers_word_is_safe_anywhere() -> None:
    assert safe("a b)(c\r\n\x00\\é") == "a?b??c?????"


# --- clamd ---


@pytest.mark.parametrize(
    ("answer", "keys", "action"),
    [
        (b"stream: OK\0", "", Action.NONE),
        (b"stream: A.Virus-1 FOUND\0", "", Action.REJECT),
        (b"stream: A.Virus-1 FOUND\0", 'clamd_infected_action = "quarantine"', Action.HOLD),
        (b"INSTREAM size limit exceeded. ERROR\0", "", Action.DEFER),
        (b"", "", Action.DEFER),
        (b"", 'clamd_default_action = "accept"', Action.NONE),
        (b"", 'clamd_default_action = "quarantine"', Action.HOLD),
    ],
)
async def test_clamd(played: Played, answer: bytes, keys: str, action: Action) -> None:
    played.answer, played.ends = answer, b"\0\0\0\0"
    assert (await asked(clamav.build, f'clamd = "{played.address}"\n{keys}')).action is action
    assert played.heard == b"zINSTREAM\0" + len(LETTER).to_bytes(4, "big") + LETTER + bytes(4)


@pytest.mark.parametrize(("octets", "fits"), [(SCANNER_REPLY_BYTES, True), (SCANNER_REPLY_BYTES + 1, False)])
async def test_an_answer_is_bounded(played: Played, octets: int, fits: bool) -> None:
    played.answer, played.ends = b"x" * octets, b"\0\0\0\0"
    verdict = await asked(clamav.build, f'clamd = "{played.address}"')
    assert verdict.action is Action.DEFER
    assert ("more than" in verdict.reason) is not fits


async def test_nobody_there_and_nobody_who_answers(played: Played) -> None:
    verdict = await asked(clamav.build, 'clamd = "unix:/nowhere/clamd"')
    assert (verdict.action, verdict.is_late) == (Action.DEFER, True)
    played.silent = True
    verdict = await asked(clamav.build, f'clamd = "{played.address}"\nclamd_timeout = 1')
    assert verdict.reason == "no answer in 1 s"


# --- spamd ---

SPAM = b"SPAMD/1.1 0 EX_OK\r\nContent-length: 9\r\nSpam: True ; 15.5 / 5.0\r\n\r\nGTUBE,A_B\r\n"


def test_spamd_is_shown_the_mail_of_our_own_people_where_that_is_set() -> None:
    for clients, own in (("strangers", False), ("all", True)):
        text = f'spamd = "inet:127.0.0.1:783"\nspamd_clients = "{clients}"\n'
        (check,) = spamassassin.build(parse(text), Parts())  # type: ignore[arg-type]
        assert (check.known_too, "pickup" in check.services, "submission" in check.services) == (own, own, own)
        assert "smtp" in check.services


async def test_spamd_says_spam(played: Played) -> None:
    played.answer = SPAM
    key = f'spamd = "{played.address}"\n'
    verdict = await asked(spamassassin.build, key)
    assert verdict.action is Action.QUARANTINE
    assert verdict.fields == (
        b"X-Spam-Status: Yes, score=15.5 required=5.0\r\n\ttests=GTUBE,A_B\r\n",
        b"X-Spam-Level: ***************\r\n",
        b"X-Spam-Flag: YES\r\n",
    )
    assert verdict.cuts == ((0, 12), (28, 17)), "what claims to be ours is hidden"
    head, _, shown = played.heard.partition(b"\r\n\r\n")
    assert head == b"SYMBOLS SPAMC/1.5\r\nContent-length: %d" % len(shown)
    assert shown.endswith(LETTER)
    assert b"Received: from evil??\r\n" not in shown
    assert b"from evil???X-A:?b (client.test [192.0.2.7])" in shown
    played.heard = b""
    refused = await asked(spamassassin.build, key + "spamd_reject_score = 15")
    assert str(refused.reply) == "550 5.7.1 Spam message rejected"


@pytest.mark.parametrize("answer", [b"", b"SPAMD/1.0 76 Bad header line\r\n", SPAM.replace(b"15.5", b"1.5.5")])
async def test_spamd_that_answers_nothing_lets_pass(played: Played, answer: bytes) -> None:
    played.answer = answer
    verdict = await asked(spamassassin.build, f'spamd = "{played.address}"')
    assert (verdict.action, verdict.is_late, verdict.fields) == (Action.NONE, True, ())


# --- rspamd ---


def reply(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


async def test_rspamd_is_told_who_sends_what_to_whom(played: Played) -> None:
    played.answer = reply(b'{"action": "no action", "score": 1.0, "required_score": 15.0, "symbols": {}}')
    verdict = await asked(rspamd.build, f'rspamd = "{played.address}"')
    assert (verdict.action, verdict.reason) == (Action.NONE, "no action: 1.00 of 15.00")
    head, _, shown = played.heard.partition(b"\r\n\r\n")
    assert shown == LETTER
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /checkv2 HTTP/1.1"
    for line in (b"IP: 192.0.2.7", b"From: ann@sender.test", b"Rcpt: bob@example.test", b"Rcpt: eve@example.test"):
        assert line in lines
    assert b"Helo: evil???X-A:?b" in lines


@pytest.mark.parametrize(
    "answer", [b"", reply(b"{}"), reply(b"[]"), reply(b"not JSON"), reply(b"{}", b"500 Oops"), b"\xff" * 100]
)
async def test_rspamd_that_answers_nothing_lets_pass(played: Played, answer: bytes) -> None:
    played.answer = answer
    verdict = await asked(rspamd.build, f'rspamd = "{played.address}"')
    assert (verdict.action, verdict.is_late) == (Action.NONE, True)
    played.heard = b""
    verdict = await asked(rspamd.build, f'rspamd = "{played.address}"\nrspamd_default_action = "tempfail"')
    assert verdict.action is Action.DEFER


@pytest.mark.parametrize(
    ("action", "messages", "expected", "text"),
    [
        ("reject", {}, Action.REJECT, "550 5.7.1 Spam message rejected"),
        ("reject", {"smtp_message": "Go\r\naway"}, Action.REJECT, "550 5.7.1 Go away"),
        ("soft reject", {}, Action.DEFER, "451 4.7.1 Try again later"),
        ("greylist", {"smtp_message": 5}, Action.DEFER, "451 4.7.1 Try again later"),
        ("discard", {}, Action.DISCARD, ""),
        ("quarantine", {}, Action.HOLD, ""),
        ("add header", {}, Action.QUARANTINE, ""),
        ("no action", {}, Action.NONE, ""),
    ],
)
def test_rspamd_actions(action: str, messages: dict[str, Any], expected: Action, text: str) -> None:
    verdict = verdict_of(Answer(action, messages=messages), parse_fields(b"Subject: x\r\n"))
    assert (verdict.action, str(verdict.reply or "")) == (expected, text)


def test_rspamd_adds_removes_and_rewrites() -> None:
    milter = {
        "add_headers": {"X-A": "b\r\nEvil: c", "X-L": [{"value": "1"}, "2"], "Bad name": "x", "X-N": 5},
        "remove_headers": {"X-Old": 0},
    }
    came = parse_fields(b"X-Old: 1\r\nSubject: x\r\nFrom: a\r\nX-Spam-Level: 9\r\n")
    verdict = verdict_of(Answer("rewrite subject", subject="[spam] x", milter=milter), came)
    assert verdict.fields == (
        b"X-A: b Evil: c\r\n",
        b"X-L: 1\r\n",
        b"X-L: 2\r\n",
        b"X-Spam: Yes\r\n",
        b"Subject: [spam] x\r\n",
    )
    assert verdict.cuts == ((0, 22), (31, 17))
    assert verdict.action is Action.QUARANTINE


def test_trouble_is_an_exception_of_its_own() -> None:
    with pytest.raises(ScannerTrouble):
        clamav.parse_answer(b"stream: " + b"x" * 300 + b" FOUND\0")
