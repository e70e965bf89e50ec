"""Accepting connections in a worker: the inherited sockets, and a pause while descriptors are short.

libuv answers a failed accept (EMFILE) by taking the connection and closing it at once, so the client sees a reset.
Therefore we stop listening before it comes to that, at a number of descriptors that leaves a reserve for deliveries and
the store; the backlog, which is the supervisor's and stays open, then holds who comes. What the worker itself has open
is not the sessions' to give back, so both bounds are counted from there on; and a pause ends after a while in any case,
for one session at a time, as long as the reserve is not used up.

Services with implicit TLS are wrapped here; their sessions are those of the plain service and see TLS by their
transport. Where proxies are trusted (haproxy_trusted_networks), connections are accepted one by one, since the header
of a proxy comes before TLS and before the greeting; a session learns its client by `told_peer`.
"""

import asyncio
import os
import resource
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Protocol, cast

import msgspec

from fastmta.model.errors import ConfigError
from fastmta.model.services import BY_NAME, Tls
from fastmta.policy.networks import Networks
from fastmta.runtime.log import Log
from fastmta.supervisor.listeners import BACKLOG
from fastmta.supervisor.proxy_header import BadHeader, Peer, read_header
from fastmta.tls.upgrade import InnerProtocol, SharedBuffer

RESERVED_DESCRIPTORS: Final = 256  # for deliveries, the store, the log; half of what is free where that is less
LAST_DESCRIPTORS: Final = 4  # below so many free ones a pause does not end by time
RETRY_S: Final = 1.0  # of a pause in which nothing was given back
RESUME_FIRST_S: Final = 0.005  # a first look so soon: a crowd of clients that are gone ends as fast as it is taken
RESUME_INTERVAL_S: Final = 0.1  # between looks at the most; they double up to it while nobody leaves
OVER_S: Final = 5.0  # without another pause: only then is the shortage over in the log
RESUME_SHARE: Final = 0.9  # of the sessions at which accepting paused
TLS_HANDSHAKE_S: Final = 30.0  # a peer that trickles its handshake holds a descriptor no longer

Factory = Callable[[], asyncio.BaseProtocol]


class Proxies(msgspec.Struct, frozen=True):
    """Who may speak for others, and how long his header may take."""

    networks: Networks
    timeout_s: float


class _Server(Protocol):
    def close(self) -> None: ...


class _OneByOne:
    """A listening socket whose connections are given to `arrived` before they have a protocol."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        arrived: Callable[[socket.socket, Any], None],
        short: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._socket = sock
        self._arrived = arrived
        self._short = short
        sock.setblocking(False)
        loop.add_reader(sock, self._accept)

    def _accept(self) -> None:
        try:
            connection, peer = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:  # no descriptor is left
            self._short()
            return
        connection.setblocking(False)
        self._arrived(connection, peer)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()


def lowest_free_descriptor() -> int:
    """All descriptors below this one are in use; the limit itself if all are. 1 µs, where listing them costs more."""
    try:
        fd = os.dup(0)
    except OSError:
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    os.close(fd)
    return fd


def _wrapped(factory: Factory) -> Factory:
    def wrap() -> asyncio.BaseProtocol:
        return SharedBuffer(cast("InnerProtocol", factory()))

    return wrap


WantedContext = Callable[[], ssl.SSLContext | None]


def _plain() -> None:
    """The context of a listener without implicit TLS."""


class _Listening:
    """One socket and the service that speaks on it."""

    __slots__ = ("context", "factory", "server", "service", "socket", "tag", "wanted")

    def __init__(self, tag: int, service: str, sock: socket.socket, factory: Factory, wanted: WantedContext) -> None:
        self.tag = tag  # the slot that it belongs to
        self.service = service
        self.socket = sock
        self.factory = factory
        self.wanted = wanted  # the context by the present configuration; None: plain
        self.context = wanted()
        self.server: _Server | None = None


class Acceptor:
    """The listening side of a worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop, log: Log) -> None:
        self._loop = loop
        self._log = log
        self._listening: list[_Listening] = []
        self._closed = False
        self.paused = False
        self._short = False  # as the log has it
        self._over: asyncio.TimerHandle | None = None
        self._resuming: asyncio.Task[None] | None = None
        self._soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._limit = self._soft - min(RESERVED_DESCRIPTORS, self._soft // 2)
        self._own = 0  # descriptors that are no sessions'
        self._looking_since = 0.0
        self._proxies: Proxies | None = None
        self._arriving: set[asyncio.Task[None]] = set()

    async def trust(self, networks: Networks, timeout_s: float) -> None:
        """Who may speak for clients by the PROXY protocol, from the next connection on."""
        before, self._proxies = self._proxies, Proxies(networks, timeout_s) if networks else None
        if (before is None) == (self._proxies is None):
            return
        for listening in list(self._listening):
            await self._reopen(listening)

    async def renew(self) -> None:
        """Takes up another context, which a listener may have got when the configuration was reread."""
        for listening in list(self._listening):
            context = listening.wanted()
            if context is not listening.context and context is not None:
                listening.context = context
                await self._reopen(listening)

    async def _reopen(self, listening: _Listening) -> None:
        if listening.server is not None:  # the socket itself and its backlog stay
            listening.server.close()
            listening.server = None
            await self._open(listening)

    def measure(self) -> None:
        """Called when everything is open and nobody is served yet: from here on descriptors are sessions'."""
        self._own = lowest_free_descriptor()
        self._limit = self._soft - min(RESERVED_DESCRIPTORS, (self._soft - self._own) // 2)

    @property
    def accepting(self) -> bool:
        """Whether newcomers are taken; a pause for want of descriptors counts as taking them."""
        return not self._closed and bool(self._listening)

    async def add(
        self,
        tag: int,
        service: str,
        sock: socket.socket,
        factory: Factory,
        context: Callable[[], ssl.SSLContext | None],
    ) -> None:
        """Accepts from `sock`, which becomes ours, for `service`; what `context` gives is for implicit TLS."""
        if BY_NAME[service].tls is Tls.IMPLICIT:
            if context() is None:
                raise ConfigError(f"listen.{service}: needs tls.cert_file and tls.key_file")
            factory = _wrapped(factory)
        else:
            context = _plain
        listening = _Listening(tag, service, sock, self._counted(service, factory), context)
        self._listening.append(listening)
        if not self.paused:
            await self._open(listening)

    def _counted(self, service: str, factory: Factory) -> Factory:
        if service == "http":  # health must be seen when nothing else gets through
            return factory

        def accept() -> asyncio.BaseProtocol:
            if lowest_free_descriptor() >= self._limit:
                self._pause_soon()
            return factory()

        return accept

    def _pause_soon(self) -> None:
        # Not at once: closing a listener now would close the very connection that is being accepted. libuv accepts one
        # for each turn and listener, so little comes before it.
        if not self.paused:
            self.paused = True
            self._loop.call_soon(self._pause)

    async def _open(self, listening: _Listening) -> None:
        # A duplicate, because closing a server closes its socket; the listening state and its backlog are shared.
        sock = listening.socket.dup()
        if self._proxies is not None and sock.family != socket.AF_UNIX:
            listening.server = _OneByOne(self._loop, sock, partial(self._arrived, listening), self._pause_soon)
            return
        listening.server = await self._loop.create_server(
            listening.factory,
            sock=sock,
            backlog=BACKLOG,
            ssl=listening.context,
            ssl_handshake_timeout=TLS_HANDSHAKE_S if listening.context else None,
        )

    def _arrived(self, listening: _Listening, sock: socket.socket, peer: Any) -> None:
        task = self._loop.create_task(self._adopt(listening, sock, peer), name=f"acceptor.{listening.service}")
        self._arriving.add(task)
        task.add_done_callback(self._arriving.discard)

    async def _adopt(self, listening: _Listening, sock: socket.socket, peer: Any) -> None:
        """Gives a connection to its session, with the client that a trusted proxy names."""
        told: Peer | None = None
        try:
            proxies = self._proxies
            if proxies is not None and peer[0].removeprefix("::ffff:") in proxies.networks:
                told = await read_header(self._loop, sock, proxies.timeout_s)

            def told_session() -> asyncio.BaseProtocol:
                protocol = listening.factory()
                if told is not None:
                    inner: Any = protocol.inner if isinstance(protocol, SharedBuffer) else protocol
                    inner.told_peer = (told.ip, told.port)
                return protocol

            await self._loop.connect_accepted_socket(
                told_session,
                sock,
                ssl=listening.context,
                ssl_handshake_timeout=TLS_HANDSHAKE_S if listening.context else None,
            )
        except BadHeader as error:
            sock.close()
            self._log.warning("listener.no_proxy_header", service=listening.service, client=peer[0], reason=str(error))
        except TimeoutError:
            sock.close()
            self._log.warning("listener.no_proxy_header", service=listening.service, client=peer[0], reason="timeout")
        except OSError:  # it has left, or its handshake failed
            sock.close()
        except asyncio.CancelledError:
            sock.close()
            raise

    def _pause(self) -> None:
        if self._over is not None:
            self._over.cancel()
            self._over = None
        if not self._short:
            self._short = True
            self._log.error("listener.paused", reason="file descriptors are short", limit=self._limit)
        for listening in self._listening:
            if listening.service != "http" and listening.server is not None:
                listening.server.close()
                listening.server = None
        self._look_later()

    def _look_later(self) -> None:
        self._looking_since = self._loop.time()
        self._loop.call_later(RESUME_FIRST_S, self._look, RESUME_FIRST_S)

    def _look(self, interval_s: float) -> None:
        """While paused: accepts again when enough sessions have ended, as many as there is room for."""
        if self._closed:
            return
        used = lowest_free_descriptor()
        overdue = self._loop.time() - self._looking_since >= RETRY_S and used <= self._soft - LAST_DESCRIPTORS
        if used >= self._own + (self._limit - self._own) * RESUME_SHARE and not overdue:
            interval_s = min(2 * interval_s, RESUME_INTERVAL_S)
            self._loop.call_later(interval_s, self._look, interval_s)
            return
        self._resuming = self._loop.create_task(self._resume(), name="acceptor.resume")

    def _told_over(self) -> None:
        self._over = None
        self._short = False
        self._log.info("listener.resumed")

    async def _resume(self) -> None:
        self.paused = False
        self._over = self._loop.call_later(OVER_S, self._told_over)
        for listening in list(self._listening):
            if listening.server is None and not self._closed and not self.paused:  # opening takes a turn of the loop
                try:
                    await self._open(listening)
                except OSError:  # they are short again already
                    if not self.paused:
                        self.paused = True
                        self._pause()
                    return

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
        if self._over is not None:
            self._over.cancel()
        for listening in self._listening:
            self._shut(listening)
        self._listening.clear()
        for task in self._arriving:
            task.cancel()
