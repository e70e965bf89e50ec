"""Watches from outside that no next hop is served by two processes at once: whose are the connections to it?"""

import os
import threading
from pathlib import Path

INTERVAL_S = 0.1
ESTABLISHED = "01"


def connected_inodes(port: int) -> set[str]:
    """The sockets of this machine that are connected to 127.0.0.1:`port`."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return {row[9] for row in rows if row[2] == f"0100007F:{port:04X}" and row[3] == ESTABLISHED}


def owners(port: int) -> set[int]:
    """The processes that hold a connection to `port`."""
    sockets = {f"socket:[{inode}]" for inode in connected_inodes(port)}
    found = set()
    for process in Path("/proc").iterdir() if sockets else ():
        if not process.name.isdigit():
            continue
        try:
            with os.scandir(process / "fd") as entries:
                if any(os.readlink(entry.path) in sockets for entry in entries):
                    found.add(int(process.name))
        except OSError:
            continue  # it has gone, or a descriptor of it has
    return found


class OneOwner:
    """Looks ten times a second while it is entered; `twice` tells of two owners that two looks in a row saw."""

    def __init__(self, port: int) -> None:
        self.twice: list[str] = []
        self.seen: set[int] = set()  # every process that ever served the hop
        self._port = port
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="one-owner")

    def __enter__(self) -> "OneOwner":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        before: set[int] = set()
        while not self._stop.wait(INTERVAL_S):
            now = owners(self._port)
            self.seen |= now
            both = before & now
            if len(both) > 1:
                self.twice.append(f"the hop of port {self._port} was served by processes {sorted(both)} at once")
            before = now
