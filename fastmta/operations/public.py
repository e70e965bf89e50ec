"""The socket at which every local user may read the queue and have it flushed, as with Postfix's defaults
(authorized_mailq_users and authorized_flush_users are static:anyone).

It takes requests as the control socket does, for those acts that are everybody's (acts.Who): the worker that holds the
spool's lock listens. Clients are few, of one user fewer; what is read for one is no further ahead than he takes it.
"""

import asyncio
import socket
import struct
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import msgspec

from fastmta.model.events import Actor
from fastmta.model.limits import PUBLIC_CLIENTS, PUBLIC_CLIENTS_OF_USER, PUBLIC_REQUEST_BYTES, PUBLIC_REQUEST_S
from fastmta.operations.serving import refusal
from fastmta.pickup.sockets import bind
from fastmta.pickup.spool import QUEUE_SOCKET
from fastmta.runtime.identity import user_name

if TYPE_CHECKING:
    from fastmta.operations.serving import Services, Serving


class Wanted(msgspec.Struct):
    """A request; what it has besides is not looked at."""

    act: str
    request: dict[str, Any] = {}


_decode: Final = msgspec.json.Decoder(Wanted).decode


class PublicSocket:
    """The listener and its clients."""

    def __init__(self, services: "Services", acts: "Serving") -> None:
        self._services = services
        self._acts = acts
        self._socket: socket.socket | None = None
        self._users: Counter[int] = Counter()

    def open(self, public: int) -> None:
        """Listens in the directory behind the descriptor."""
        self._socket = bind(public, QUEUE_SOCKET, socket.SOCK_STREAM)
        self._socket.listen(PUBLIC_CLIENTS)
        asyncio.get_running_loop().add_reader(self._socket.fileno(), self._accept)

    def close(self) -> None:
        """Takes nobody any more; what was asked for before goes on."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _accept(self) -> None:
        assert self._socket is not None
        try:
            sock, _ = self._socket.accept()
        except OSError:
            return
        sock.setblocking(False)
        _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if self._users.total() >= PUBLIC_CLIENTS or self._users[uid] >= PUBLIC_CLIENTS_OF_USER:
            full = refusal("too many ask for the queue at this moment; try again", "busy")
            try:
                sock.send(msgspec.json.encode(full) + b"\n")
            except OSError:
                pass
            sock.close()
            return
        self._users[uid] += 1
        task = self._services.tasks.spawn("public socket", self._serve(sock, uid))
        task.add_done_callback(lambda _: self._gone(sock, uid))

    def _gone(self, sock: socket.socket, uid: int) -> None:
        self._users[uid] -= 1
        if not self._users[uid]:
            del self._users[uid]
        sock.close()

    async def _serve(self, sock: socket.socket, uid: int) -> None:
        try:
            async with asyncio.timeout(PUBLIC_REQUEST_S):
                wanted = _decode(await self._line(sock))
        except (OSError, ValueError, RecursionError):  # TimeoutError; all of msgspec's, and octets that are no UTF-8
            return
        actor = Actor(uid, await asyncio.to_thread(user_name, uid))
        await self._acts.serve(sock, actor, wanted.act, wanted.request, "everybody")

    async def _line(self, sock: socket.socket) -> bytes:
        """A request, or b"" for what is none."""
        data = b""
        while not data.endswith(b"\n"):
            part = await asyncio.get_running_loop().sock_recv(sock, PUBLIC_REQUEST_BYTES)
            data += part
            if not part or len(data) > PUBLIC_REQUEST_BYTES:
                return b""
        return data
