"""What delivers, built for one question where no worker is at hand: router, directory, policy and delivery as a worker
has them, with nothing started.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastmta.config.schema import Config
from fastmta.delivery.routing import Router
from fastmta.delivery.service import DeliveryService
from fastmta.directory.recipients import Directory
from fastmta.dns.resolver import Resolver
from fastmta.operations.explaining import Delivering
from fastmta.runtime.clock import Clock, SystemClock
from fastmta.runtime.log import Log
from fastmta.runtime.metrics import Cells, local_cells
from fastmta.runtime.owned import acting_as_owner
from fastmta.runtime.tasks import Sweep, Tasks
from fastmta.runtime.turns import Turns
from fastmta.tls.contexts import Contexts

if TYPE_CHECKING:
    from fastmta.store import MailStore


@dataclass(slots=True)
class Parts:
    """supervisor.services.Services, as far as it takes to explain."""

    config: Config
    store: "MailStore"
    loop: asyncio.AbstractEventLoop
    log: Log
    router: Router
    directory: Directory
    contexts: Contexts
    resolver: Resolver
    tasks: Tasks
    sweep: Sweep
    turns: Turns
    clock: Clock = field(default_factory=SystemClock)
    cells: Cells = field(default_factory=local_cells)
    slot: int = 0
    slots: int = 1
    launcher: Any = None  # nothing is started
    site_policy: Any = None
    verifier: Any = None

    @classmethod
    def of(cls, config: Config, store: "MailStore", log: Log) -> "Parts":
        router = Router(config)
        loop = asyncio.get_running_loop()
        return cls(
            config,
            store,
            loop,
            log,
            router,
            Directory(config, store, router),
            Contexts(config.tls),
            Resolver(config.dns.nameservers, monotonic=time.monotonic),
            Tasks(log),
            Sweep(loop),
            Turns(loop),
        )

    async def offload(self, operation: Callable[..., Any], *arguments: Any) -> Any:
        return operation(*arguments)

    async def close(self) -> None:
        await self.tasks.close()
        self.sweep.close()
        await self.resolver.close()


@asynccontextmanager
async def delivering(config: Config, store: "MailStore") -> AsyncIterator[Delivering]:
    """The parts, and a delivery service that never starts; a TLS policy that is fetched is the server's to keep."""
    parts = Parts.of(config, store, Log(level="error"))
    service = DeliveryService(parts)
    try:
        with acting_as_owner(Path(config.data_directory)):
            yield Delivering(parts, service)
    finally:
        await service.stop(0.0)
        await parts.close()
