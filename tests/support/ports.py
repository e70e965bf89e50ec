"""Free loopback ports for servers that must be told their port before they start.

Ports come from below the kernel's range for outgoing connections, so that no client socket of a parallel test takes one
between the choice and the server's bind. All test processes of a user draw from one counter, so a port that was given
and is not yet listened on, or not at the moment, is given to nobody else before all the others have been.
"""

import fcntl
import os
import socket
import tempfile
import time

FIRST_PORT = 15_000
LAST_PORT = 32_000
COUNTER = os.path.join(tempfile.gettempdir(), f"fastmta-test-ports-{os.getuid()}")


def _is_free(port: int, host: str) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """`count` different TCP ports on which nobody listens on `host`, and which no other test was given of late."""
    span = LAST_PORT - FIRST_PORT
    found: list[int] = []
    counter = os.open(COUNTER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(counter, fcntl.LOCK_EX)
        given = int(os.pread(counter, 20, 0) or b"0")
        for _ in range(span):
            port, given = FIRST_PORT + given % span, given + 1
            if _is_free(port, host):
                found.append(port)
                if len(found) == count:
                    os.pwrite(counter, b"%020d" % given, 0)
                    return found
        raise RuntimeError(f"no {count} free ports on {host}")
    finally:
        os.close(counter)


def free_port(host: str = "127.0.0.1") -> int:
    return free_ports(1, host)[0]


def own_address() -> str:
    """A loopback address that is this process's among all that run now: for a resolver, whose port is always 53."""
    pid = os.getpid()
    return f"127.{64 + (pid >> 16 & 63)}.{pid >> 8 & 255}.{pid & 255}"


def wait_until_listening(host: str, port: int, timeout_s: float = 60.0) -> None:
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
