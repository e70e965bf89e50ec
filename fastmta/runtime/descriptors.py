"""Whether the limit of open files is enough for a configuration; what runs out later only makes accepting pause."""

import os
import resource
from typing import Final, Protocol

from fastmta.config.tables import Listen
from fastmta.model.services import NAMES

WORKER: Final = 30  # store, loop, log, locks, bus, spool: what a worker has open beside its listeners, and a few more
SUPERVISOR: Final = 24
LISTENER: Final = 2  # descriptors of each in a worker: the inherited one and the loop's
SLOT: Final = 4  # of each worker in the supervisor, another generation's too
SESSIONS: Final = 16  # free ones that a worker needs to be of use: half are for sessions, half for deliveries


class DescriptorConfig(Protocol):
    """What of the configuration costs descriptors."""

    @property
    def workers(self) -> int: ...
    @property
    def listen(self) -> Listen: ...


def needed(config: DescriptorConfig) -> int:
    """The least limit with which the supervisor and each worker can do their work."""
    workers = config.workers or len(os.sched_getaffinity(0))
    listeners = sum(len(config.listen.of(service)) for service in NAMES)
    a_worker = WORKER + workers - 1 + LISTENER * listeners + SESSIONS
    return max(a_worker, SUPERVISOR + workers * (listeners + SLOT))


def problem(config: DescriptorConfig) -> str:
    """Why a server cannot be started under the hard limit of this process, in one line; "" where it can."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    least = needed(config)
    if hard == resource.RLIM_INFINITY or hard >= least:
        return ""
    return (
        f"the limit of open files is {hard}, and this configuration needs at least {least}: raise it (ulimit -n, "
        "LimitNOFILE= in a unit), or set fewer workers or listeners"
    )
