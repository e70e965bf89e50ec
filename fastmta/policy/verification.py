"""Address verification as Postfix's verify(8) has it: whether an address can be delivered to, asked of its next hop.

An answer is kept in the store, so all workers and the time after a restart have it. One that is good is believed for
address_verify_positive_expire_time, and asked for again, beside, after the refresh time; others likewise with the
negative times. A failed question does not push out what was good before. Whoever asks waits for the poll count times
the poll delay; the question goes on without him, and the next one who asks finds the answer.

Questions are bounded, in all and to one domain at a time: a list of guessed addresses costs its sender waiting.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, Protocol

import msgspec

from fastmta.config.schema import Config
from fastmta.model.limits import VERIFY_AT_ONCE, VERIFY_DOMAIN_AT_ONCE, VERIFY_LONGEST_S, VERIFY_TEXT_CHARACTERS
from fastmta.model.reply import Reply
from fastmta.runtime.clock import Clock
from fastmta.runtime.log import Log
from fastmta.store.verified import Verified

Probe = Callable[[bytes, bytes], Awaitable[Reply]]  # (sender, address) -> what the next hop says of the address
IN_PROGRESS: Final = "Address verification in progress"


class Answer(msgspec.Struct, frozen=True):
    """`status`: "ok", "deferred", "bounced" or "asked" (nobody knows yet)."""

    status: str
    enhanced: str = ""
    text: str = ""


_ASKED: Final = Answer("asked", "", IN_PROGRESS)


class Rows(Protocol):
    def get(self, address: str) -> Verified | None: ...
    async def put(self, row: Verified) -> None: ...


class Verifier:
    """The verification of one worker."""

    def __init__(
        self,
        config: Config,
        rows: Rows,
        probe: Probe,
        clock: Clock,
        log: Log,
        spawn: Callable[[str, Coroutine[Any, Any, None]], object],
    ) -> None:
        self.configure(config)
        self._rows = rows
        self._probe = probe
        self._clock = clock
        self._log = log
        self._spawn = spawn
        self._asking: dict[str, asyncio.Event] = {}  # addresses that are being asked about
        self._places: dict[str, asyncio.Semaphore] = {}  # by domain
        self._waiting: dict[str, int] = {}  # how many of a domain there are
        self._all = asyncio.Semaphore(VERIFY_AT_ONCE)
        self._said: dict[str, Answer] = {}  # of questions that were answered while somebody waited

    def configure(self, config: Config) -> None:
        """The configuration was read again."""
        self._config = config
        self._patience_s = min(config.address_verify_poll_count * config.address_verify_poll_delay, VERIFY_LONGEST_S)

    @property
    def _sender(self) -> bytes:
        """Of questions: the null sender, or a whole address."""
        sender = self._config.address_verify_sender.strip("<>")
        return (sender if "@" in sender or not sender else f"{sender}@{self._config.myorigin}").encode()

    async def status(self, address: bytes) -> Answer:
        """What is known of an address, or becomes known while the asker has patience."""
        name = address.decode("utf-8", "surrogateescape").lower()
        row = self._rows.get(name)
        if row is not None:
            age_s = self._clock.now() - row.at_ms / 1000
            config = self._config
            good = row.status == "ok"
            if age_s <= (
                config.address_verify_positive_expire_time if good else config.address_verify_negative_expire_time
            ):
                if age_s > (
                    config.address_verify_positive_refresh_time if good else config.address_verify_negative_refresh_time
                ):
                    self._ask(name, address)
                return Answer(row.status, row.enhanced, row.text)
        answered = self._ask(name, address)
        if answered is None:
            return _ASKED
        try:
            async with asyncio.timeout(self._patience_s):
                await answered.wait()
        except TimeoutError:
            return _ASKED
        return self._said.get(name, _ASKED)

    def _ask(self, name: str, address: bytes) -> asyncio.Event | None:
        """Begins a question, unless it is under way; None: too many are."""
        answered = self._asking.get(name)
        if answered is None:
            if len(self._asking) >= self._config.address_verify_pending_request_limit:
                return None
            answered = self._asking[name] = asyncio.Event()
            self._spawn("policy verifies an address", self._find_out(name, address, answered))
        return answered

    async def _find_out(self, name: str, address: bytes, answered: asyncio.Event) -> None:
        domain = name.rpartition("@")[2]
        place = self._places.setdefault(domain, asyncio.Semaphore(VERIFY_DOMAIN_AT_ONCE))
        self._waiting[domain] = self._waiting.get(domain, 0) + 1
        try:
            async with place, self._all:
                reply = await self._probe(self._sender, address)
            await self._keep(name, reply)
        finally:
            self._waiting[domain] -= 1
            if not self._waiting[domain]:
                del self._waiting[domain], self._places[domain]
            del self._asking[name]
            answered.set()
            asyncio.get_running_loop().call_soon(self._said.pop, name, None)  # behind those who have waited

    async def _keep(self, name: str, reply: Reply) -> None:
        status = "ok" if reply.code < 400 else "deferred" if reply.is_temporary else "bounced"
        text = reply.text[:VERIFY_TEXT_CHARACTERS]
        self._said[name] = Answer(status, reply.enhanced, text)
        self._log.info("policy.verified", address=name, status=status, reply=str(reply)[:VERIFY_TEXT_CHARACTERS])
        before = self._rows.get(name)
        was_good = before is not None and before.status == "ok" and not self._is_over(before)
        if status == "ok" or (self._config.address_verify_negative_cache and not was_good):
            await self._rows.put(Verified(name, status, reply.enhanced, text, int(self._clock.now() * 1000)))

    def _is_over(self, row: Verified) -> bool:
        return self._clock.now() - row.at_ms / 1000 > self._config.address_verify_positive_expire_time
