"""Free loopback ports for servers that must be told their port before they start.

Ports come from below the kernel's range for outgoing connections, so that no client socket of a parallel test takes one
between the choice and the server's bind; two test processes begin their search at different places.
"""

import os
import socket
import time
from collections.abc import Iterator

FIRST_PORT = 15_000
LAST_PORT = 32_000


def _candidates() -> Iterator[int]:
    span = LAST_PORT - FIRST_PORT
    start = (os.getpid() * 7_919 + time.monotonic_ns()) % span
    for step in range(span):
        yield FIRST_PORT + (start + step * 13) % span


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """`count` different TCP ports on which nobody listens on `host`."""
    held: list[socket.socket] = []
    try:
        for port in _candidates():
            probe = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            try:
                probe.bind((host, port))
            except OSError:
                probe.close()
                continue
            held.append(probe)
            if len(held) == count:
                return [kept.getsockname()[1] for kept in held]
        raise RuntimeError(f"no {count} free ports on {host}")
    finally:
        for kept in held:
            kept.close()


def free_port(host: str = "127.0.0.1") -> int:
    return free_ports(1, host)[0]


def wait_until_listening(host: str, port: int, timeout_s: float = 20.0) -> None:
    """Returns when a TCP connection to `host`:`port` succeeds; TimeoutError otherwise."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection((host, port), timeout=1.0).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise TimeoutError(f"nothing listens on {host}:{port} after {timeout_s} s") from None
            time.sleep(0.02)
