"""Commands that run as other users: what a worker asks of the launcher (supervisor/launcher.py), and what it hears.

A worker has given up root, so it cannot start a command as somebody else. It sends the launcher the name of a
[pipe.NAME] and the values of its macros, never arguments, with two descriptors: the whole mail, which becomes the
command's standard input, and a pipe on which its end is told. Whoever closes that pipe ends the command.
"""

import asyncio
import os
import socket
from typing import Final

import msgspec

from fastmta.model.limits import PIPE_COMMANDS, PIPE_OUTPUT_BYTES, PIPE_REQUEST_BYTES, PIPE_START_S

_TRY_AGAIN_S: Final = 0.02  # where the launcher has not taken earlier requests yet
_ENDED_BYTES: Final = 2 * PIPE_OUTPUT_BYTES + 4096


class Request(msgspec.Struct, array_like=True, frozen=True):
    """One command to start: the table's name, the macros of the message, and those of each recipient."""

    pipe: str
    common: dict[str, str]
    recipients: list[dict[str, str]]


class Ended(msgspec.Struct, array_like=True, frozen=True):
    """How it ended: `status` is the exit code, or minus a signal's number; `late`: it was killed for its time limit.
    Or `unsafe`, the argument that must not be given to a command; or `error`, why it was not started.
    """

    status: int = 0
    late: bool = False
    output: bytes = b""  # the beginning of what it said
    unsafe: str = ""
    error: str = ""


class Launcher:
    """A worker's way to the launcher. `run` may be called side by side; cancelling it ends the command."""

    def __init__(self, fd: int) -> None:
        """`fd`: our end of the launcher's socket, which becomes ours."""
        self._socket = socket.socket(fileno=fd)
        self._socket.setblocking(False)
        self._places = asyncio.Semaphore(PIPE_COMMANDS)

    async def run(self, request: Request, mail_fd: int) -> Ended:
        """Runs a command on the mail in a file, from its beginning."""
        raw = msgspec.msgpack.encode(request)
        if len(raw) > PIPE_REQUEST_BYTES:
            return Ended(error=f"its arguments are larger than {PIPE_REQUEST_BYTES} bytes")
        async with self._places:
            end_read, end_write = os.pipe2(os.O_CLOEXEC)
            try:
                os.lseek(mail_fd, 0, os.SEEK_SET)
                await self._send(raw, [mail_fd, end_write])
                os.close(end_write)
                end_write = -1
                told = await _read_all(end_read)
            except TimeoutError:
                return Ended(error="the launcher does not answer")
            finally:
                os.close(end_read)
                if end_write >= 0:
                    os.close(end_write)
            return msgspec.msgpack.decode(told, type=Ended) if told else Ended(error="the launcher has ended")

    async def _send(self, raw: bytes, fds: list[int]) -> None:
        async with asyncio.timeout(PIPE_START_S):
            while True:
                try:
                    socket.send_fds(self._socket, [raw], fds)
                    return
                except BlockingIOError:
                    await asyncio.sleep(_TRY_AGAIN_S)

    def close(self) -> None:
        self._socket.close()


async def _read_all(fd: int) -> bytes:
    """What comes until the other side closes."""
    os.set_blocking(fd, False)
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(fd, ready.set)
    told = b""
    try:
        while len(told) < _ENDED_BYTES:
            await ready.wait()
            ready.clear()
            piece = os.read(fd, _ENDED_BYTES)
            if not piece:
                break
            told += piece
    finally:
        loop.remove_reader(fd)
    return told
