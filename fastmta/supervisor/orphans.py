"""Workers that outlive their supervisor: a moment after its death they have closed their listeners, unless stuck.

They are found by the marks that workers hold locked (store/marks.py) and the kernel's list of locks, so that neither a
number in a file nor a name is trusted; and only processes of the workers' own user are ever ended.
"""

import os
import signal
from pathlib import Path

from fastmta.runtime.identity import WorkersUser, acting_as_workers
from fastmta.store.marks import FOLDER


def orphans(directory: Path, user: WorkersUser | None) -> list[int]:
    """The processes that run on a data directory whose server lock we hold: none of them is a living server's."""
    marks = set()
    with acting_as_workers(user):
        try:
            for entry in os.scandir(directory / FOLDER):
                found = entry.stat(follow_symlinks=False)
                marks.add((f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}", found.st_ino))
        except OSError:
            return []
    out = []
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if "FLOCK" in fields and "->" not in fields:
            pid, (device, _, inode) = int(fields[4]), fields[5].rpartition(":")
            if (device, int(inode)) in marks and _user_of(pid) == (os.geteuid() if user is None else user.uid):
                out.append(pid)
    return out


def end(pids: list[int]) -> None:
    """Kills them: the store needs no goodbye."""
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _user_of(pid: int) -> int:
    """The real user of a process; -1 where it has gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return -1
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("Uid:")), -1)
