"""Who has an address that we want: read from /proc, for one line that an administrator can act on.

What other users' processes have open is shown to root alone; then the line names the user instead of the process.
"""

import os
import pwd
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

LISTEN: Final = "0A"  # as /proc/net/tcp has the state
PROGRAM: Final = b"fastmta"
WORKER_NAME: Final = "fastmta-w"  # of a worker's process, with its slot behind it


def listening(family: int, host: str, port: int) -> dict[int, int]:
    """The sockets that listen on this port at this address or at all of them: inode to the user's number."""
    if family == socket.AF_INET6:
        return _listed("/proc/net/tcp6", socket.AF_INET6, host.partition("%")[0], port)
    found = _listed("/proc/net/tcp", socket.AF_INET, host, port)
    return found or _listed("/proc/net/tcp6", socket.AF_INET6, f"::ffff:{host}", port)  # one for both families


def _listed(table: str, family: int, host: str, port: int) -> dict[int, int]:
    wanted = _hex_address(family, host)
    anywhere = "0" * len(wanted)
    found = {}
    try:
        lines = Path(table).read_text().splitlines()[1:]
    except OSError:
        return {}
    for line in lines:
        fields = line.split()
        address, _, its_port = fields[1].rpartition(":")
        ours = host in ("0.0.0.0", "::", "::ffff:0.0.0.0") or address in (wanted, anywhere)
        if fields[3] == LISTEN and int(its_port, 16) == port and ours:
            found[int(fields[9])] = int(fields[7])
    return found


def _hex_address(family: int, host: str) -> str:
    raw = socket.inet_pton(family, host)
    return "".join(f"{word:08X}" for word in struct.unpack(f"={len(raw) // 4}I", raw))


def processes_of(inodes: set[int]) -> set[int]:
    """The processes that have one of these sockets open, as far as we may see."""
    links = {f"socket:[{inode}]" for inode in inodes}
    return {pid for pid in _processes() if not links.isdisjoint(_open_files(pid))}


def _processes() -> Iterator[int]:
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            yield int(entry)


def _open_files(pid: int) -> Iterator[str]:
    try:
        for entry in os.listdir(f"/proc/{pid}/fd"):
            yield os.readlink(f"/proc/{pid}/fd/{entry}")
    except OSError:  # another user's, or gone
        return


def parent_of(pid: int) -> int:
    """The parent of a process; 0 where that has gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def eldest(pids: set[int]) -> int:
    """Of some processes the one that started the others: a server's supervisor."""
    return min(pids, key=lambda pid: (parent_of(pid) in pids, pid))


def server_of(pid: int) -> int:
    """The supervisor of a worker of ours; any other process is its own."""
    return parent_of(pid) or pid if _name(pid).startswith(WORKER_NAME) else pid


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def described(pid: int) -> str:
    """A process as a message names it: "fastmta pid 17", "smtpd pid 18"."""
    if PROGRAM in _command_line(pid):
        return f"fastmta pid {pid}"
    return f"{_name(pid)} pid {pid}".lstrip()


def user_described(uid: int) -> str:
    """For a process that we may not see."""
    try:
        return f"a process of user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"a process of user {uid}"
