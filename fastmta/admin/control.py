"""The client of the control socket: how commands talk to a server that is up.

A request and its answer are one line of JSON each, {"do": "status"} and {"ok": true, ...} or {"ok": false, "error":
"..."}; an act (operations/serving.py) gives lines of rows and of progress before. The server checks who asks by the
kernel's word (SO_PEERCRED): root, or whoever runs it.
"""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final, Protocol

from fastmta.model.errors import FastMTAError, NotPermitted, NotRunning

if TYPE_CHECKING:
    import socket

__all__ = [
    "ANSWER_BYTES",
    "REQUEST_BYTES",
    "SOCKET_NAME",
    "ControlConfig",
    "NoAnswer",
    "NotRunning",
    "answers",
    "exchanged",
    "request",
]

SOCKET_NAME: Final = "control.sock"
ANSWER_BYTES: Final = 1 << 22
REQUEST_BYTES: Final = 1 << 16


class ControlConfig(Protocol):
    """What of the configuration says where the server is."""

    @property
    def data_directory(self) -> str: ...


class NoAnswer(FastMTAError):
    """The server ended, or a part of it, before it had answered."""


def request(config: ControlConfig, command: dict[str, Any], *, timeout_s: float = 60.0) -> dict[str, Any]:
    """Sends one command and returns its answer. Blocks up to `timeout_s`.

    NotRunning where no server listens; FastMTAError where it refuses us or its answer makes no sense.
    """
    return [*answers(config, command, timeout_s=timeout_s)][-1]


def answers(config: ControlConfig, command: dict[str, Any], *, timeout_s: float = 60.0) -> Iterator[dict[str, Any]]:
    """The same for a command that is answered by several lines; the last of them has "ok". Blocks up to `timeout_s` for
    each.
    """
    directory = config.data_directory
    try:
        directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    except OSError as error:
        raise NotRunning(f"{directory}: {error.strerror}") from None
    try:
        require_listener(SOCKET_NAME, directory_fd, directory)
        import socket

        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout_s)
            try:  # through the descriptor, because a socket's path has at most 107 bytes
                sock.connect(f"/proc/self/fd/{directory_fd}/{SOCKET_NAME}")
            except (FileNotFoundError, ConnectionRefusedError):
                raise NotRunning(_nobody(directory)) from None
            except PermissionError:
                raise NotPermitted(f"not allowed to talk to the server on {directory}; try as root") from None
            except OSError as error:
                raise FastMTAError(f"talking to the server failed: {error.strerror or error}") from None
            yield from exchanged(sock, command)
            return
    finally:
        os.close(directory_fd)


def exchanged(sock: "socket.socket", command: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The lines of the answer to a command, at a socket that is connected; the last of them has "ok"."""
    import json

    try:
        try:
            sock.sendall(json.dumps(command).encode() + b"\n")
        except BrokenPipeError:
            pass  # a server that is full has answered and hung up already
        with sock.makefile("rb") as lines:
            while line := lines.readline(ANSWER_BYTES):
                answer = json.loads(line)
                yield answer
                if "ok" in answer:
                    return
    except TimeoutError:
        raise FastMTAError(f"the server did not answer within {sock.gettimeout():g} s") from None
    except OSError as error:
        raise FastMTAError(f"talking to the server failed: {error.strerror or error}") from error
    except ValueError:
        raise FastMTAError("the server's answer makes no sense") from None
    raise NoAnswer("the server closed the connection without an answer")


def require_listener(name: str, directory_fd: int, directory: str) -> None:
    """NotRunning where there is no socket of that name: before anything is loaded that only a connection needs."""
    try:
        os.stat(name, dir_fd=directory_fd)
    except FileNotFoundError:
        raise NotRunning(_nobody(directory)) from None
    except OSError:
        return  # what is wrong with it is said by whoever connects


def _nobody(directory: str) -> str:
    return f"no server is running on {directory}"
