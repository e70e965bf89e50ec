"""Connections to policy delegation services: a few to each service are kept between questions, in every worker.

A service may close a kept connection at any time; so a question that a kept one does not answer is asked once more on
a new one. After that, and when the time is over, nobody answers (None), and the default action counts.
"""

import asyncio
from typing import Final, NamedTuple

from fastmta.config.schema import Config
from fastmta.config.values import parse_peer
from fastmta.model.limits import POLICY_CONNECTIONS, POLICY_KEPT, POLICY_LONGEST_S, POLICY_READ_BYTES
from fastmta.policy.delegation import NoAnswer, parse_answer
from fastmta.runtime.clock import Clock


class _Kept(NamedTuple):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    opened_at: float
    used_at: float


class PolicyService:
    """One service, "inet:host:port" or "unix:/path"."""

    def __init__(self, address: str, config: Config, clock: Clock) -> None:
        self.address: Final = address
        self._endpoint = parse_peer(address)
        self._timeout_s = min(config.smtpd_policy_service_timeout, POLICY_LONGEST_S)
        self._idle_s = config.smtpd_policy_service_max_idle
        self._ttl_s = config.smtpd_policy_service_max_ttl
        self._clock = clock
        self._kept: list[_Kept] = []
        self._turns = asyncio.Semaphore(POLICY_CONNECTIONS)
        self._timer: asyncio.TimerHandle | None = None  # one, however often the service is asked

    async def ask(self, request: bytes) -> tuple[str | None, str]:
        """The action, or None with what went wrong."""
        try:
            async with asyncio.timeout(self._timeout_s), self._turns:
                return await self._ask(request), ""
        except TimeoutError:
            return None, "no answer in time"
        except (OSError, EOFError, NoAnswer) as error:
            return None, str(error) or type(error).__name__

    async def _ask(self, request: bytes) -> str:
        kept = self._take()
        if kept is not None:
            try:
                return await self._exchange(kept, request)
            except (OSError, EOFError):
                pass  # it was closed while nobody looked
        return await self._exchange(await self._open(), request)

    def close(self) -> None:
        """Closes the connections that are kept."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._kept:
            self._kept.pop().writer.close()

    def _close_idle(self) -> None:
        """Closes what nobody has used: also of a service that the configuration no longer names."""
        self._timer = None
        kept = self._take()
        if kept is not None:
            self._kept.append(kept)
            self._close_later()

    def _close_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._idle_s + 1, self._close_idle)

    def _take(self) -> _Kept | None:
        """The connection that was used last; those that are too old are closed."""
        now = self._clock.monotonic()
        usable = []
        for each in self._kept:
            old = now - each.opened_at > self._ttl_s or now - each.used_at > self._idle_s
            if old or each.reader.at_eof() or each.writer.is_closing():
                each.writer.close()
            else:
                usable.append(each)
        self._kept = usable
        return usable.pop() if usable else None

    async def _open(self) -> _Kept:
        host, port, path, *_ = self._endpoint
        if path:
            reader, writer = await asyncio.open_unix_connection(path, limit=POLICY_READ_BYTES)
        else:
            reader, writer = await asyncio.open_connection(host, port, limit=POLICY_READ_BYTES)
        now = self._clock.monotonic()
        return _Kept(reader, writer, now, now)

    async def _exchange(self, kept: _Kept, request: bytes) -> str:
        answered = False
        try:
            kept.writer.write(request)
            await kept.writer.drain()
            received = b""
            while (action := parse_answer(received)) is None:
                piece = await kept.reader.read(POLICY_READ_BYTES)
                if not piece:
                    raise EOFError("the service closed the connection")
                received += piece
            answered = True
            return action
        finally:
            if answered and len(self._kept) < POLICY_KEPT:
                self._kept.append(kept._replace(used_at=self._clock.monotonic()))
                self._close_later()
            else:
                kept.writer.close()
