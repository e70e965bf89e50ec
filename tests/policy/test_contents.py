"""header_checks and its kin: what is shown to which tables, and what their results do."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastmta.config.load import parse
from fastmta.model.limits import CONTENT_FIELD_BYTES, CONTENT_LINE_BYTES, MESSAGE_CUTS
from fastmta.model.stages import Stage
from fastmta.model.verdict import Action, Verdict
from fastmta.policy.check import Context
from fastmta.policy.checks.contents import build
from fastmta.policy.contents import Kind, Piece, Walk, boundaries_of, parse_action, problem_of
from fastmta.runtime.clock import ManualClock
from fastmta.runtime.turns import Turns
from tests.authentication.test_hostile import cpu_within

ALL = frozenset(Kind)
MIXED = (
    b'Received: from a\r\n\tby b\r\nSubject: one\r\nContent-Type: multipart/mixed;\r\n boundary="b\\"1"\r\n\r\n'
    b'preamble\r\n--b"1\r\nContent-Type: text/plain\r\nX-Part: 1\r\n\r\nhello\r\n'
    b'--b"1\r\nContent-Type: message/rfc822\r\n\r\nSubject: inner\r\nMIME-Version: 1.0\r\n\r\ninner body\r\n'
    b'--b"1--\r\nepilogue\r\n'
)
SHOWN = [
    (Kind.HEADER, b"Received: from a\n\tby b"),
    (Kind.HEADER, b"Subject: one"),
    (Kind.MIME, b'Content-Type: multipart/mixed;\n boundary="b\\"1"'),
    (Kind.BODY, b"preamble"),
    (Kind.MIME, b"Content-Type: text/plain"),
    (Kind.MIME, b"X-Part: 1"),
    (Kind.BODY, b"hello"),
    (Kind.MIME, b"Content-Type: message/rfc822"),
    (Kind.NESTED, b"Subject: inner"),
    (Kind.MIME, b"MIME-Version: 1.0"),
    (Kind.BODY, b"inner body"),
    (Kind.BODY, b"epilogue"),
]


def walked(message: bytes, *sizes: int, kinds: frozenset[Kind] = ALL, limit: int = 51_200) -> list[Piece]:
    """The pieces of a message that is fed in pieces of these sizes, the last one again and again."""
    walk = Walk(kinds, limit)
    out: list[Piece] = []
    at, turn = 0, 0
    while at < len(message):
        size = sizes[min(turn, len(sizes) - 1)] if sizes else len(message)
        out += walk.feed(message[at : at + size])
        at, turn = at + size, turn + 1
    return out + list(walk.end())


HIDING = {
    "the second field counts": b"Content-Type: text/plain\r\nContent-Type: multipart/mixed; boundary=b\r\n",
    "the first field counts": b"Content-Type: multipart/mixed; boundary=b\r\nContent-Type: text/plain\r\n",
    "two boundaries": b"Content-Type: multipart/mixed; boundary=b\r\nContent-Type: multipart/mixed; boundary=x\r\n",
    "the boundary twice": b"Content-Type: multipart/mixed; boundary=x; boundary=b\r\n",
    "the same, turned round": b"Content-Type: multipart/mixed; boundary=b; boundary=x\r\n",
    "a comment with a boundary": b"Content-Type: multipart/mixed (a; boundary=x); boundary=b\r\n",
    "a comment before the value": b"Content-Type: multipart (m) / mixed; boundary (c (d)) = (e)b\r\n",
    "RFC 2231, in pieces": b'Content-Type: multipart/mixed; boundary*1=b; boundary*0=""\r\n',
    "RFC 2231, encoded": b"Content-Type: multipart/mixed; boundary*=us-ascii'en'%62\r\n",
    "folded": b'Content-Type:\r\n multipart/mixed;\r\n\tBOUNDARY="\\b"\r\n',
    "without a subtype": b"content-type : multipart; boundary=b\r\n",
    "a message too": b"Content-Type: message/rfc822\r\nContent-Type: multipart/mixed; boundary=b\r\n",
}
PARTS = (
    b"--x\r\n\r\ndecoy\r\n--x--\r\n--b\r\nContent-Type: text/plain\r\n\r\nhello\r\n"
    b"--b\r\nContent-Disposition: attachment; filename=a.exe\r\n\r\nMZ\r\n--b--\r\n"
)


@pytest.mark.parametrize("how", HIDING)
@pytest.mark.parametrize("size", [7, 100_000])
def test_no_part_is_hidden_that_some_reader_shows(how: str, size: int) -> None:
    found = walked(b"From: a@b.test\r\n" + HIDING[how] + b"\r\n" + PARTS, size)
    assert Kind.MIME in [piece.kind for piece in found if b"filename=a.exe" in piece.text]


@pytest.mark.parametrize(
    "value",
    [
        b"multipart/mixed; " + b"boundary=" * 11_000,
        b"multipart/mixed; " + b'boundary="' * 10_000,
        b"multipart/mixed; " + b"boundary*0=a;" * 7_000,
        b"multipart" + b"(" * 90_000,
        b"multipart" + b"()" * 45_000,
        b"multipart" + b"message/" * 11_000 + b" " * 10_000,
        b"multipart/mixed; boundary*=" + b"%" * 90_000,
        b'multipart/mixed; boundary="' + b"\\" * 90_000,
    ],
)
def test_a_content_type_of_anything_costs_little(value: bytes) -> None:
    with cpu_within(1.0):
        found = boundaries_of([b"Content-Type: " + value])
    assert len(found) <= 16 and all(len(each) <= 2048 for each in found)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_fields_and_lines_are_shown_to_their_kind_however_they_come(size: int) -> None:
    pieces = walked(MIXED, size)
    assert [(piece.kind, piece.text) for piece in pieces] == SHOWN
    for piece in pieces:
        assert MIXED[piece.at : piece.at + piece.size].rstrip(b"\r\n").replace(b"\r\n", b"\n") == piece.text
    assert [piece.text for piece in pieces if piece.can_change] == [text for _, text in SHOWN[:3]]


@pytest.mark.parametrize("size", [1, 3, 64, 10_000])
def test_what_nobody_looks_at_is_passed_over(size: int) -> None:
    pieces = walked(MIXED, size, kinds=frozenset({Kind.HEADER, Kind.NESTED}))
    assert [piece.text for piece in pieces] == [b"Received: from a\n\tby b", b"Subject: one", b"Subject: inner"]
    walk = Walk(frozenset({Kind.HEADER}), 0)
    assert len(list(walk.feed(b"Subject: x\r\n\r\n"))) == 1
    assert walk.is_over, "the body of a message without parts is not read"


@pytest.mark.parametrize(("limit", "shown"), [(9, 1), (10, 1), (11, 2), (100, 2)])
def test_each_body_is_shown_up_to_its_limit(limit: int, shown: int) -> None:
    pieces = walked(b"Subject: x\r\n\r\n12345678\r\n12345678\r\n", 1, limit=limit)
    assert [piece.kind for piece in pieces].count(Kind.BODY) == shown


def test_long_lines_and_fields_are_shown_in_bounded_pieces() -> None:
    body = b"a" * (CONTENT_LINE_BYTES + 1)
    pieces = walked(b"Subject: x\r\n\r\n" + body + b"\r\n", 500)
    assert [len(piece.text) for piece in pieces[1:]] == [CONTENT_LINE_BYTES, 1]
    field = b"X: " + b"a\r\n b" * CONTENT_FIELD_BYTES + b"\r\n"
    (piece,) = walked(field, 1000)
    assert len(piece.text) < CONTENT_FIELD_BYTES + CONTENT_LINE_BYTES + CONTENT_FIELD_BYTES // 2
    assert piece.size == len(field)


def test_a_line_that_is_no_field_begins_the_body() -> None:
    assert [(piece.kind, piece.text) for piece in walked(b"Subject: x\r\nnot a field\r\nA: b\r\n")] == [
        (Kind.HEADER, b"Subject: x"),
        (Kind.BODY, b"not a field"),
        (Kind.BODY, b"A: b"),
    ]


def test_nesting_is_bounded_and_nothing_recurses() -> None:
    nested = b"Content-Type: message/rfc822\r\n\r\n" * 5000 + b"Subject: deep\r\n\r\nx\r\n"
    assert Kind.BODY in {piece.kind for piece in walked(nested)}
    deep = b"".join(b"Content-Type: multipart/mixed; boundary=%d\r\n\r\n--%d\r\n" % (n, n) for n in range(5000))
    assert walked(deep)


# --- actions ---


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("FILTER smtp", '"smtp" is not a route'),
        ("FILTER local:", "a filter is reached by smtp:, lmtp: or pipe:"),
        ("BCC nobody", "BCC: expected an address behind it"),
        ("DELAY 1h", "DELAY: it is no action"),
        ("PREPEND no field", "PREPEND: expected a header field"),
        ("REDIRECT nobody", "REDIRECT: expected an address"),
        ("EXPLODE", "EXPLODE: no action"),
    ],
)
def test_what_is_not_built_is_named(value: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        parse_action(value)


def test_what_would_change_a_body_is_named() -> None:
    assert problem_of(Kind.BODY, "REPLACE X-A: b").startswith("REPLACE: only fields")
    assert problem_of(Kind.NESTED, "IGNORE").startswith("IGNORE: only fields")
    assert problem_of(Kind.HEADER, "IGNORE") == problem_of(Kind.BODY, "reject 5.7.0 no") == ""


class FakeLog:
    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.told.append((event, fields))

    warning = info


class Parts:
    async def offload(self, operation: Any, *arguments: Any) -> Any:
        return operation(*arguments)

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.log = FakeLog()
        self.turns = Turns(asyncio.get_running_loop())


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
        client_name="unknown",
        trusted=False,
        tls=False,
        message=Letter(message),
    )


Judge = Callable[..., Any]
LETTER = b"X-Secret: 10.0.0.1\r\nSubject: =?x?= Money now\r\nX-Secret: 2\r\n\r\nBuy pills\r\n"


@pytest.fixture
def judge(tmp_path: Path) -> Judge:
    async def decide(table: str, message: bytes = LETTER, key: str = "header_checks") -> tuple[Verdict, FakeLog]:
        (tmp_path / "table").write_text(table)
        config = parse(f'{key} = "pcre:table"', base=tmp_path)
        parts = Parts()
        (check,) = build(config, parts)  # type: ignore[arg-type]
        found = check.check(context_of(message))
        return (found if isinstance(found, Verdict) else await found), parts.log

    return decide


@pytest.mark.parametrize(
    ("result", "action", "reply"),
    [
        ("REJECT", Action.REJECT, "550 5.7.1 message content rejected"),
        ("REJECT No spam", Action.REJECT, "550 5.7.1 No spam"),
        ("REJECT 5.7.9 No spam", Action.REJECT, "550 5.7.9 No spam"),
        ("DISCARD", Action.DISCARD, ""),
        ("HOLD", Action.HOLD, ""),
        ("REDIRECT a@example.test", Action.REDIRECT, ""),
        ("WARN", Action.NONE, ""),
        ("INFO", Action.NONE, ""),
        ("DUNNO", Action.NONE, ""),
        ("FILTER smtp:x", Action.NONE, ""),
        ("FILTER x", Action.DEFER, "451 4.3.5 Server configuration error"),
    ],
)
async def test_results(judge: Judge, result: str, action: Action, reply: str) -> None:
    verdict, _ = await judge(f"/^subject:.*money/ {result}\n")
    assert (verdict.action, str(verdict.reply or "")) == (action, reply)


async def test_fields_are_removed_replaced_and_added(judge: Judge) -> None:
    verdict, log = await judge(
        "/^X-Secret: \\d+$/ IGNORE\n/^X-Secret:/ STRIP\n/^Subject: (.*)/ REPLACE Subject: [ad] $1\n"
    )
    assert verdict.fields == (b"Subject: [ad] =?x?= Money now\r\n",)
    header = LETTER.index(b"\r\n\r\n") + 2
    assert verdict.cuts == ((0, header),), "cuts that touch are one"
    assert [fields["action"] for _, fields in log.told] == ["strip", "replace", "ignore"]
    verdict, _ = await judge("/^Subject:/ PREPEND X-Seen: yes\n")
    assert (verdict.fields, verdict.cuts) == ((b"X-Seen: yes\r\n",), ())


async def test_a_folded_field_is_replaced_with_its_folds(judge: Judge) -> None:
    verdict, _ = await judge("/^Subject: (.*)/ REPLACE Subject: ($1)\n", b"Subject: one\r\n two\r\n\r\n")
    assert verdict.fields == (b"Subject: (one\r\n two)\r\n",)


async def test_empty_lines_never_match(judge: Judge) -> None:
    verdict, _ = await judge("!/hello/ REJECT\n", b"Subject: x\r\n\r\nhello\r\n\r\nhello\r\n", key="body_checks")
    assert verdict.action is Action.NONE


async def test_hold_and_redirect_together(judge: Judge) -> None:
    verdict, _ = await judge("/^X-Secret: 2/ HOLD\n/^Subject:/ REDIRECT a@example.test\n")
    assert (verdict.action, verdict.target) == (Action.HOLD, b"a@example.test")


async def test_pass_ends_the_looking(judge: Judge) -> None:
    verdict, _ = await judge("/^X-Secret: 10/ PASS\n/^Subject:/ REJECT\n")
    assert verdict.action is Action.NONE


async def test_bodies_have_tables_of_their_own(judge: Judge) -> None:
    assert (await judge("/pills/ REJECT\n"))[0].action is Action.NONE
    assert (await judge("/^buy pills$/ REJECT\n", key="body_checks"))[0].action is Action.REJECT
    verdict, log = await judge("/pills/ IGNORE\n", key="body_checks")
    assert (verdict.action, verdict.cuts) == (Action.NONE, ())
    assert log.told[-1][0] == "policy.not_changed"


@pytest.mark.parametrize("key", ["header_checks", "mime_header_checks", "nested_header_checks"])
async def test_header_checks_are_the_default_of_the_others(judge: Judge, key: str) -> None:
    for text in ("Subject: one", "Content-Type: text/plain", "Subject: inner"):
        verdict, _ = await judge(f"|^{text}$| REJECT\n", MIXED)
        assert verdict.action is Action.REJECT
    verdict, _ = await judge("/^Subject: inner$/ REJECT\n", MIXED, key)
    assert (verdict.action is Action.REJECT) == (key != "mime_header_checks")


async def test_a_table_that_cannot_be_read_defers(judge: Judge) -> None:
    verdict, _ = await judge("/a(?=b)/ REJECT\n")
    assert str(verdict.reply) == "451 4.3.0 Temporary lookup failure"


@pytest.mark.parametrize(("fields", "fits"), [(MESSAGE_CUTS, True), (MESSAGE_CUTS + 1, False)])
async def test_a_message_has_a_bounded_number_of_cuts(judge: Judge, fields: int, fits: bool) -> None:
    message = b"A: cut\r\nB: keep\r\n" * fields + b"\r\n"
    verdict, _ = await judge("/^A:/ IGNORE\n", message)
    assert (verdict.action is Action.NONE) == fits
    assert len(verdict.cuts) == (fields if fits else 0)


async def test_a_long_message_with_many_rules_lets_others_have_their_turn(tmp_path: Path) -> None:
    (tmp_path / "table").write_text("".join(f"/^X-No-{n}: [a-z]+x$/ REJECT\n" for n in range(50)))
    parts = Parts()
    now = [0]

    def look() -> int:
        now[0] += 200_000  # each look at the clock is a fifth of a millisecond later
        return now[0]

    parts.turns = Turns(asyncio.get_running_loop(), look)
    (check,) = build(parse('header_checks = "pcre:table"', base=tmp_path), parts)  # type: ignore[arg-type]
    found = check.check(context_of(b"X-Field: text\r\n" * 200 + b"\r\n"))
    assert not isinstance(found, Verdict)
    task = asyncio.ensure_future(found)
    passes = 0
    while not task.done():
        await asyncio.sleep(0)
        passes += 1
    assert (await task).action is Action.NONE
    assert passes > 10


@pytest.mark.parametrize(
    ("rules", "octets", "threads"), [(50, 1000, 0), (50, CONTENT_FIELD_BYTES, 1), (1500, 1000, 1), (1, 2_000, 0)]
)
async def test_long_texts_and_long_tables_hold_no_loop(tmp_path: Path, rules: int, octets: int, threads: int) -> None:
    (tmp_path / "table").write_text("".join(f"/^X-No-{n}: (a+)+b$/ REJECT\n" for n in range(rules)) + "/end$/ HOLD\n")
    parts, offloaded = Parts(), []

    async def offload(operation: Any, *arguments: Any) -> Any:
        offloaded.append(arguments)
        return await asyncio.to_thread(operation, *arguments)

    parts.offload = offload  # type: ignore[attr-defined]
    (check,) = build(parse('header_checks = "pcre:table"', base=tmp_path), parts)  # type: ignore[arg-type]
    found = check.check(context_of(b"X-Field: " + b"a" * (octets - 12) + b"end\r\n\r\n"))
    assert not isinstance(found, Verdict)
    assert (await found).action is Action.HOLD
    assert len(offloaded) == threads


async def test_without_tables_nobody_is_asked() -> None:
    assert build(parse(""), Parts()) == []  # type: ignore[arg-type]
