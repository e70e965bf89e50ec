"""An event loop whose time is made: it never waits, but puts its clock forward to the next timer.

Everything on it happens in an order that depends on nothing but the program and its seed: there are no sockets, no
threads and no signals. Whoever would connect gets a link of the network that the loop was given.

Invariant: `time` rises only between two passes of the loop, so whatever runs in one pass runs at one instant.
"""

import asyncio
import math
import selectors
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fastmta.simulation.network import Network


_TICKS: Final = 1_000_000  # of a second: instants are whole ones, so that a timer's is met exactly


class NothingToDo(Exception):
    """No timer is left: whoever runs the loop waits for something that never comes."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """`network` takes connections. `ahead`: given the instant of the next timer, one that is not before it and at which
    time is to go on; None: that one.
    """

    def __init__(self, now: float = 1000.0) -> None:
        self._now = now
        self.network: Network | None = None
        self.ahead: Callable[[float], float] | None = None
        super().__init__(_Selector(self))
        self._clock_resolution = 0.1 / _TICKS

    def time(self) -> float:
        return self._now

    def wait(self, timeout: float | None) -> None:
        """What select(2) would do: here time just passes."""
        if timeout is None:
            raise NothingToDo
        if timeout > 0:
            at = self._now + timeout
            self._now = round((at if self.ahead is None else max(at, self.ahead(at))) * _TICKS) / _TICKS

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        """Never early, as a loop may be by its clock's resolution: time stands still until somebody waits."""
        ticks = math.ceil(when * _TICKS)
        at = ticks / _TICKS
        return super().call_at(at if at >= when else (ticks + 1) / _TICKS, callback, *args, context=context)

    def timers(self) -> list[asyncio.TimerHandle]:
        """Those that are set and not cancelled, in no order."""
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        return [handle for handle in scheduled if not handle.cancelled()]

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **_: Any) -> Any:
        assert self.network is not None
        return await self.network.connect(protocol_factory, f"{host}", int(port))

    async def create_unix_connection(self, protocol_factory: Any, path: Any = None, **_: Any) -> Any:
        assert self.network is not None
        return await self.network.connect(protocol_factory, f"{path}", 0)

    async def start_tls(self, transport: Any, protocol: Any, sslcontext: Any, **_: Any) -> Any:
        return await transport.start_tls(protocol, sslcontext)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Done here and now: a thread would come back when it likes."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class _Selector(selectors.BaseSelector):
    """Looks at no descriptor; the loop registers its own pipe, which nobody writes to."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._keys: dict[Any, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = self._keys[fd] = selectors.SelectorKey(fileobj, fd, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def modify(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self.register(fileobj, events, data)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._loop.wait(timeout)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._keys
