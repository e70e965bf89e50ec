"""TLS of a simulation: who shakes hands, how that ends, and what a connection has of it; no octet is encrypted.

A server says "" (well), "fails", "drops" or "stalls"; a client that names a session of before is told whether it is
known. What stands in place of the library's object has the little that delivery looks at where it verifies nothing.
"""

import asyncio
import ssl
from typing import Any, Final

_VERSION: Final = "TLSv1.3"
_CIPHER: Final = ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256)


class Ticket:
    """A session that a server has given out."""

    has_ticket = True
    id = b""


class Secured:
    """What `ssl_object` is of a link over TLS."""

    def __init__(self, context: Any, resumed: Ticket | None) -> None:
        self.context = context
        self.session_reused = resumed is not None
        self.session = Ticket()

    def version(self) -> str:
        return _VERSION

    def cipher(self) -> tuple[str, str, int]:
        return _CIPHER

    def getpeercert(self) -> dict[str, Any]:
        return {}


async def shake(link: Any, protocol: Any, context: Any, round_trip_s: float) -> Any:
    """A loop's start_tls for the near end of a link; gives the transport, which is the same one."""
    link.set_protocol(protocol)
    offered = getattr(context, "_session", None)  # of tls/sessions.Resuming
    await asyncio.sleep(round_trip_s)
    ended, knows = link.peer.shakes(offered)
    if ended == "stalls":
        link.waiting = asyncio.get_running_loop().create_future()  # for the end: who asked has a timer
        await link.waiting
    if link.is_closing() or ended == "drops":
        raise ConnectionResetError(104, "Connection reset by peer")
    if ended:
        raise ssl.SSLError(1, "[SSL: SSLV3_ALERT_HANDSHAKE_FAILURE] handshake failure")
    link.secured = Secured(getattr(context, "_context", context), offered if knows else None)
    return link
