"""TLS under a session protocol: one shared receive buffer, and STARTTLS on either side of a connection.

A session is a plain protocol that takes `data_received(bytes)`. Under TLS it is wrapped in a `SharedBuffer`, a
BufferedProtocol: the TLS layer then decrypts into one buffer of the process instead of one of each connection's own,
which is most of what an idle TLS session costs.

Invariants: bytes are copied out of the buffer before the session sees them, so no session ever holds a view of it;
nothing decrypted reaches the session before it knows its new transport; the session's `connection_lost` is called
exactly once, also where the handshake fails.

Left to others: dropping what was pipelined behind STARTTLS in plain text, and forgetting what was learnt before it
(RFC 3207 §4.2), both the session's; the contexts are tls/contexts.py.
"""

import asyncio
import ssl
from collections.abc import Callable
from typing import Final, Protocol

from fastmta.tls.sessions import resuming

RECEIVE_BYTES: Final = 65_536  # four TLS records: more only moves bytes that the session must then hold

# Scratch space, not state: filled and emptied within one callback of the loop, of which a process runs one at a time.
_RECEIVE: Final = memoryview(bytearray(RECEIVE_BYTES))


class InnerProtocol(Protocol):
    """What a session protocol offers; asyncio.Protocol has it all."""

    def connection_made(self, transport: asyncio.BaseTransport, /) -> None: ...
    def data_received(self, data: bytes, /) -> None: ...
    def eof_received(self) -> bool | None: ...
    def connection_lost(self, exc: Exception | None, /) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class SharedBuffer(asyncio.BufferedProtocol):
    """Gives an inner session protocol its bytes through the process's one receive buffer.

    For a port with implicit TLS: `loop.create_server(lambda: SharedBuffer(session()), ssl=context, ...)`.
    """

    __slots__ = ("_held", "_lost", "inner")

    def __init__(self, inner: InnerProtocol, *, hold: bool = False) -> None:
        self.inner = inner
        self._held: list[bytes] | None = [] if hold else None
        self._lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.inner.connection_made(transport)

    def get_buffer(self, sizehint: int) -> memoryview:
        return _RECEIVE

    def buffer_updated(self, nbytes: int) -> None:
        data = bytes(_RECEIVE[:nbytes])
        if self._held is not None:
            self._held.append(data)
        else:
            self.inner.data_received(data)

    def release(self) -> None:
        """Hands over what came while the session had no transport yet; from here on bytes go straight through."""
        held, self._held = self._held, None
        for data in held or ():
            if self._lost:
                return
            self.inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self.inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            if self._held is not None:
                self._held.clear()
            self.inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()


async def start_tls(
    loop: asyncio.AbstractEventLoop,
    transport: asyncio.Transport,
    inner: InnerProtocol,
    context: ssl.SSLContext,
    *,
    server_side: bool = True,
    server_hostname: str | None = None,
    session: ssl.SSLSession | None = None,
    timeout_s: float = 30.0,
    adopt: Callable[[asyncio.Transport], None] | None = None,
) -> asyncio.Transport:
    """Runs the handshake on a connected plain transport and gives the TLS transport, which feeds `inner` from then on.

    The caller has written its last plain reply and calls this with reading paused (or in the same callback). The
    first decrypted bytes reach `inner` in a later callback than the one that this returns in, so a caller that awaits
    it directly and stores the transport at once needs no more; one that wraps it in a task passes `adopt`, which is
    given the transport before any byte is. `session`: what a client resumes.

    Raises ssl.SSLError, ConnectionError or TimeoutError, with the connection closed and `inner.connection_lost` called.
    """
    transport.pause_reading()
    shared = SharedBuffer(inner, hold=True)
    try:
        async with asyncio.timeout(timeout_s + 1):
            upgraded = await loop.start_tls(
                transport,
                shared,
                resuming(context, session),
                server_side=server_side,
                server_hostname=server_hostname,
                ssl_handshake_timeout=timeout_s,
            )
        if upgraded is None:
            raise ConnectionResetError("the peer left during the TLS handshake")
    except BaseException as error:
        transport.abort()
        shared.connection_lost(error if isinstance(error, Exception) else None)
        raise
    if adopt is not None:
        adopt(upgraded)
    loop.call_soon(shared.release)
    return upgraded
