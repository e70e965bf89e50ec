"""Accepting connections in a worker: the inherited sockets, and a pause while descriptors are short.

libuv answers a failed accept (EMFILE) by taking the connection and closing it at once, so the client sees a reset.
Therefore we stop listening before it comes to that, at a number of sessions that leaves a reserve for deliveries and
the store; the backlog, which is the supervisor's and stays open, then holds who comes.
"""

import asyncio
import resource
import socket
from collections.abc import Callable
from typing import Final

from fastmta.runtime.log import Log
from fastmta.supervisor.listeners import BACKLOG

RESERVED_DESCRIPTORS: Final = 256  # for deliveries, the store, the log; half of the limit where that is less
RESUME_SHARE: Final = 0.9  # of the sessions at which accepting paused

Factory = Callable[[], asyncio.BaseProtocol]


class _Listening:
    """One socket and the service that speaks on it."""

    __slots__ = ("address", "factory", "server", "service", "socket", "tag")

    def __init__(self, tag: int, service: str, address: str, sock: socket.socket, factory: Factory) -> None:
        self.tag = tag  # the slot that it belongs to
        self.service = service
        self.address = address
        self.socket = sock
        self.factory = factory
        self.server: asyncio.AbstractServer | None = None


class Acceptor:
    """The listening side of a worker. `sessions` counts the connections that are open."""

    def __init__(self, loop: asyncio.AbstractEventLoop, log: Log, sessions: Callable[[], int]) -> None:
        self._loop = loop
        self._log = log
        self._sessions = sessions
        self._listening: list[_Listening] = []
        self._closed = False
        self.paused = False
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.limit = max(1, soft - min(RESERVED_DESCRIPTORS, soft // 2))

    @property
    def accepting(self) -> bool:
        """Whether newcomers are taken; a pause for want of descriptors counts as taking them."""
        return not self._closed and bool(self._listening)

    async def add(self, tag: int, service: str, address: str, sock: socket.socket, factory: Factory) -> None:
        """Accepts from `sock`, which becomes ours, for `service`."""
        listening = _Listening(tag, service, address, sock, self._counted(service, factory))
        self._listening.append(listening)
        if not self.paused:
            await self._open(listening)

    def _counted(self, service: str, factory: Factory) -> Factory:
        if service == "http":  # health must be seen when nothing else gets through
            return factory

        def accept() -> asyncio.BaseProtocol:
            if self._sessions() >= self.limit and not self.paused:
                self._pause()
            return factory()

        return accept

    async def _open(self, listening: _Listening) -> None:
        # A duplicate, because closing a server closes its socket; the listening state and its backlog are shared.
        listening.server = await self._loop.create_server(
            listening.factory, sock=listening.socket.dup(), backlog=BACKLOG
        )

    def _pause(self) -> None:
        self.paused = True
        self._log.error("listener.paused", reason="file descriptors", sessions=self._sessions(), limit=self.limit)
        for listening in self._listening:
            if listening.service != "http" and listening.server is not None:
                listening.server.close()
                listening.server = None

    async def check(self) -> None:
        """Once a second: accepts again when enough sessions have ended."""
        if self.paused and not self._closed and self._sessions() < self.limit * RESUME_SHARE:
            self.paused = False
            self._log.info("listener.resumed", sessions=self._sessions())
            for listening in self._listening:
                if listening.server is None:
                    await self._open(listening)

    def remove(self, tag: int) -> None:
        """Leaves the sockets of another slot, whose own worker is back."""
        for listening in [item for item in self._listening if item.tag == tag]:
            self._listening.remove(listening)
            self._shut(listening)

    def _shut(self, listening: _Listening) -> None:
        if listening.server is not None:
            listening.server.close()
            listening.server = None
        listening.socket.close()

    def close(self) -> None:
        """Stops accepting; sessions go on. What waits in the backlog is the next process's."""
        self._closed = True
        for listening in self._listening:
            self._shut(listening)
        self._listening.clear()
