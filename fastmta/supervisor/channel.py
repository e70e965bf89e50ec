"""The wire between the supervisor and one worker: small JSON messages, with descriptors where needed, over
SOCK_SEQPACKET.

From the supervisor: `own`, `reload`, `drain`, `stop`, `adopt`, `unadopt`, `status`, `withdraw`, `hops`,
`sessions`, `flush_trace`, `act`, `answered`. From the worker: `ready`, `reloaded`, `released`, `status`, `answer`,
`ask`, `store_failed`, `store_unreadable`. End of file tells each that the other has died.
"""

import socket
from typing import Any, Final

import msgspec

MESSAGE_BYTES: Final = (1 << 16) + 4096  # a request of the control socket, and who asks
MESSAGE_FDS: Final = 250  # the kernel's own bound is 253


class Channel:
    """One end. Non-blocking on the supervisor's side and on a worker's loop; a message is whole or not there."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock

    @classmethod
    def pair(cls) -> tuple["Channel", "Channel"]:
        """The supervisor's end, non-blocking, and the worker's."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        return cls(ours), cls(theirs)

    @classmethod
    def of(cls, fd: int) -> "Channel":
        """The worker's end, by its inherited descriptor."""
        sock = socket.socket(fileno=fd)
        sock.set_inheritable(False)
        return cls(sock)

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, do: str, fds: list[int] | None = None, **fields: Any) -> bool:
        """Sends one message; False where the other end has gone or has stopped reading."""
        data = msgspec.json.encode({"do": do, **fields})
        try:
            if fds:
                socket.send_fds(self.socket, [data], fds)
            else:
                self.socket.send(data)
        except OSError:
            return False
        return True

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """One message and its descriptors; None at the end of file. BlockingIOError where nothing waits."""
        try:
            data, fds, _, _ = socket.recv_fds(self.socket, MESSAGE_BYTES, MESSAGE_FDS)
        except ConnectionError:
            return None
        if not data:
            return None
        message: dict[str, Any] = msgspec.json.decode(data)
        return message, fds

    def close(self) -> None:
        self.socket.close()
