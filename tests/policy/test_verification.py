"""Address verification: what is kept, for how long, and how much is asked at a time."""

import asyncio
import dataclasses
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastmta.config.schema import Config
from fastmta.model import limits
from fastmta.model.limits import VERIFY_DOMAIN_AT_ONCE
from fastmta.model.reply import Reply
from fastmta.policy import verification
from fastmta.policy.verification import IN_PROGRESS, Answer, Verifier
from fastmta.runtime.clock import ManualClock
from fastmta.store import MailStore, verified
from fastmta.store.verified import Verified, VerifiedAddresses

DAY = 86_400.0
GOOD, UNKNOWN, LATER = Reply(250, "2.1.5", "ok"), Reply(550, "5.1.1", "unknown"), Reply(450, "4.4.1", "no answer")


class FakeRows:
    def __init__(self) -> None:
        self.rows: dict[str, Verified] = {}

    def get(self, address: str) -> Verified | None:
        return self.rows.get(address)

    async def put(self, row: Verified) -> None:
        self.rows[row.address] = row


@dataclasses.dataclass
class Hop:
    """The next hop: gives `reply` when `open` is set."""

    reply: Reply = GOOD
    asked: list[bytes] = dataclasses.field(default_factory=list)
    under_way: int = 0
    most: int = 0

    def __post_init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.senders: set[bytes] = set()

    async def probe(self, sender: bytes, address: bytes) -> Reply:
        self.asked.append(address)
        self.senders.add(sender)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await self.open.wait()
        self.under_way -= 1
        return self.reply


class Bench:
    def __init__(self, **keys: Any) -> None:
        self.config = msgspec.structs.replace(Config(), **keys)
        self.hop, self.rows, self.clock = Hop(), FakeRows(), ManualClock()
        self.tasks: list[asyncio.Task[None]] = []
        self.told: list[str] = []
        log: Any = self
        self.verifier = Verifier(self.config, self.rows, self.hop.probe, self.clock, log, self._spawn)

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.ensure_future(work))

    def info(self, event: str, **fields: Any) -> None:
        self.told.append(event)

    async def status(self, address: bytes = b"X@a.test") -> Answer:
        return await self.verifier.status(address)

    async def settle(self) -> None:
        while self.tasks:
            await self.tasks.pop()


async def test_an_answer_is_kept_and_not_asked_for_again() -> None:
    bench = Bench()
    assert await bench.status() == Answer("ok", "2.1.5", "ok")
    assert await bench.status(b"x@A.test") == Answer("ok", "2.1.5", "ok")
    assert bench.hop.asked == [b"X@a.test"] and bench.hop.senders == {b""}
    assert bench.told == ["policy.verified"]


@pytest.mark.parametrize(
    ("text", "sender"), [("<>", b""), ("", b""), ("a@b.test", b"a@b.test"), ("double-bounce", b"double-bounce@us.test")]
)
async def test_a_sender_without_a_domain_is_one_of_ours(text: str, sender: bytes) -> None:
    bench = Bench(address_verify_sender=text, myorigin="us.test")
    await bench.status()
    assert bench.hop.senders == {sender}


@pytest.mark.parametrize(
    ("reply", "refresh_s", "expire_s", "status"),
    [(GOOD, 7 * DAY, 31 * DAY, "ok"), (UNKNOWN, DAY / 8, 3 * DAY, "bounced"), (LATER, DAY / 8, 3 * DAY, "deferred")],
)
async def test_answers_age(reply: Reply, refresh_s: float, expire_s: float, status: str) -> None:
    bench = Bench()
    bench.hop.reply = reply
    assert (await bench.status()).status == status
    bench.clock.advance(refresh_s)
    assert (await bench.status()).status == status and len(bench.hop.asked) == 1
    bench.clock.advance(1)
    bench.hop.open.clear()
    assert (await bench.status()).status == status  # at once, and asked for beside
    await asyncio.sleep(0)
    assert len(bench.hop.asked) == 2
    bench.clock.advance(expire_s - refresh_s)
    bench.hop.open.set()
    bench.hop.reply = UNKNOWN if reply is GOOD else GOOD
    assert (await bench.status()).status != status


async def test_a_failed_question_does_not_push_out_a_good_answer() -> None:
    bench = Bench()
    await bench.status()
    bench.clock.advance(8 * DAY)
    bench.hop.reply = LATER
    assert (await bench.status()).status == "ok"
    await bench.settle()
    assert (await bench.status()).status == "ok" and bench.rows.rows["x@a.test"].status == "ok"


async def test_refusals_need_not_be_kept() -> None:
    bench = Bench(address_verify_negative_cache=False)
    bench.hop.reply = UNKNOWN
    assert (await bench.status()).status == "bounced"
    assert (await bench.status()).status == "bounced"
    assert len(bench.hop.asked) == 2 and not bench.rows.rows


async def test_who_has_no_patience_finds_the_answer_later() -> None:
    bench = Bench(address_verify_poll_count=1, address_verify_poll_delay=0.0)
    bench.hop.open.clear()
    assert await bench.status() == Answer("asked", "", IN_PROGRESS)
    assert await bench.status() == Answer("asked", "", IN_PROGRESS)
    bench.hop.open.set()
    await bench.settle()
    assert (await bench.status()).status == "ok" and len(bench.hop.asked) == 1


async def test_questions_are_bounded() -> None:
    bench = Bench(address_verify_poll_count=1, address_verify_poll_delay=0.0, address_verify_pending_request_limit=20)
    bench.hop.open.clear()
    for n in range(30):
        assert (await bench.status(b"u%d@a.test" % n)).status == "asked"
    assert bench.hop.under_way == VERIFY_DOMAIN_AT_ONCE and len(bench.tasks) == 20
    bench.hop.open.set()
    await bench.settle()
    assert bench.hop.most == VERIFY_DOMAIN_AT_ONCE and len(bench.hop.asked) == 20
    assert (await bench.status(b"other@b.test")).status == "asked"
    await bench.settle()
    assert not bench.verifier._places and not bench.verifier._asking


async def test_all_domains_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "VERIFY_AT_ONCE", 3)
    bench = Bench(address_verify_poll_count=1, address_verify_poll_delay=0.0)
    bench.hop.open.clear()
    for n in range(10):
        await bench.status(b"u@d%d.test" % n)
    bench.hop.open.set()
    await bench.settle()
    assert bench.hop.most == 3


async def test_what_goes_wrong_is_forgotten() -> None:
    bench = Bench()

    async def fail(sender: bytes, address: bytes) -> Reply:
        raise RuntimeError("broken")

    bench.verifier._probe = fail
    assert (await bench.status()).status == "asked"
    with pytest.raises(RuntimeError):
        await bench.settle()
    bench.verifier._probe = bench.hop.probe
    assert (await bench.status()).status == "ok"


def test_the_store_keeps_so_many_and_forgets_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verified, "VERIFIED_ADDRESSES", 3)
    assert limits.VERIFIED_ADDRESSES == 100_000
    store = MailStore.open(tmp_path, sync=False, map_size_bytes=1 << 28)
    rows: VerifiedAddresses = store.verified
    for n, status in enumerate(["ok", "bounced", "ok", "ok"]):
        asyncio.run(rows.put(Verified(f"u{n}@a.test", status, "5.1.1", "x" * 250, n * 1000)))
    assert rows.count == 3 and rows.get("u3@a.test") is None
    asyncio.run(rows.put(Verified("u0@a.test", "deferred", "", "", 5000)))
    assert rows.count == 3
    assert asyncio.run(rows.forget_old(ok_before_ms=2001, others_before_ms=1001)) == 2
    store.close()
    store = MailStore.open(tmp_path, sync=False, map_size_bytes=1 << 28)
    assert store.verified.count == 1 and store.verified.get("u0@a.test") == Verified(
        "u0@a.test", "deferred", "", "", 5000
    )
    store.close()
