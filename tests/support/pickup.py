"""One pass of the pickup over a data directory, as a running worker makes it, and nothing else of a server."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastmta.config.load import load
from fastmta.config.schema import Config
from fastmta.delivery.routing import Router
from fastmta.directory.recipients import Directory
from fastmta.dns.resolver import Resolver
from fastmta.pickup.service import Pickup
from fastmta.runtime.clock import SystemClock
from fastmta.runtime.log import Log
from fastmta.runtime.metrics import Cells, local_cells
from fastmta.runtime.tasks import Tasks
from fastmta.runtime.turns import Turns
from fastmta.store import MailStore


class ListLog(Log):
    """Keeps its events."""

    def __init__(self) -> None:
        super().__init__(fd=-1)
        self.events: list[tuple[str, str, dict[str, Any]]] = []

    def event(self, event: str, /, level: str = "info", **fields: Any) -> None:
        self.events.append((level, event, fields))

    def flush(self) -> None:
        for each in self.gathered.take().splitlines():
            fields = json.loads(each)
            self.events.append((fields.pop("level"), fields.pop("event"), fields))

    def named(self, event: str) -> list[dict[str, Any]]:
        return [fields for _, name, fields in self.events if name == event]


@dataclass
class Services:
    config: Config
    store: MailStore
    directory: Directory
    loop: asyncio.AbstractEventLoop
    log: ListLog = field(default_factory=ListLog)
    cells: Cells = field(default_factory=local_cells)
    clock: SystemClock = field(default_factory=SystemClock)
    has_room: bool = True

    def __post_init__(self) -> None:
        self.tasks = Tasks(self.log)

        self.resolver = Resolver((), monotonic=time.monotonic)
        self.turns = Turns(self.loop)

    def storage_ok(self) -> bool:
        return self.has_room

    async def offload(self, operation: Callable[..., Any], *arguments: Any) -> Any:
        return await self.loop.run_in_executor(None, operation, *arguments)


async def open_services(config: Config) -> Services:
    """The services over the store of a configuration; `close_services` when done."""
    store = MailStore.open(Path(config.data_directory))
    store.attach(asyncio.get_running_loop())
    return Services(config, store, Directory(config, store, Router(config)), asyncio.get_running_loop())


async def close_services(services: Services) -> None:
    await services.tasks.close()
    await services.resolver.close()
    services.store.detach()
    services.store.close()


async def settled(pickup: Pickup) -> None:
    """Returns when the spool has been looked through."""
    while pickup._running is not None:
        await asyncio.wait([pickup._running])
        await asyncio.sleep(0)


def pick_up(config_path: Path) -> ListLog:
    """Takes what lies in the spool now; the log of it."""

    async def scene() -> ListLog:
        services = await open_services(load(config_path))
        pickup = Pickup(services)
        try:
            pickup.start()
            await settled(pickup)
            await pickup.stop()
        finally:
            await close_services(services)
        return services.log

    return asyncio.run(scene())
