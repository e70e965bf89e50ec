"""One worker process as the supervisor sees it: how it is started, what it has said, and when it died.

A worker is a fork of the supervisor, which has imported everything and has no threads: it accepts a few hundredths of
a second after its predecessor died, where a fresh interpreter needs a third of a second of a whole core for each, and
the pages of the code are shared. What it inherits is cut down at once to the descriptors that it is given. It leaves
by _exit(2) and never returns into the supervisor's code.
"""

import errno
import faulthandler
import os
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fastmta.runtime import crash
from fastmta.runtime.identity import WorkersUser, unreadable_program
from fastmta.runtime.log import get_logger
from fastmta.supervisor.channel import Channel
from fastmta.supervisor.holders import WORKER_NAME

STACK_SIGNAL: Final = signal.SIGUSR2  # a worker writes its Python stack, at once, whatever it is doing
EX_SOFTWARE: Final = 70
EX_CONFIG: Final = 78
KEY_FILE_LIMIT: Final = 1 << 20  # bytes; a key of RSA 16384 takes 13 KB
_HANDLED: Final = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)

Work = Callable[[Channel, list[int]], int]  # a worker's life: its channel, its descriptors; its exit code


class Process:
    """A child, as subprocess.Popen has it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, or minus the signal's number; None while it lives. Reaps it."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send(self, number: int) -> None:
        """Sends a signal, unless the process has been reaped."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)

    def terminate(self) -> None:
        self.send(signal.SIGTERM)


@dataclass(slots=True)
class Worker:
    """A process of one slot. `state` is starting, ready, draining or stopping."""

    slot: int
    generation: int
    range: int
    process: Process
    channel: Channel
    stack_fd: int  # where it writes its stack when asked
    started_at: float
    started_monotonic: float
    state: str = "starting"
    owns: bool = False  # was told to walk its slot's hops
    released: bool = False  # no longer walks them
    kill_at: float = 0.0  # monotonic; 0: not asked to leave
    stuck_at: float = 0.0  # monotonic, when that was seen; 0: its loop turns
    stuck_told: bool = False
    condemned: bool = False  # killed for being stuck
    status: dict[str, Any] | None = None

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def leaving(self) -> bool:
        return self.state in ("draining", "stopping")

    @property
    def serves(self) -> bool:
        """Whether it accepts, as far as we know."""
        return self.state == "ready" and not self.stuck_at


def sealed_copy(path: str) -> int:
    """The bytes of a file that only root may read, as a descriptor that can be given to a worker. OSError, EFBIG for
    more than KEY_FILE_LIMIT bytes.
    """
    fd = os.memfd_create("fastmta-key", os.MFD_CLOEXEC)
    try:
        with open(path, "rb") as file:
            data = file.read(KEY_FILE_LIMIT + 1)
        if len(data) > KEY_FILE_LIMIT:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
        os.write(fd, data)
    except OSError:
        os.close(fd)
        raise
    return fd


def start(
    work: Work,
    fds: list[int],
    *,
    slot: int,
    generation: int,
    range_number: int,
    user: WorkersUser | None,
    first: bool,
) -> Worker:
    """Forks a worker that keeps `fds` alone. Crash points are for the first process of a slot. OSError where the system
    has no room for another process.
    """
    ours, theirs = Channel.pair()
    stack_fd = os.memfd_create("fastmta-stack", os.MFD_CLOEXEC)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    try:
        pid = os.fork()
        if pid == 0:
            _be_worker(work, [theirs.fileno(), stack_fd, *fds], slot, user, before, first=first)
    except BaseException:
        ours.close()
        os.close(stack_fd)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
    return Worker(
        slot,
        generation,
        range_number,
        Process(pid),
        ours,
        stack_fd,
        started_at=time.time(),
        started_monotonic=time.monotonic(),
    )


def _be_worker(
    work: Work, fds: list[int], slot: int, user: WorkersUser | None, mask: set[int | signal.Signals], *, first: bool
) -> None:
    """The whole rest of a forked process. Does not return, and lets no object of the supervisor be finalised."""
    code = EX_SOFTWARE
    try:
        signal.set_wakeup_fd(-1)
        for number in _HANDLED:
            signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        Path("/proc/self/comm").write_text(f"{WORKER_NAME}{slot}")
        channel_fd, stack_fd, *kept = close_others(fds)
        faulthandler.register(STACK_SIGNAL, file=stack_fd, all_threads=True, chain=False)
        os.environ.pop("NOTIFY_SOCKET", None)
        if not first:
            os.environ.pop("FASTMTA_CRASH_AT", None)
            crash.NAME = ""
        allowed = user is None or _become(user)
        code = work(Channel.of(channel_fd), kept) if allowed else EX_CONFIG
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def close_others(fds: list[int]) -> list[int]:
    """Closes all but standard input, output and error and these, which move to the lowest numbers that are free."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    start_at = 3
    for fd in sorted(fds):
        os.closerange(start_at, fd)
        start_at = fd + 1
    os.closerange(start_at, os.sysconf("SC_OPEN_MAX"))
    moved = {}
    for fd in sorted(fds):
        lower = os.dup(fd)
        moved[fd] = min(fd, lower)
        os.close(max(fd, lower))
    return [moved[fd] for fd in fds]


def _become(user: WorkersUser) -> bool:
    """Gives up root for good; False where the user could not read the program, whose parts are loaded when needed."""
    os.setgroups(os.getgrouplist(user.name, user.gid))
    os.setgid(user.gid)
    os.setuid(user.uid)
    for needed in (crash.__file__, os.__file__):
        if not os.access(needed, os.R_OK):
            get_logger().error("config.rejected", error=unreadable_program(user, Path(needed).parent))
            return False
    return True
