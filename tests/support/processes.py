"""Process trees as /proc shows them: who belongs to a server, what it has spent, what memory is its own.

CPU seconds include children that have ended and been waited for, so a server that forks a process a client is charged
for all of them.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

from tests.support.loaded import Loaded

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def _stat_fields(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the command name (which may contain blanks); None if the process has gone."""
    try:
        raw = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return raw[raw.rindex(")") + 2 :].split()


def tree(root: int) -> list[int]:
    """`root` and all its living descendants, parents first; empty if `root` has gone."""
    parents: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            fields = _stat_fields(int(entry.name))
            if fields is not None and fields[0] not in "ZX":
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    if _stat_fields(root) is None:
        return []
    found = [root]
    for pid in found:
        found.extend(parents.get(pid, ()))
    return found


def children(pid: int) -> list[int]:
    """The living direct children of `pid`."""
    out = []
    for candidate in tree(pid)[1:]:
        fields = _stat_fields(candidate)
        if fields is not None and int(fields[1]) == pid:
            out.append(candidate)
    return out


def cpu_seconds(root: int) -> float:
    """User and system seconds of the whole tree since its start, ended children included."""
    total = 0
    for pid in tree(root):
        fields = _stat_fields(pid)
        if fields is not None:
            total += sum(int(field) for field in fields[11:15])
    return total / _TICKS_PER_SECOND


def rss_anon_bytes(pid: int) -> int:
    """Anonymous resident memory of one process: what it cost beyond file pages that the kernel may drop."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/{pid}/status has no RssAnon")


def is_alive(pid: int) -> bool:
    """Whether any thread of the process lives; its first one may be a zombie while another still holds the files."""
    fields = _stat_fields(pid)
    return fields is not None and (fields[0] not in "ZX" or int(fields[17]) > 1)


def wait_gone(pids: list[int], timeout_s: float = 10.0) -> list[int]:
    """Waits for processes to end; returns those that are still alive at the deadline."""
    deadline = time.monotonic() + timeout_s
    left = [pid for pid in pids if is_alive(pid)]
    while left and time.monotonic() < deadline:
        time.sleep(0.01)
        left = [pid for pid in left if is_alive(pid)]
    return left


def stop(process: "subprocess.Popen[bytes] | subprocess.Popen[str] | Loaded", timeout_s: float = 10.0) -> int:
    """Ends a process that we started: TERM, then KILL for it and for what it leaves behind; returns its exit code."""
    family = tree(process.pid)
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            family = tree(process.pid) or family
            process.kill()
            process.wait(timeout_s)
    for pid in wait_gone(family, 2.0):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    return process.returncode
