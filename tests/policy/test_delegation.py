"""check_policy_service: the request that is asked, the answers that count, and services that do not behave."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastmta.config.load import parse
from fastmta.model.certificate import PeerCertificate
from fastmta.model.limits import POLICY_ANSWER_BYTES
from fastmta.model.stages import Stage
from fastmta.model.verdict import Action, Verdict
from fastmta.policy.check import Context
from fastmta.policy.checks.restrictions import build
from fastmta.policy.delegation import NoAnswer, encode_request, parse_answer
from fastmta.policy.policy_client import PolicyService
from fastmta.runtime.clock import ManualClock

CONTEXT = Context(
    stage=Stage.RCPT,
    service="smtp",
    session=3,
    client_ip="192.0.2.7",
    client_name="unknown",
    trusted=False,
    tls=False,
    client_port=4711,
    helo="mail.client.test",
    sender=b"ann@sender.test",
    recipient=b"bob@example.test",
)
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Parts:
    def __init__(self) -> None:
        self.resolver = self.directory = None
        self.clock = ManualClock()


@asynccontextmanager
async def service(path: Path, handle: Handler) -> AsyncIterator[list[asyncio.StreamWriter]]:
    """A policy service at `path`; gives its connections."""
    connections: list[asyncio.StreamWriter] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        await handle(reader, writer)

    server = await asyncio.start_unix_server(connected, str(path))
    try:
        yield connections
    finally:
        server.close()
        for each in connections:
            each.close()


def saying(answer: bytes, *, then_close: bool = False) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                await reader.readuntil(b"\n\n")
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            writer.write(answer)
            if then_close:
                writer.close()
                return

    return handle


@pytest.fixture
def patience_s() -> int:
    return 60


@pytest.fixture
async def ask(tmp_path: Path, patience_s: int) -> AsyncIterator[Any]:
    check: Any = build(
        parse(
            f'smtpd_recipient_restrictions = "check_policy_service unix:{tmp_path}/s"\n'
            f"smtpd_policy_service_timeout = {patience_s}"
        ),
        Parts(),  # type: ignore[arg-type]
    )[-1]

    async def asked(**changes: Any) -> Verdict:
        found = check.check(msgspec.structs.replace(CONTEXT, **changes))
        return found if isinstance(found, Verdict) else await found

    yield asked
    for each in check._words._services.values():
        each.close()
    await asyncio.sleep(0)


def test_a_request_has_what_is_known_and_no_line_of_the_clients_making() -> None:
    request = encode_request(msgspec.structs.replace(CONTEXT, helo="x\naction=OK", sender=None))
    lines = request.decode().split("\n")
    assert lines[0] == "request=smtpd_access_policy"
    assert lines[-2:] == ["", ""]
    assert "protocol_state=RCPT" in lines and "client_port=4711" in lines
    assert "sender=" in lines and "recipient=bob@example.test" in lines
    assert "helo_name=x?action=OK" in lines
    end = encode_request(msgspec.structs.replace(CONTEXT, stage=Stage.END, recipient=b"", recipients=(b"a@b", b"c@d")))
    assert b"\nprotocol_state=END-OF-MESSAGE\n" in end and b"\nrecipient_count=2\n" in end and b"\nrecipient=\n" in end


def test_requests_of_one_transaction_have_one_instance_and_others_another() -> None:
    def instance(**changes: Any) -> bytes:
        request = encode_request(msgspec.structs.replace(CONTEXT, **changes))
        return next(line for line in request.split(b"\n") if line.startswith(b"instance="))

    assert instance() == instance(recipient=b"eve@example.test")
    assert len({instance(), instance(transaction=1), instance(session=4)}) == 3


def test_an_answer_is_whole_at_its_empty_line() -> None:
    answer = b"x=y\naction=REJECT no\n\n"
    for end in range(len(answer)):
        assert parse_answer(answer[:end]) is None
    assert parse_answer(answer) == "REJECT no"
    assert parse_answer(b"action=OK\r\n\r\n") == "OK"


@pytest.mark.parametrize(
    "answer",
    [b"garbage\n\n", b"\n\n", b"x=y\n\n", b"action=\n\n", b"action=a\x00b\n\n", b"action=OK\n\naction=OK\n\n"],
)
def test_what_is_no_answer(answer: bytes) -> None:
    with pytest.raises(NoAnswer):
        parse_answer(answer)


def test_an_answer_is_bounded() -> None:
    text = b"action=" + b"x" * (POLICY_ANSWER_BYTES - 9) + b"\n\n"
    assert parse_answer(text) is not None
    with pytest.raises(NoAnswer):
        parse_answer(b"x" + text)


@pytest.mark.parametrize(
    ("action", "expected", "reply"),
    [
        ("DUNNO", Action.NONE, ""),
        ("OK", Action.ACCEPT, ""),
        ("REJECT go away", Action.REJECT, "554 5.7.1 <bob@example.test>: Recipient address rejected: go away"),
        ("550 5.1.1 nobody", Action.REJECT, "550 5.1.1 <bob@example.test>: Recipient address rejected: nobody"),
        ("451 later", Action.DEFER, "451 4.7.1 <bob@example.test>: Recipient address rejected: later"),
        ("DEFER_IF_PERMIT grey", Action.NONE, "450 4.7.1 <bob@example.test>: Recipient address rejected: grey"),
        ("HOLD look", Action.HOLD, ""),
        ("DISCARD", Action.DISCARD, ""),
        ("FROB", Action.DEFER, "451 4.3.5 Server configuration error"),
    ],
)
async def test_an_answer_is_any_result_of_access(
    ask: Any, tmp_path: Path, action: str, expected: Action, reply: str
) -> None:
    async with service(tmp_path / "s", saying(f"action={action}\n\n".encode())):
        verdict = await ask()
    assert verdict.action is expected
    assert str(verdict.reply or verdict.if_permit or "") == reply


async def test_a_field_is_put_on_top(ask: Any, tmp_path: Path) -> None:
    async with service(tmp_path / "s", saying(b"action=PREPEND X-Grey: yes\n\n")):
        assert (await ask()).fields == (b"X-Grey: yes\r\n",)


async def test_a_connection_is_kept_and_opened_again_when_the_service_has_closed_it(ask: Any, tmp_path: Path) -> None:
    async with service(tmp_path / "s", saying(b"action=OK\n\n")) as connections:
        for _ in range(3):
            assert (await ask()).action is Action.ACCEPT
        assert len(connections) == 1
    (tmp_path / "s").unlink(missing_ok=True)
    async with service(tmp_path / "s", saying(b"action=OK\n\n", then_close=True)) as connections:
        for _ in range(3):
            assert (await ask()).action is Action.ACCEPT
        assert len(connections) == 3


async def test_one_timer_closes_what_is_idle_however_often_the_service_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = parse("smtpd_policy_service_max_idle = 50")
    clock, loop, calls = ManualClock(), asyncio.get_running_loop(), []
    asked = PolicyService(f"unix:{tmp_path}/s", config, clock)
    call_later = loop.call_later

    def noted(delay: float, callback: Any, *arguments: Any, **options: Any) -> Any:
        if callback == asked._close_idle:
            calls.append(callback)
        return call_later(delay, callback, *arguments, **options)

    monkeypatch.setattr(loop, "call_later", noted)
    async with service(tmp_path / "s", saying(b"action=OK\n\n")) as connections:
        for _ in range(20):
            assert await asked.ask(b"x=y\n\n") == ("OK", "")
        assert len(calls) == 1 and len(connections) == 1
        calls[0]()
        assert len(calls) == 2 and asked._kept
        clock.advance(51)
        calls[1]()
        assert len(calls) == 2 and not asked._kept
    asked.close()


@pytest.mark.parametrize(
    ("answer", "patience_s"),
    [(b"garbage\n\n", 60), (b"", 1), (b"action=" + b"x" * 20_000, 60), (b"action=OK\n", 60)],  # b"": it never answers
)
async def test_garbage_huge_and_missing_answers_give_the_default_action(
    ask: Any, tmp_path: Path, answer: bytes
) -> None:
    async with service(tmp_path / "s", saying(answer, then_close=answer != b"")):
        verdict = await ask()
    assert verdict.action is Action.DEFER
    assert str(verdict.reply).startswith("451 4.3.5 ")
    assert str(verdict.reply).endswith("Server configuration problem")


async def test_a_dead_service_gives_the_default_action(ask: Any) -> None:
    assert str((await ask()).reply).startswith("451 4.3.5 ")


@pytest.mark.parametrize("trusted", [True, False])
def test_a_clients_certificate_is_told(trusted: bool) -> None:
    shown = PeerCertificate("Ann B=1", "An issuer", "AB:01", "CD:02", trusted)
    lines = encode_request(msgspec.structs.replace(CONTEXT, certificate=shown)).decode().splitlines()
    assert ("ccert_subject=Ann+20B+3D1" in lines) is trusted
    assert ("ccert_issuer=An+20issuer" in lines) is trusted
    assert "ccert_fingerprint=AB:01" in lines and "ccert_pubkey_fingerprint=CD:02" in lines
