"""How a worker accepts while descriptors are short: all that fits at each turn, and one line in the log about it."""

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest
import uvloop

from fastmta.runtime.log import Log
from fastmta.supervisor import acceptor as module
from fastmta.supervisor.acceptor import Acceptor

LIMIT = 8  # sessions at which accepting pauses
CROWD = 200
STAY_S = 0.005


class Lines:
    """A log that remembers."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def error(self, event: str, **_: Any) -> None:
        self.events.append(event)

    info = error


class Session(asyncio.Protocol):
    """Greets, and is gone a moment later."""

    open = 0

    def __init__(self) -> None:
        Session.open += 1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast("asyncio.Transport", transport)
        stream.write(b"220 hello\r\n")
        asyncio.get_running_loop().call_later(STAY_S, stream.close)

    def connection_lost(self, exc: Exception | None) -> None:
        Session.open -= 1


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptors in use are as many as the sessions that are open."""
    Session.open = 0
    monkeypatch.setattr(module, "lowest_free_descriptor", lambda: Session.open)


def on_uvloop(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(scene())


async def accepting(lines: Lines, limit: int = LIMIT) -> tuple[Acceptor, tuple[str, int]]:
    acceptor = Acceptor(asyncio.get_running_loop(), cast("Log", lines))
    acceptor._limit = limit
    sock = socket.create_server(("127.0.0.1", 0), backlog=1024)
    sock.setblocking(False)
    where = sock.getsockname()
    await acceptor.add(0, "smtp", sock, Session, None)
    scene = asyncio.current_task()
    assert scene is not None
    scene.add_done_callback(lambda _: acceptor.close())  # with a listener open, uvloop's loop never closes
    return acceptor, where


async def visit(where: tuple[str, int]) -> None:
    reader, writer = await asyncio.open_connection(*where)
    assert (await reader.readline()).startswith(b"220 ")
    assert await reader.read() == b""
    writer.close()


async def crowd(where: tuple[str, int]) -> float:
    """How long all of them took to be greeted."""
    started = time.monotonic()
    async with asyncio.timeout(60):
        await asyncio.gather(*(visit(where) for _ in range(CROWD)))
    return time.monotonic() - started


def test_a_crowd_is_taken_as_fast_as_it_leaves() -> None:
    async def scene() -> None:
        unpaused, where = await accepting(Lines(), limit=10 * CROWD)
        without_pause = await crowd(where)
        unpaused.close()
        lines = Lines()
        acceptor, where = await accepting(lines)
        took = await crowd(where)
        acceptor.close()
        assert lines.events == ["listener.paused"]  # its end is told when it has lasted
        assert took < 1.5 + 5 * without_pause, f"{CROWD} short sessions took {took:.1f} s"

    on_uvloop(scene)


def test_the_end_of_a_shortage_is_told_when_it_has_lasted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OVER_S", 0.3)

    async def scene() -> None:
        lines = Lines()
        acceptor, where = await accepting(lines)
        await crowd(where)
        async with asyncio.timeout(60):
            while "listener.resumed" not in lines.events:  # noqa: ASYNC110 - nothing else tells of it
                await asyncio.sleep(0.01)
        assert lines.events == ["listener.paused", "listener.resumed"]
        acceptor.close()

    on_uvloop(scene)


def test_while_nobody_leaves_it_looks_ever_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0

    def full() -> int:
        nonlocal looks
        looks += 1
        return LIMIT

    monkeypatch.setattr(module, "lowest_free_descriptor", full)

    async def scene() -> None:
        acceptor, where = await accepting(Lines())
        await visit(where)
        await asyncio.sleep(0.5)
        assert acceptor.paused
        assert looks <= 12
        acceptor.close()

    on_uvloop(scene)


def test_a_pause_always_ends_though_nothing_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_S", 0.1)
    monkeypatch.setattr(module, "lowest_free_descriptor", lambda: LIMIT)

    async def scene() -> None:
        acceptor, where = await accepting(Lines())
        for _ in range(5):  # each of them is the one that makes it pause again
            async with asyncio.timeout(60):
                await visit(where)
        acceptor.close()

    on_uvloop(scene)


def test_what_the_worker_has_open_itself_counts_for_neither_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    own = 40
    monkeypatch.setattr(module, "lowest_free_descriptor", lambda: own + Session.open)

    async def scene() -> None:
        _, where = await accepting(Lines(), limit=own + 10 * CROWD)
        without_pause = await crowd(where)
        acceptor, where = await accepting(Lines())
        acceptor._soft = own + 16
        acceptor.measure()
        assert acceptor._limit == own + LIMIT
        assert await crowd(where) < 1.5 + 5 * without_pause
        async with asyncio.timeout(60):  # the last of the crowd may have met the bound where the machine is busy
            while acceptor.paused:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        acceptor.close()

    on_uvloop(scene)
