"""The server's end of the control socket, in the supervisor's own poll: bounded, and closed to everybody else."""

import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from selectors import EVENT_READ, BaseSelector
from typing import Any, Final

import msgspec

from fastmta.admin.control import REQUEST_BYTES, SOCKET_NAME
from fastmta.runtime.identity import user_name

CLIENTS: Final = 32
CLIENT_S: Final = 30.0  # to send a request


class Client:
    """One connection: reads a line, and is answered once, now or later."""

    def __init__(self, sock: socket.socket, deadline: float, uid: int) -> None:
        self.socket = sock
        self.deadline = deadline
        self.data = bytearray()
        self.answered = False
        self.uid = uid  # the kernel's word

    @property
    def who(self) -> dict[str, Any]:
        """Who asks, as the log has it."""
        return {"uid": self.uid, "user": user_name(self.uid)}

    def release(self) -> int:
        """The descriptor, for somebody else to answer; it is the caller's to close."""
        self.answered = True
        self.socket.setblocking(False)
        return self.socket.detach()

    def answer(self, **fields: Any) -> None:
        """Sends the answer and hangs up; an answer fits the socket's buffer or the asker has gone."""
        self.answered = True
        try:
            self.socket.settimeout(1.0)
            self.socket.sendall(msgspec.json.encode(fields) + b"\n")
        except OSError:
            pass  # whoever asked did not wait
        self.socket.close()


class ControlSocket:
    """Listens in the data directory; `handle` gets each request with the client to answer."""

    def __init__(
        self, directory: Path, selector: BaseSelector, handle: Callable[[Client, dict[str, Any]], None]
    ) -> None:
        self._path = directory / SOCKET_NAME
        self._selector = selector
        self._handle = handle
        self._clients: set[Client] = set()
        self._path.unlink(missing_ok=True)
        directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        before = os.umask(0o177)  # and no chmod by a path that may lead elsewhere by then
        try:
            self._socket.bind(f"/proc/self/fd/{directory_fd}/{SOCKET_NAME}")
        finally:
            os.umask(before)
            os.close(directory_fd)
        self._socket.listen(16)
        selector.register(self._socket, EVENT_READ, self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._socket.accept()
        except OSError:
            return
        _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        sock.setblocking(False)
        client = Client(sock, time.monotonic() + CLIENT_S, uid)
        if uid not in (0, os.geteuid()):
            client.answer(ok=False, error="only root and the server's own user may ask this")
        elif len(self._clients) >= CLIENTS:
            client.answer(ok=False, error="too many control connections")
        else:
            self._clients.add(client)
            self._selector.register(sock, EVENT_READ, lambda: self._read(client))

    def _read(self, client: Client) -> None:
        try:
            part = client.socket.recv(REQUEST_BYTES)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        client.data += part
        if not part or len(client.data) > REQUEST_BYTES:
            self._drop(client)
        elif client.data.endswith(b"\n"):
            self._forget(client)
            try:
                request = msgspec.json.decode(client.data, type=dict[str, Any])
            except (ValueError, RecursionError):  # all of msgspec's, octets that are no UTF-8, and a tower of brackets
                client.answer(ok=False, error="a request is one JSON object on a line")
                return
            self._handle(client, request)

    def _forget(self, client: Client) -> None:
        if client in self._clients:
            self._clients.discard(client)
            self._selector.unregister(client.socket)

    def _drop(self, client: Client) -> None:
        self._forget(client)
        client.socket.close()

    def expire(self, now: float) -> None:
        """Hangs up on those that connected and said nothing."""
        for client in [client for client in self._clients if client.deadline <= now]:
            self._drop(client)

    def close(self) -> None:
        for client in list(self._clients):
            self._drop(client)
        self._selector.unregister(self._socket)
        self._socket.close()
        self._path.unlink(missing_ok=True)
