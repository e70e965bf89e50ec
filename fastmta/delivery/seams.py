"""What delivery asks of its neighbours, as Protocols, so that tests may pass small fakes."""

import asyncio
import ssl
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, Protocol

from fastmta.config.schema import Config
from fastmta.model.envelope import Envelope, RecipientTail, Resolution
from fastmta.runtime.clock import Clock
from fastmta.runtime.log import Log
from fastmta.runtime.tasks import Sweep


class QueuedMessage(Protocol):
    @property
    def queue_id(self) -> int: ...
    @property
    def blob_id(self) -> int: ...
    @property
    def envelope(self) -> Envelope: ...


class QueuedRecipient(Protocol):
    @property
    def queue_id(self) -> int: ...
    @property
    def n(self) -> int: ...
    @property
    def state(self) -> int: ...
    @property
    def attempts(self) -> int: ...
    @property
    def due_ms(self) -> int: ...
    @property
    def last_reply(self) -> bytes: ...
    @property
    def tail(self) -> RecipientTail: ...


class Queue(Protocol):
    def due(self, hop: bytes, now_ms: int, limit: int) -> Sequence[tuple[int, int, int, int]]: ...
    def load(self, pairs: Sequence[tuple[int, int]]) -> Sequence[tuple[QueuedMessage, Sequence[QueuedRecipient]]]: ...
    def hops(self, partitions: Iterable[int], now_ms: int, limit: int = 10000) -> Sequence[tuple[int, bytes]]: ...
    def recipient(self, queue_id: int, n: int) -> QueuedRecipient | None: ...
    def read(self, blob_id: int, offset: int, length: int) -> bytes | None: ...


class Account(Protocol):
    @property
    def id(self) -> int: ...
    @property
    def inbox_id(self) -> int: ...
    @property
    def enabled(self) -> bool: ...


class Accounts(Protocol):
    def lookup(self, address: str) -> Account | None: ...


class Store(Protocol):
    """store.MailStore; `raw` is the _store.Store, whose units are used as they are."""

    @property
    def raw(self) -> Any: ...
    @property
    def queue(self) -> Queue: ...
    @property
    def accounts(self) -> Accounts: ...


class Directory(Protocol):
    def resolve(self, forward_path: bytes, *, may_relay: bool) -> Resolution: ...


class Router(Protocol):
    def full_hop(self, hop: bytes, forward_path: bytes) -> bytes: ...


class Contexts(Protocol):
    def client_context(self, level: str) -> ssl.SSLContext | None: ...


class Tasks(Protocol):
    def spawn(self, name: str, work: Coroutine[Any, Any, Any]) -> Any: ...


class Services(Protocol):
    """The part of supervisor.services.Services that delivery uses."""

    config: Config
    store: Store
    directory: Directory
    router: Router
    contexts: Contexts
    tasks: Tasks
    sweep: Sweep
    cells: memoryview
    log: Log
    clock: Clock
    slot: int
    slots: int
    loop: asyncio.AbstractEventLoop
