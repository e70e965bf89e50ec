"""Acts in a worker. The supervisor hands over who asks, by the kernel's word, with the socket on which he waits; what
the act gives goes there directly: rows and progress as they come, and at last its result or why there is none.

A request is a line of JSON, {"do": "act", "act": "user.list", "request": {}}. Lines of the answer:

    {"rows": [...]}                  of an act that gives rows
    {"done": 100, "total": 1000, "what": ""}     progress; 0 is not known
    {"ok": true, "result": ...}      the last one
    {"ok": false, "error": "...", "kind": "no_user"}     the last one

Whoever asked and goes away ends the act at its next pause; a write that is under way is committed and told. Who is
nobody here (public.py) gets those acts that are everybody's; one that changes something is answered as soon as it has
begun, and ends without him.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from fastmta._intake import Teller
from fastmta.model.errors import ActFailed, classified
from fastmta.model.events import Actor, Moves
from fastmta.model.limits import ACTS_AT_ONCE
from fastmta.operations.acts import Act, Who, find
from fastmta.operations.carrying import carry_out
from fastmta.operations.desk import Desk, Key, no_progress
from fastmta.runtime.events import teller
from fastmta.runtime.metrics import METRICS

if TYPE_CHECKING:
    from fastmta.config.schema import Config
    from fastmta.operations.explaining import Delivering
    from fastmta.runtime.clock import Clock
    from fastmta.runtime.log import Log
    from fastmta.runtime.metrics import Cells
    from fastmta.runtime.tasks import Tasks
    from fastmta.runtime.turns import Turns
    from fastmta.store import MailStore

CLIENT_S: Final = 60.0  # for whoever asked to take what we have for him
PROGRESS_S: Final = 0.2  # between two lines of progress
ALIVE_S: Final = 10.0  # without any line
BEGUN_S: Final = 0.5  # an act of everybody's has failed by then, or has begun
_encode: Final = msgspec.json.Encoder().encode

Ask = Callable[..., Awaitable[dict[str, Any]]]  # a question to all workers, by the supervisor


class Services(Protocol):
    """What of a worker's parts acts get at."""

    @property
    def config(self) -> "Config": ...
    @property
    def store(self) -> "MailStore": ...
    @property
    def clock(self) -> "Clock": ...
    @property
    def log(self) -> "Log": ...
    @property
    def cells(self) -> "Cells": ...
    @property
    def tasks(self) -> "Tasks": ...
    @property
    def turns(self) -> "Turns": ...


class Owners:
    """The workers of this server, asked through the supervisor."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def withdraw(self, keys: list[Key]) -> set[Key]:
        if not keys:
            return set()
        return {(queue_id, n) for queue_id, n in (await self._answer("withdraw", recipients=keys))["busy"]}

    async def hops(self, names: list[str]) -> list[dict[str, Any]] | None:
        found: list[dict[str, Any]] = (await self._answer("hops", hops=names))["hops"]
        return found

    async def sessions(self, wanted: dict[str, Any]) -> list[dict[str, Any]] | None:
        found: list[dict[str, Any]] = (await self._answer("sessions", wanted=wanted))["sessions"]
        return found

    async def _answer(self, question: str, **given: Any) -> dict[str, Any]:
        answer = await self._ask(question, **given)
        if not answer.get("ok"):
            raise ActFailed(str(answer.get("error", "the server refused")), "busy")
        return answer


class Supervisor:
    """The supervisor of this server."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def ask(self, question: str, actor: Actor) -> dict[str, Any]:
        answer = await self._ask(question, who=msgspec.to_builtins(actor))
        if not answer.get("ok"):
            raise ActFailed(str(answer.get("error", "the server refused")), "busy")
        return answer


class Told:
    """Tells in the server's log and counts."""

    def __init__(self, services: Services) -> None:
        self._log = services.log
        self._cells = services.cells
        self._teller: Teller = teller(services.log, services.clock, services.cells)

    def act(self, name: str, fields: dict[str, Any], actor: Actor) -> None:
        self._cells[METRICS.admin_acts_total[name.partition(".")[0]]] += 1
        self._log.info(f"admin.{name}", **{**shown(fields), **shown(msgspec.structs.asdict(actor))})

    def moves(self, moves: Moves) -> None:
        self._teller.tell_moves(moves)


def shown(fields: dict[str, Any]) -> dict[str, Any]:
    """Fields of an act as the log takes them: octets of a command line that are no UTF-8 were made surrogates."""
    return {
        name: value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
        for name, value in fields.items()
    }


class Serving:
    """The acts under way in this worker."""

    def __init__(self, services: Services, ask: Ask, delivering: "Delivering") -> None:
        self._services = services
        self._delivering = delivering
        self._owners = Owners(ask)
        self._supervisor = Supervisor(ask)
        self._told = Told(services)
        self._desks: dict[Desk, Who] = {}
        self._begun: dict[tuple[str, bytes], asyncio.Task[dict[str, Any]]] = {}  # of everybody's acts

    def __len__(self) -> int:
        """How many acts are under way."""
        return len(self._desks)

    def reload(self) -> None:
        """Takes over the log's level."""
        self._told = Told(self._services)

    def interrupt(self, reason: str) -> None:
        """Ends every act at its next pause."""
        for desk in self._desks:
            desk.interrupted = reason

    def take(self, fd: int, actor: Actor, name: str, request: dict[str, Any]) -> None:
        """Carries out what was asked for; the descriptor is ours."""
        sock = socket.socket(fileno=fd)
        sock.setblocking(False)
        self._services.tasks.spawn("operation", self.serve(sock, actor, name, request, "owner"))

    async def serve(self, sock: socket.socket, actor: Actor, name: str, request: dict[str, Any], asker: Who) -> None:
        """Carries out what was asked for, answers, and closes the socket, which does not block. It is over when the act
        is, which may be later than the answer.
        """
        client = _Client(sock)
        begun: asyncio.Task[dict[str, Any]] | None = None
        try:
            act = find(name)
            if act is None:
                answer = refusal(f"no such act: {name!a}", "usage")
            elif asker != "owner" and act.who != asker:
                answer = refusal(f"{name} is for root and the server's own user", "not_permitted")
            elif asker != "owner" and act.changes:
                begun = self._begin(act, actor, request, asker)
                done, _ = await asyncio.wait([begun], timeout=BEGUN_S)
                answer = begun.result() if done else {"ok": True, "result": None}
            else:
                answer = await self._outcome(act, actor, request, asker, client)
            await client.send(answer)
        except (OSError, TimeoutError):
            pass  # he has gone
        finally:
            client.close()
            if begun is not None:
                await asyncio.wait([begun])

    def _begin(
        self, act: Act[Any, Any], actor: Actor, request: dict[str, Any], asker: Who
    ) -> "asyncio.Task[dict[str, Any]]":
        """Has an act of everybody's done once, however many ask for the same meanwhile."""
        key = (act.name, _encode(request))
        task = self._begun.get(key)
        if task is None:
            work = self._outcome(act, actor, request, asker, None)
            self._begun[key] = task = self._services.tasks.spawn("operation", work)
            task.add_done_callback(lambda _: self._begun.pop(key))
        return task

    async def _outcome(
        self, act: Act[Any, Any], actor: Actor, request: dict[str, Any], asker: Who, client: "_Client | None"
    ) -> dict[str, Any]:
        """The last line of the answer, of an act that has failed too."""
        try:
            return await self._answer(act, actor, request, asker, client)
        except Exception as error:
            self._failed(act.name, error)
            return refusal(*classified(error))

    async def _answer(
        self, act: Act[Any, Any], actor: Actor, request: dict[str, Any], asker: Who, client: "_Client | None"
    ) -> dict[str, Any]:
        """`client`: who gets rows and progress, and ends the act by leaving; None: nobody."""
        services = self._services
        if act.caller:
            return refusal(f"{act.name} is done by whoever asks, with his own rights", "usage")
        if list(self._desks.values()).count(asker) >= ACTS_AT_ONCE:
            return refusal("too many acts are under way; try again", "busy")
        try:
            asked = msgspec.convert(request, act.request)
        except msgspec.ValidationError as error:
            return refusal(f"{act.name}: {error}", "usage")
        share = services.turns.share()
        share.begin()
        config = services.config  # the act's from its beginning to its end
        desk = Desk(
            lambda: config,
            services.store,
            services.clock,
            actor,
            self._told,
            self._supervisor,
            self._owners,
            lambda: nullcontext(self._delivering),
            pause=share.pause,
            progress=no_progress if client is None else client.progress,
        )
        self._desks[desk] = asker
        watching = None
        if client is not None:
            watching = asyncio.get_running_loop().create_task(client.watch(desk), name="operation watched")
        try:
            return {"ok": True, "result": await carry_out(act, desk, asked, _nobody if client is None else client.rows)}
        finally:
            if watching is not None:
                watching.cancel()
            if desk.has_told:
                services.log.flush()  # whoever is answered finds the line
            del self._desks[desk]
            share.leave()

    def _failed(self, name: str, error: Exception) -> None:
        """What no act expects is our bug."""
        if classified(error)[1] == "bug":
            self._services.cells[METRICS.internal_errors_total["worker"]] += 1
            self._services.log.exception("admin.failed", error, act=name)


def refusal(error: str, kind: str) -> dict[str, Any]:
    return {"ok": False, "error": error, "kind": kind}


async def _nobody(rows: list[Any]) -> None:
    return


class _Client:
    """Whoever asked, at the other end of a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._loop = asyncio.get_running_loop()
        self._sending = asyncio.Lock()
        self._progress: tuple[int, int, str] | None = None

    async def send(self, line: dict[str, Any]) -> None:
        async with self._sending, asyncio.timeout(CLIENT_S):
            await self._loop.sock_sendall(self._socket, _encode(line) + b"\n")

    async def rows(self, page: list[Any]) -> None:
        await self.send({"rows": page})

    def progress(self, done: int, total: int, what: str = "") -> None:
        self._progress = (done, total, what)

    async def watch(self, desk: Desk) -> None:
        """Tells of progress, and that we are alive; notices when nobody listens any more."""
        silent_s = 0.0
        try:
            while True:
                try:
                    async with asyncio.timeout(PROGRESS_S):
                        if not await self._loop.sock_recv(self._socket, 4096):
                            desk.interrupted = "whoever asked has gone"
                            return
                except TimeoutError:
                    silent_s += PROGRESS_S
                if self._progress is not None or silent_s >= ALIVE_S:
                    done, total, what = self._progress or (0, 0, "")
                    self._progress, silent_s = None, 0.0
                    await self.send({"done": done, "total": total, "what": what})
        except (OSError, TimeoutError):
            desk.interrupted = "whoever asked has gone"

    def close(self) -> None:
        self._socket.close()
