"""What picking up asks of its neighbours; supervisor.services.Services has it all."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from fastmta._intake import Recipient
from fastmta.config.schema import Config
from fastmta.model.envelope import Resolution
from fastmta.policy import judge
from fastmta.policy.check import Senders
from fastmta.runtime.clock import Clock
from fastmta.runtime.log import Log
from fastmta.runtime.metrics import Cells
from fastmta.runtime.tasks import Tasks
from fastmta.store.mailstore import MailStore


class Named(Protocol):
    @property
    def raw(self) -> bytes: ...


class Tenants(Protocol):
    def of_sender(self, login: str, reverse_path: bytes) -> str: ...


class Directory(Protocol):
    def resolve(self, forward_path: bytes, *, may_relay: bool) -> Resolution: ...
    def sender_allowed(self, login: str, reverse_path: bytes) -> bool: ...
    @property
    def senders(self) -> Senders: ...
    @property
    def tenants(self) -> Tenants: ...
    def qualify(self, text: str) -> Named: ...
    @property
    def adjusts(self) -> bool: ...
    def sender_of(self, path: bytes) -> bytes: ...
    def adjusted(
        self,
        sender: bytes,
        recipients: Sequence[Recipient],
        *,
        copies: bool = ...,
        more: Sequence[bytes] = ...,
        through: str = ...,
    ) -> list[Recipient]: ...


class PublicFace(Protocol):
    """Answers local users at a socket in the directory behind a descriptor (operations/public.py)."""

    def open(self, public: int, /) -> None: ...
    def close(self) -> None: ...


class Services(judge.Services, Protocol):
    @property
    def config(self) -> Config: ...
    @property
    def store(self) -> MailStore: ...
    @property
    def directory(self) -> Directory: ...
    @property
    def cells(self) -> Cells: ...
    @property
    def log(self) -> Log: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...
    @property
    def tasks(self) -> Tasks: ...
    @property
    def storage_ok(self) -> Callable[[], bool]: ...
