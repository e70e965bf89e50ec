"""Runs the tests in several processes, which are forked when everything has been collected: `--processes 6`.

What takes long to load is loaded once, and a process more costs next to nothing, so there may be more of them than
cores: much of what tests do is waiting. A file is one process's, for what its tests share; tests of the slow rooms
that share nothing go one by one. What takes long begins first. Each process takes its next piece when it begins the
last test of one, for fixtures that both need; it tells what became of each test, and is replaced where a test has ended
it.
"""

import contextlib
import gc
import os
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any, NoReturn

import pytest

#: Rooms whose tests wait for a compiler or for servers, the longest first: no process shall end alone with one of them.
SLOW = (
    *("packages", "faults", "operations", "interop", "e2e", "supervisor", "store", "simulation", "cli", "pickup"),
    *("deploy", "fuzz", "imap", "index"),
)
APART = frozenset({"packages", "faults", "interop", "e2e", "supervisor", "deploy"})
ROOT = Path(__file__).resolve().parents[1]

Piece = list[int]  # the places of its tests in the collection


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--processes", type=int, default=0, help="how many at once; 0: this one")


def pytest_configure(config: pytest.Config) -> None:
    if config.option.processes and not config.option.collectonly:
        config.pluginmanager.register(Parallel(config))


def room_of(item: pytest.Item) -> str:
    return item.path.relative_to(ROOT).parts[0] if item.path.is_relative_to(ROOT) else ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: SLOW.index(room_of(item)) if room_of(item) in SLOW else len(SLOW))


def pieces_of(items: Sequence[pytest.Item]) -> list[Piece]:
    out: list[Piece] = []
    for _, tests in groupby(range(len(items)), key=lambda n: items[n].path):
        piece = list(tests)
        apart = room_of(items[piece[0]]) in APART and not any(_shares(items[n]) for n in piece)
        out += [[n] for n in piece] if apart else [piece]
    return out


def _shares(item: pytest.Item) -> bool:
    """Whether it has a fixture of ours that is kept for other tests."""
    info = getattr(item, "_fixtureinfo", None)
    used = [each for defined in info.name2fixturedefs.values() for each in defined] if info else []
    return any(each.scope != "function" and each.func.__module__.startswith("tests.") for each in used)


class _Worker:
    """One process, as seen by the one that has forked it."""

    def __init__(self, pid: int, link: Connection) -> None:
        self.pid = pid
        self.link = link
        self.pieces: deque[Piece] = deque()  # what it has been given and has not ended
        self.test: int | None = None
        self.failure = ""  # of pytest itself
        self.over = False  # it has said that it has done all it was given


class Parallel:
    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._capture: Any = config.pluginmanager.getplugin("capturemanager")
        self._workers: list[_Worker] = []
        self._begun = 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed and not session.config.option.continue_on_collection_errors:
            raise session.Interrupted(f"{session.testsfailed} errors during collection")
        self._items = session.items
        self._left = deque(pieces_of(session.items))
        self._base = session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        gc.collect()
        gc.freeze()  # nobody looks through what has been collected again
        try:
            for _ in range(min(session.config.option.processes, len(self._left))):
                self._fork()
            while self._workers:
                self._hear(session)
                if session.shouldfail:
                    raise session.Failed(session.shouldfail)
                if session.shouldstop:
                    raise session.Interrupted(session.shouldstop)
        finally:
            for worker in self._workers:
                worker.link.close()  # at its next word it ends
            for worker in self._workers:
                os.waitpid(worker.pid, 0)
        return True

    def _fork(self) -> None:
        ours, theirs = Pipe()
        self._begun += 1
        self._capture.stop_global_capturing()
        pid = os.fork()
        if not pid:
            ours.close()
            for other in self._workers:
                other.link.close()
            self._capture.start_global_capturing()
            _Inside(self._config, theirs, self._items, self._base / f"process{self._begun}").run()
        self._capture.start_global_capturing()
        self._capture.suspend_global_capture()
        theirs.close()
        self._workers.append(_Worker(pid, ours))

    def _hear(self, session: pytest.Session) -> None:
        links = {worker.link: worker for worker in self._workers}
        for link in wait(list(links)):
            worker = links[link]  # type: ignore[index]
            try:
                word, told = worker.link.recv()
            except (EOFError, ConnectionResetError):
                self._ended(worker)
                continue
            if word == "piece":
                piece = self._left.popleft() if self._left else None
                if piece:
                    worker.pieces.append(piece)
                worker.link.send(piece)
            elif word == "begin":
                worker.test = told
                while told not in worker.pieces[0]:
                    worker.pieces.popleft()
                item = self._items[told]
                self._config.hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
            elif word == "end":
                item = self._items[told]
                self._config.hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
            elif word == "over":
                worker.over = True
            elif word == "failure":
                worker.failure = told
            elif word == "report":
                report = self._config.hook.pytest_report_from_serializable(config=self._config, data=told)
                self._config.hook.pytest_runtest_logreport(report=report)

    def _ended(self, worker: _Worker) -> None:
        """Its end, or that of what it ran: the rest of that file, and what it had still to do, is another's."""
        status = os.waitstatus_to_exitcode(os.waitpid(worker.pid, 0)[1])
        self._workers.remove(worker)
        worker.link.close()
        if worker.over:
            return
        if worker.test is None:
            raise RuntimeError(f"a process has ended before its first test: {status}\n{worker.failure}")
        item = self._items[worker.test]
        what = f"it has ended its process: {status}\n{worker.failure}"
        report = pytest.TestReport(item.nodeid, item.location, {}, "failed", what, "call")
        self._config.hook.pytest_runtest_logreport(report=report)
        begun = worker.pieces.popleft()
        worker.pieces.appendleft(begun[begun.index(worker.test) + 1 :])
        self._left.extendleft(piece for piece in reversed(worker.pieces) if piece)
        self._fork()


class _Inside:
    """In the process that was forked."""

    def __init__(self, config: pytest.Config, link: Connection, items: Sequence[pytest.Item], base: Path) -> None:
        self._config = config
        self._link = link
        self._items = items
        base.mkdir(mode=0o700)
        config._tmp_path_factory._basetemp = base  # type: ignore[attr-defined]

    def run(self) -> NoReturn:
        status = 1
        try:
            with open(os.devnull, "w") as nowhere:
                terminal: Any = self._config.pluginmanager.getplugin("terminalreporter")
                terminal._tw._file = nowhere  # the other process writes
                self._config.pluginmanager.register(self)
                self._run()
            status = 0
        except (BrokenPipeError, EOFError, KeyboardInterrupt):
            with contextlib.suppress(BaseException):  # servers that fixtures have started go too
                self._items[0].session._setupstate.teardown_exact(None)
        except BaseException:
            self._link.send(("failure", traceback.format_exc()))
        finally:
            with contextlib.suppress(OSError):
                self._link.close()
            os._exit(status)

    def _run(self) -> None:
        tests = self._tests()
        now = next(tests, None)
        while now is not None:
            self._link.send(("begin", now))
            after = next(tests, None)
            following = None if after is None else self._items[after]
            self._config.hook.pytest_runtest_protocol(item=self._items[now], nextitem=following)
            self._link.send(("end", now))
            now = after
        self._link.send(("over", None))

    def _tests(self) -> Iterator[int]:
        while True:
            self._link.send(("piece", None))
            piece = self._link.recv()
            if piece is None:
                return
            yield from piece

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._link.send(("report", data))
