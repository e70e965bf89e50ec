"""The socket at which every local user may read the queue and have it flushed, as with Postfix's defaults
(authorized_mailq_users and authorized_flush_users are static:anyone).

    list       one JSON object a line for each recipient, in the order of the queue, then {"end": true};
               a JSON object behind the word (Wanted) selects
    flush      what is deferred is tried now; {"end": true} once that has begun

Rows are read some at a time and no further ahead than the socket takes them, so that a million of them cost nobody
anything but time.
"""

import asyncio
import socket
import struct
from collections import Counter
from typing import Final

import msgspec

from fastmta.model.envelope import RecipientState
from fastmta.model.errors import Refused
from fastmta.model.limits import QUEUE_CLIENT_S, QUEUE_CLIENTS, QUEUE_CLIENTS_OF_USER, QUEUE_LISTED_AT_ONCE
from fastmta.pickup.queue_rows import Wanted, row
from fastmta.pickup.seams import Services
from fastmta.pickup.sockets import bind
from fastmta.pickup.spool import QUEUE_SOCKET
from fastmta.runtime.identity import user_name
from fastmta.store.queue import Selection

_END: Final = b'{"end":true}\n'
REQUEST_BYTES: Final = 4096
_REQUEST_S: Final = 5.0
_encode: Final = msgspec.json.Encoder().encode


_decode: Final = msgspec.json.Decoder(Wanted).decode


class QueueSocket:
    """The listener and its clients."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._socket: socket.socket | None = None
        self._clients: set[asyncio.Task[None]] = set()
        self._users: Counter[int] = Counter()
        self._flushing = False

    def reload(self, services: Services) -> None:
        self._services = services

    def open(self, public: int) -> None:
        """Listens in the directory behind the descriptor."""
        self._socket = bind(public, QUEUE_SOCKET, socket.SOCK_STREAM)
        self._socket.listen(QUEUE_CLIENTS)
        self._services.loop.add_reader(self._socket.fileno(), self._accept)

    def close(self) -> None:
        if self._socket is not None:
            self._services.loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None
        for task in self._clients:
            task.cancel()

    def _accept(self) -> None:
        assert self._socket is not None
        try:
            sock, _ = self._socket.accept()
        except OSError:
            return
        sock.setblocking(False)
        _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if len(self._clients) >= QUEUE_CLIENTS or self._users[uid] >= QUEUE_CLIENTS_OF_USER:
            try:
                sock.send(b'{"error":"too many ask for the queue at this moment; try again"}\n')
            except OSError:
                pass
            sock.close()
            return
        self._users[uid] += 1
        task = self._services.tasks.spawn("queue socket", self._serve(sock, uid))
        self._clients.add(task)
        task.add_done_callback(lambda done: self._gone(done, sock, uid))

    def _gone(self, task: asyncio.Task[None], sock: socket.socket, uid: int) -> None:
        self._clients.discard(task)
        self._users[uid] -= 1
        if not self._users[uid]:
            del self._users[uid]
        sock.close()

    async def _serve(self, sock: socket.socket, uid: int) -> None:
        try:
            async with asyncio.timeout(_REQUEST_S):
                request = await self._request(sock)
            if request.startswith(b"list"):
                try:
                    wanted = _decode(request[4:].strip() or b"{}")
                except (ValueError, RecursionError):  # all of msgspec's, and octets that are no UTF-8
                    return
                await self._list(sock, wanted)
            elif request == b"flush\n":
                self._services.log.info("admin.queue.flush", uid=uid, user=user_name(uid))
                if not self._flushing:
                    self._flushing = True
                    self._services.tasks.spawn("queue flush", self._flush())
                await self._send(sock, _END)
        except (OSError, TimeoutError):
            return

    async def _request(self, sock: socket.socket) -> bytes:
        data = b""
        while not data.endswith(b"\n"):
            part = await self._services.loop.sock_recv(sock, REQUEST_BYTES)
            data += part
            if not part or len(data) > REQUEST_BYTES:
                return b""
        return data

    async def _list(self, sock: socket.socket, wanted: Wanted) -> None:
        after = b""
        left = wanted.limit
        selection = wanted.selection()
        suspended = self._services.store.suspensions.by_hop()
        while True:
            page, after = self._services.store.queue.walk(selection, after, min(left, QUEUE_LISTED_AT_ONCE))
            left -= len(page)
            if left <= 0:
                after = b""
            lines = b"".join(_encode(row(message, recipient, suspended)) + b"\n" for message, recipient in page)
            await self._send(sock, lines if after else lines + _END)
            if not after:
                return
            await asyncio.sleep(0)

    async def _send(self, sock: socket.socket, data: bytes) -> None:
        if data:
            async with asyncio.timeout(QUEUE_CLIENT_S):
                await self._services.loop.sock_sendall(sock, data)

    async def _flush(self) -> None:
        queue = self._services.store.queue
        wished_ms = int(self._services.clock.now() * 1000)
        try:
            after = b""
            while True:
                page, after = queue.walk(Selection(RecipientState.DEFERRED), after, QUEUE_LISTED_AT_ONCE)
                numbers = dict.fromkeys(message.queue_id for message, _ in page)
                await asyncio.gather(*(self._flush_one(number, wished_ms) for number in numbers))
                if not after:
                    return
        finally:
            self._flushing = False

    async def _flush_one(self, number: int, wished_ms: int) -> None:
        try:
            await self._services.store.queue.flush(number, due_ms=wished_ms)
        except Refused:
            return  # it has left the queue meanwhile
