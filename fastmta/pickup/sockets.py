"""Sockets that every local user may talk to."""

import os
import socket


def bind(public: int, name: str, kind: socket.SocketKind) -> socket.socket:
    """A socket for every local user in the directory behind a descriptor; replaces what was left there."""
    sock = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK)
    try:
        try:
            os.unlink(name, dir_fd=public)
        except FileNotFoundError:
            pass
        sock.bind(f"/proc/self/fd/{public}/{name}")
        os.chmod(name, 0o666, dir_fd=public)
    except BaseException:
        sock.close()
        raise
    return sock
