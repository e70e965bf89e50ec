"""The network of a simulation: addresses, who listens there, and links between them that are fast, slow, or cut.

A link is two directions, each with a latency, a speed, and its own order. What one end sends reaches the other later;
what is on its way to an end that has closed is lost, and its sender is not told, as with TCP.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol

from fastmta.simulation.handshake import Ticket, shake

if TYPE_CHECKING:
    from fastmta.simulation.loop import VirtualLoop

DEFAULT_LATENCY_S: Final = 0.02
_HIGH_BYTES: Final = 65_536


class Peer(Protocol):
    """The far end of a link."""

    def connected(self, link: "Link") -> None: ...
    def received(self, data: bytes) -> None: ...
    def shakes(self, session: Ticket | None) -> tuple[str, bool]:
        """How a TLS handshake ends (simulation/handshake.py), and whether a session of before is gone on with."""
        ...

    def lost(self) -> None:
        """The near end has gone; called once, also after an end that this side has made."""
        ...


class Host(Protocol):
    """Who listens at an address."""

    def admit(self, now: float) -> float:
        """Seconds until the connection stands. ConnectionError: refused; TimeoutError: nobody ever answers."""
        ...

    def accept(self) -> tuple[Peer, float, float]:
        """Who answers, the latency in seconds, and the speed in octets a second (0: any)."""
        ...


class Network:
    """Who listens where. `opened` counts connections that were asked for."""

    def __init__(self) -> None:
        self._hosts: dict[tuple[str, int], Host] = {}
        self.opened = 0

    def listen(self, ip: str, port: int, host: Host) -> None:
        self._hosts[ip, port] = host

    def host_at(self, ip: str, port: int) -> Host | None:
        """Who listens there; None: nobody."""
        return self._hosts.get((ip, port))

    async def connect(self, protocol_factory: Callable[[], Any], ip: str, port: int) -> tuple["Link", Any]:
        """As a loop's create_connection; OSError where nobody listens."""
        self.opened += 1
        loop: VirtualLoop = asyncio.get_running_loop()  # type: ignore[assignment]
        host = self.host_at(ip, port)
        if host is None:
            await asyncio.sleep(DEFAULT_LATENCY_S)
            raise ConnectionRefusedError(111, "Connection refused")
        try:
            await asyncio.sleep(host.admit(loop.time()))
        except TimeoutError:
            await loop.create_future()  # whoever dials has a timer of his own
        peer, latency_s, speed = host.accept()
        protocol = protocol_factory()
        link = Link(loop, protocol, peer, (ip, port), latency_s, speed)
        protocol.connection_made(link)
        peer.connected(link)
        return link, protocol


class _Direction:
    """What is on its way to one end: each item is done at its time, in its order."""

    __slots__ = ("_free_at", "_items", "_latency_s", "_loop", "_speed")

    def __init__(self, loop: "VirtualLoop", latency_s: float, speed: float) -> None:
        self._loop = loop
        self._latency_s = latency_s
        self._speed = speed
        self._free_at = 0.0
        self._items: deque[Callable[[], None]] = deque()

    def send(self, act: Callable[[], None], octets: int = 0, after_s: float = 0.0) -> None:
        """Has `act` done at the other end."""
        at = self._loop.time() + after_s
        if self._speed:
            at = max(at, self._free_at - self._latency_s) + octets / self._speed
        self._free_at = max(self._free_at, at + self._latency_s)
        self._items.append(act)
        self._loop.call_at(self._free_at, self._next)

    def _next(self) -> None:
        self._items.popleft()()


class Link(asyncio.Transport):
    """One connection, as its near end has it; `say`, `hang_up` and `reset` are the far end's."""

    def __init__(
        self,
        loop: "VirtualLoop",
        protocol: Any,
        peer: Peer,
        place: tuple[str, int],
        latency_s: float,
        speed: float,
    ) -> None:
        super().__init__()
        self._loop = loop
        self._protocol = protocol
        self.peer = peer
        self.secured: Any = None  # what TLS has made of it
        self.waiting: asyncio.Future[None] | None = None  # a handshake that the other end leaves hanging
        self._place = place
        self._latency_s = latency_s
        self._out = _Direction(loop, latency_s, speed)
        self._in = _Direction(loop, latency_s, speed)
        self._closing = self._over = self._peer_gone = False
        self._unsent = 0
        self._high = _HIGH_BYTES
        self._paused = False

    # --- the near end: asyncio's transport ---

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        known = {"peername": self._place, "sockname": ("198.51.100.1", 40_000), "ssl_object": self.secured}
        return known.get(name, default)

    def pause_reading(self) -> None:
        """Before a handshake, when nothing is on its way."""

    async def start_tls(self, protocol: Any, context: Any) -> Any:
        """As a loop's start_tls."""
        return await shake(self, protocol, context, 2 * self._latency_s)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = high if high is not None else _HIGH_BYTES

    def get_write_buffer_size(self) -> int:
        return self._unsent

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: Any) -> None:
        if self._closing or not data:
            return
        octets = bytes(data)
        self._unsent += len(octets)
        self._out.send(lambda: self._arrived(octets), len(octets))
        if self._unsent > self._high and not self._paused:
            self._paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        """What was written still arrives, and then the end."""
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._end, None)
            self._out.send(self._peer_lost)

    def abort(self) -> None:
        if not self._over:
            self._closing = True
            self._loop.call_soon(self._end, None)
            self._out.send(self._peer_lost)

    def _end(self, error: Exception | None) -> None:
        if not self._over:
            self._over = self._closing = True
            if self.waiting is not None and not self.waiting.done():
                self.waiting.set_exception(error or ConnectionResetError(104, "Connection reset by peer"))
            self._protocol.connection_lost(error)

    def _arrived(self, data: bytes) -> None:
        self._unsent -= len(data)
        if not self._peer_gone:
            self.peer.received(data)
        if self._paused and self._unsent <= self._high // 4:
            self._paused = False
            if not self._over:
                self._protocol.resume_writing()

    def _peer_lost(self) -> None:
        if not self._peer_gone:
            self._peer_gone = True
            self.peer.lost()

    # --- the far end ---

    @property
    def hears(self) -> bool:
        """Whether the near end still listens."""
        return not self._closing

    def say(self, data: bytes, after_s: float = 0.0, told: Callable[[bool], None] | None = None) -> None:
        """Sends; `told` hears whether the near end has got it, when it has or has not."""
        self._in.send(lambda: self._heard(data, told), len(data), after_s)

    def hang_up(self, after_s: float = 0.0) -> None:
        """The far end closes behind what it has said."""
        self._peer_gone = True
        self._in.send(self._eof, 0, after_s)

    def reset(self, after_s: float = 0.0) -> None:
        """The far end is gone at once, and with it what it has not read."""
        self._peer_gone = True
        self._in.send(lambda: self._end(ConnectionResetError(104, "Connection reset by peer")), 0, after_s)

    def _heard(self, data: bytes, told: Callable[[bool], None] | None) -> None:
        if told is not None:
            told(not self._closing)
        if self._closing:
            return
        if not isinstance(self._protocol, asyncio.BufferedProtocol):
            self._protocol.data_received(data)
            return
        while data and not self._closing:
            buffer = memoryview(self._protocol.get_buffer(len(data)))
            piece, data = data[: len(buffer)], data[len(buffer) :]
            buffer[: len(piece)] = piece
            self._protocol.buffer_updated(len(piece))

    def _eof(self) -> None:
        if not self._closing and not self._protocol.eof_received():
            self._end(None)
