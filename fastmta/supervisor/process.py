"""One worker process as the supervisor sees it: how it is started, what it has said, and when it died."""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fastmta.runtime.identity import UserSettings, workers_user
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


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom the workers run as; no name means as whoever started the supervisor."""

    name: str = ""
    uid: int = -1
    gid: int = -1

    def popen(self) -> dict[str, Any]:
        """The arguments of Popen that change the user."""
        if not self.name:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": os.getgrouplist(self.name, self.gid)}

    def give(self, directory: Path) -> None:
        """Makes the data directory and what lies in it this user's; links are not followed."""
        if not self.name:
            return
        for base, _, files in os.walk(directory):
            for path in (base, *(os.path.join(base, name) for name in files)):
                if os.lstat(path).st_uid != self.uid:
                    os.chown(path, self.uid, self.gid, follow_symlinks=False)


def identity(config: UserSettings) -> Identity:
    """Whom workers become, by the one rule of runtime/identity.py; ConfigError where they would be root unasked."""
    found = workers_user(config)
    return Identity() if found is None else Identity(*found)


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


def spawn(command: list[str], slot: int, generation: int, range_number: int, who: Identity, *, first: bool) -> Worker:
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
            **who.popen(),
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return Worker(slot, generation, range_number, process, ours, time.time())
