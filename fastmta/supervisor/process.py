"""One worker process as the supervisor sees it: how it is started, what it has said, and when it died."""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fastmta.runtime.identity import WorkersUser
from fastmta.supervisor.channel import Channel

PACKAGE_ROOT: Final = Path(__file__).absolute().parents[2]


@dataclass(slots=True)
class Worker:
    """A process of one slot. `state` is starting, ready, draining or stopping."""

    slot: int
    generation: int
    range: int
    process: subprocess.Popen[bytes]
    channel: Channel
    started_at: float
    state: str = "starting"
    released: bool = False  # no longer walks its slot's hops
    kill_at: float = 0.0  # monotonic; 0: not asked to leave
    status: dict[str, Any] | None = None

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def leaving(self) -> bool:
        return self.state in ("draining", "stopping")


def _becoming(user: WorkersUser | None) -> dict[str, Any]:
    """The arguments of Popen that change the user; None: it stays who we are."""
    if user is None:
        return {}
    return {"user": user.uid, "group": user.gid, "extra_groups": os.getgrouplist(user.name, user.gid)}


def sealed_copy(path: str) -> int:
    """The bytes of a file that only root may read, as a descriptor that can be given to a worker."""
    fd = os.memfd_create("fastmta-key", os.MFD_CLOEXEC)
    try:
        data = Path(path).read_bytes()
        os.write(fd, data)
    except OSError:
        os.close(fd)
        raise
    return fd


def spawn(
    command: list[str], slot: int, generation: int, range_number: int, user: WorkersUser | None, *, first: bool
) -> Worker:
    """Starts a worker that has nothing yet but its end of the channel. Crash points are for first processes."""
    ours, theirs = Channel.pair()
    environment = {k: v for k, v in os.environ.items() if k != "NOTIFY_SOCKET" and (first or k != "FASTMTA_CRASH_AT")}
    if PACKAGE_ROOT.name not in ("site-packages", "dist-packages"):  # a checkout: -P leaves out where we were started
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(PACKAGE_ROOT), environment.get("PYTHONPATH"))))
    try:
        process = subprocess.Popen(
            [*command, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            env=environment,
            **_becoming(user),
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return Worker(slot, generation, range_number, process, ours, time.time())
