"""systemd's readiness protocol, sd_notify(3): one datagram to the socket that NOTIFY_SOCKET names."""

import os
import socket
import time


def notify(state: str) -> None:
    """Tells the service manager, if there is one; never fails, since mail matters more."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    if path[0] == "@":  # the abstract namespace
        path = "\0" + path[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sock:
            sock.sendto(state.encode(), path)
    except OSError:
        return


def notify_reloading() -> None:
    """What Type=notify-reload needs: the state with the instant it began."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
