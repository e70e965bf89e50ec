"""The supervisor: binds the ports, starts the workers, and keeps them there. No loop, no store, no input from the
network.

Signals: HUP rereads the configuration in place; where `workers` or [listen] has changed, the workers are replaced
without a connection lost. TERM and INT stop gracefully, a second one at once. The same through the control socket
(admin/control.py). Exit codes are those of sysexits(3): 0 stopped, 74 the store cannot be read, 75 the data directory
or an address is in use, 78 the configuration is wrong.
"""

import gc
import os
import resource
import selectors
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final, Protocol

import msgspec

from fastmta import __version__
from fastmta.cli.startable import start_problems
from fastmta.config.load import load
from fastmta.config.schema import Config
from fastmta.model.errors import ConfigError, FastMTAError
from fastmta.model.limits import HOPS_TOLD
from fastmta.runtime import descriptors
from fastmta.runtime.giving import give, lies_with
from fastmta.runtime.identity import FIXED, MAY_BE_ROOT, WorkersUser, acting_as_workers, workers_user
from fastmta.runtime.library_log import take_library_records
from fastmta.runtime.lock import DirectoryBusy, lock_directory, tell_leaving
from fastmta.runtime.log import get_logger
from fastmta.store import MailStore
from fastmta.supervisor.control import Client, ControlSocket
from fastmta.supervisor.launcher import LauncherProcess
from fastmta.supervisor.listeners import AddressInUse, Listeners, addresses, inherited_sockets
from fastmta.supervisor.notes import note
from fastmta.supervisor.notify import notify, notify_reloading
from fastmta.supervisor.orphans import end, orphans
from fastmta.supervisor.owning import HopsLock
from fastmta.supervisor.pool import Pool
from fastmta.supervisor.process import EX_CONFIG, Worker
from fastmta.supervisor.status import describe
from fastmta.supervisor.worker import Build

LOCK_WAIT_S: Final = 30.0  # for the workers of a supervisor that was killed
RELOAD_S: Final = 1.0  # between two rereads, however many are asked for
WITHDRAW_S: Final = 5.0  # for workers to say what they are delivering; less than they then wait for the decision
ANSWER_S: Final = 20.0  # for workers to answer a command
IMPATIENT_S: Final = 1.0  # a TERM so long after the first one means now; a sooner one was the same, told to a group
EX_TEMPFAIL: Final = 75
TAKE_OVER_S: Final = 0.8  # for workers of a server that was killed to give their addresses back
ORPHANS_LOOK_S: Final = 0.01
ORPHANS_S: Final = 0.3  # of it before those that are left are killed

Value = str | int | float | bool | None


class Answerable(Protocol):
    """Whoever waits for an answer."""

    def answer(self, **fields: Any) -> None: ...


class Together:
    """All that asked for one reload."""

    def __init__(self, clients: list[Answerable]) -> None:
        self._clients = clients

    def answer(self, **fields: Any) -> None:
        for client in self._clients:
            client.answer(**fields)


class Back:
    """An act in a worker, which waits for what all workers say."""

    def __init__(self, worker: Worker, number: int) -> None:
        self._worker = worker
        self._number = number

    def answer(self, **fields: Any) -> None:
        self._worker.channel.send("answered", number=self._number, answer=fields)


class Wanted(msgspec.Struct):
    """The request of an act: flat, so that nothing in it can be deeper than whoever reads it next can go."""

    act: str
    request: dict[str, Value | list[Value]] = {}
    sudo_user: Annotated[str, msgspec.Meta(max_length=100)] | None = None


class Asked:
    """A control client that waits for workers; answered when all have spoken, died, or taken too long."""

    def __init__(
        self, client: Answerable | None, workers: list[Worker], deadline: float, field: str = "", problem: str = ""
    ) -> None:
        """`field`: of the answer that has what the workers found; `problem`: the error where one does not say it."""
        self.client = client
        self.waiting = {w.pid for w in workers}
        self.deadline = deadline
        self.errors: list[str] = []
        self.field = field
        self.problem = problem
        self.found: list[Any] = []


class Supervisor:
    """One run of the server, from bound ports to the last worker's end."""

    def __init__(
        self, config_path: str, config: Config, user: WorkersUser | None, lock_fd: int, build: Build | None
    ) -> None:
        self.config_path = config_path
        self.config = config
        self.user = user  # whom workers become
        self.log = get_logger()
        self.selector = selectors.DefaultSelector()
        self.listeners = Listeners(inherited_sockets())
        self.lock_fd = lock_fd
        with acting_as_workers(user):
            self.hops_lock = HopsLock(Path(config.data_directory))
        self.bind()
        self.launcher = LauncherProcess(self.log)
        self.pool = Pool(
            build or _mail_server(),
            config_path,
            self.listeners,
            self.hops_lock,
            self.selector,
            self.log,
            self._on_message,
            self.launcher.client_fd,
        )
        self.signals: list[int] = []
        self.reloads: list[Asked] = []
        self.status_asked: list[Asked] = []
        self.questions: dict[int, Asked] = {}
        self.questions_made = 0
        self.acts = 0
        self.reload_wanted = False
        self.reload_clients: list[Answerable] = []
        self.reloaded_at = 0.0
        self.pending_replace = False
        self.told_ready = False
        self.stopped_at = 0.0

    def run(self) -> int:
        """Serves until stopped; the exit code."""
        self._configure()
        self._catch_signals()
        with acting_as_workers(self.user):
            self.control = ControlSocket(Path(self.config.data_directory), self.selector, self._command)
        MailStore.load()
        gc.collect()
        gc.freeze()  # what is imported now stays: no collection of a worker writes to these pages
        self.log.info("supervisor.started", version=__version__, config=self.config_path, workers=self._slots())
        self.pool.start_generation(self._slots(), [])
        try:
            while not (self.pool.stopping and not self.pool.workers):
                self._turn()
                if self.pool.failed_code is not None and not self.pool.stopping:
                    self.log.error("supervisor.giving_up", reason="a worker could not use the configuration")
                    self.pool.kill()
        finally:
            self.pool.kill()
            with acting_as_workers(self.user):
                self.control.close()
            self.listeners.close()
            self.launcher.close()
            self.hops_lock.close()
            self.selector.close()
            # The interpreter gives signals back their default as it ends: asked to stop once more, it would die of it.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
        self.log.info("supervisor.stopped")
        return self.pool.failed_code or 0

    def bind(self) -> None:
        """Listens on every address. Workers of a server that was killed give theirs back at once, unless they are
        stuck: these are killed. AddressInUse where anybody else has one.
        """
        started = time.monotonic()
        while True:
            try:
                endpoints, _ = self.listeners.change(addresses(self.config.listen), self._slots())
                break
            except AddressInUse:
                left = orphans(Path(self.config.data_directory), self.user)
                waited_s = time.monotonic() - started
                if not left or waited_s > TAKE_OVER_S:
                    raise
                if waited_s > ORPHANS_S:
                    self.log.warning("worker.killed", pids=left, reason="it kept an address of a server that is gone")
                    end(left)
            time.sleep(ORPHANS_LOOK_S)
        for endpoint in endpoints:
            self.log.info("listener.bound", service=endpoint.address.service, address=endpoint.bound)

    def _slots(self) -> int:
        return self.config.workers or len(os.sched_getaffinity(0))

    def _configure(self) -> None:
        """Whom the workers run as, and what only we may read for them."""
        names = (
            "key_file",
            "cert_file",
            "smtpd_tls_eckey_file",
            "smtpd_tls_eccert_file",
            "smtp_tls_key_file",
            "smtp_tls_cert_file",
        )
        files = {name: getattr(self.config.tls, name) for name in names}
        private = {key: path for key, path in files.items() if path and not (self.user and lies_with(path, self.user))}
        self.pool.configure(self.config, self.user, private)
        self.launcher.configure(self.config)
        self.log.set_level(self.config.log_level)

    def _catch_signals(self) -> None:
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        self._wakeup = (reader, writer)
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, lambda n, _: self.signals.append(n))
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        self.selector.register(reader, selectors.EVENT_READ, self._drain_wakeup)

    def _drain_wakeup(self) -> None:
        try:
            self._wakeup[0].recv(4096)
        except BlockingIOError:
            return

    def _turn(self) -> None:
        now = time.monotonic()
        deadlines = [asked.deadline for asked in (*self.reloads, *self.status_asked, *self.questions.values())]
        due = self.pool.next_deadline()
        if due is not None:
            deadlines.append(due)
        deadlines += [self._reload_due(), self.launcher.next_deadline()]
        deadlines.append(now + 30.0)  # for control clients that say nothing
        for key, _ in self.selector.select(max(0.0, min(deadlines) - now)):
            key.data()
        while self.signals:
            self._signal(self.signals.pop(0))
        self.pool.reap()
        self.launcher.look()
        now = time.monotonic()
        self.pool.tick(now)
        self.control.expire(now)
        self._answer(now)
        if self.pending_replace and not self.pool.crowded:
            self.pending_replace = False
            self._want_reload(None)
        if self._reload_due() <= now:
            self._reload()
        if self.pool.all_ready and not self.told_ready and not self.pool.stopping:
            self.told_ready = True
            notify(f"READY=1\nSTATUS={self.pool.slots} workers")
            self.log.info("supervisor.ready", workers=self.pool.slots)

    def _signal(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._want_reload(None)
        elif number in (signal.SIGTERM, signal.SIGINT):
            if not self.pool.stopping:
                self._stop(signal.Signals(number).name)
            elif time.monotonic() - self.stopped_at > IMPATIENT_S:
                self.pool.kill()

    def _stop(self, reason: str) -> None:
        self.log.info("supervisor.stopping", reason=reason)
        tell_leaving(self.lock_fd)
        self.stopped_at = time.monotonic()
        notify("STOPPING=1")
        self.pool.stop()

    # --- reload ---

    def _want_reload(self, client: Answerable | None) -> None:
        """Rereads now, or in a while where that was just done: of a storm of signals the last one is honoured."""
        if client is not None:
            self.reload_clients.append(client)
        self.reload_wanted = True

    def _reload_due(self) -> float:
        """When the next reread may begin, in monotonic seconds: not beside one that is under way."""
        return self.reloaded_at + RELOAD_S if self.reload_wanted and not self.reloads else float("inf")

    def _reload(self) -> None:
        client = Together(self.reload_clients)
        self.reload_wanted, self.reload_clients = False, []
        self.reloaded_at = time.monotonic()
        if self.pool.stopping:
            client.answer(ok=False, error="the server is stopping")
            return
        notify_reloading()
        try:
            config = load(self.config_path)
            if config.data_directory != self.config.data_directory:
                raise ConfigError("data_directory: a change of it needs a restart")
            if workers_user(config) != self.user:
                raise ConfigError(FIXED)
            few = descriptors.problem(config)
            if few:
                raise ConfigError(few)
            wanted = addresses(config.listen)
            slots = config.workers or len(os.sched_getaffinity(0))
            replace = slots != self.pool.slots or set(wanted) != set(self.listeners.endpoints)
            if replace and self.pool.crowded:  # the oldest generation goes first; later signals coalesce
                self.pending_replace = True
                self.pool.stop_oldest()
                self.log.info("config.reload_postponed", reason="workers of an earlier reload are still leaving")
                client.answer(ok=True, postponed=True)
                return
            bound, gone = self.listeners.change(wanted, slots) if replace else ([], [])
        except FastMTAError as error:
            self.log.error("config.rejected", error=str(error))
            notify("READY=1")
            client.answer(ok=False, error=str(error))
            return
        self.config = config
        self._configure()
        if not replace:
            workers = self.pool.broadcast("reload")
            self.reloads.append(Asked(client, workers, time.monotonic() + ANSWER_S))
            return
        for endpoint in bound:
            self.log.info("listener.bound", service=endpoint.address.service, address=endpoint.bound)
        for endpoint in gone:
            self.log.info("listener.closed", service=endpoint.address.service, address=endpoint.bound)
        self.told_ready = False
        self.pool.start_generation(slots, gone)
        self.log.info("config.reloaded", workers=slots, replaced=True)
        client.answer(ok=True, replaced=True)

    def _on_message(self, worker: Worker, message: dict[str, Any]) -> None:
        if message.get("do") == "reloaded":
            for asked in self.reloads:
                asked.waiting.discard(worker.pid)
                if message.get("error"):
                    asked.errors.append(str(message["error"]))
        elif message.get("do") == "status":
            worker.status = message
            for asked in self.status_asked:
                asked.waiting.discard(worker.pid)
        elif message.get("do") == "ask":
            self._command_of(worker, message)
        elif message.get("do") == "answer" and message["number"] in self.questions:
            asked = self.questions[message["number"]]
            asked.waiting.discard(worker.pid)
            asked.found += message["found"]

    def _answer(self, now: float) -> None:
        """Answers the commands whose workers have all spoken."""
        alive = {w.pid for w in self.pool.workers}
        for asked in [a for a in self.reloads if not (a.waiting & alive) or a.deadline <= now]:
            self.reloads.remove(asked)
            if asked.waiting & alive:
                asked.errors.append("a worker did not answer")
            if asked.errors:
                self.log.error("config.rejected", error=asked.errors[0])
            else:
                self.log.info("config.reloaded", workers=self.pool.slots, replaced=False)
            notify("READY=1")
            if asked.client and asked.errors:
                asked.client.answer(ok=False, error=asked.errors[0])
            elif asked.client:
                asked.client.answer(ok=True, replaced=False)
        for asked in [a for a in self.status_asked if not (a.waiting & alive) or a.deadline <= now]:
            self.status_asked.remove(asked)
            if asked.client:
                asked.client.answer(ok=True, **describe(self.pool, self.listeners, self.config_path))
        for number, asked in list(self.questions.items()):
            if asked.client and not asked.waiting & alive:
                asked.client.answer(ok=True, **{asked.field: asked.found})
            elif asked.client and asked.deadline <= now:
                asked.client.answer(ok=False, error=asked.problem)
            else:
                continue
            del self.questions[number]

    # --- control socket ---

    def _command(self, client: Client, request: dict[str, Any]) -> None:
        match request.get("do"):
            case "ping":
                client.answer(ok=True, pid=os.getpid(), version=__version__)
            case "note":
                client.answer(**note(self.log, client, request))
            case "act":
                self._hand_over(client, request)
            case "withdraw":
                self._withdraw(client, request.get("recipients"))
            case "hops":
                self._hops(client, request.get("hops"))
            case "sessions":
                self._sessions(client, request.get("wanted"))
            case "reload" | "stop" | "status" | "flush_trace" as what:
                self._whole(client, what, client.who)
            case other:
                known = "act, flush_trace, hops, ping, note, reload, sessions, status, stop, withdraw"
                client.answer(ok=False, error=f"unknown command {other!r}; known: {known}")

    def _whole(self, client: Answerable, what: str, who: dict[str, Any]) -> None:
        """What concerns the server as a whole, asked by its control socket or by an act in a worker."""
        match what:
            case "reload":
                self.log.info("admin.reload", **who)
                self._want_reload(client)
            case "stop":
                self.log.info("admin.stop", **who)
                client.answer(ok=True, pid=os.getpid())
                if not self.pool.stopping:
                    self._stop("control socket")
            case "status":
                for worker in self.pool.workers:
                    worker.status = None  # an answer to an earlier question tells of an earlier queue
                workers = self.pool.broadcast("status")[:1]  # the queue is one: any worker can count it
                self.status_asked.append(Asked(client, workers, time.monotonic() + 2.0))
            case "flush_trace":
                self._ask(client, what, "flushed", "a worker did not write its part of the trace")

    def _command_of(self, worker: Worker, message: dict[str, Any]) -> None:
        """What an act in a worker asks of all workers, or of us."""
        back = Back(worker, message["number"])
        match message["question"]:
            case "withdraw":
                self._withdraw(back, message["recipients"])
            case "hops":
                self._hops(back, message["hops"])
            case "sessions":
                self._sessions(back, message["wanted"])
            case question:
                self._whole(back, question, message["who"])

    def _withdraw(self, client: Answerable, recipients: object) -> None:
        """Asks every worker, those of older generations too, which of these recipients it is delivering."""
        try:
            keys = msgspec.convert(recipients, list[tuple[int, int]])
        except msgspec.ValidationError:
            client.answer(ok=False, error="recipients: a list of [queue id, n] is needed")
            return
        self._ask(client, "withdraw", "busy", "a worker did not say what it is sending", recipients=keys)

    def _hops(self, client: Answerable, hops: object) -> None:
        """Asks every worker for the state of next hops, of the busiest where none is named."""
        try:
            named = msgspec.convert(
                [] if hops is None else hops, Annotated[list[str], msgspec.Meta(max_length=HOPS_TOLD)]
            )
        except msgspec.ValidationError:
            client.answer(ok=False, error=f"hops: a list of at most {HOPS_TOLD} next hops is needed")
            return
        self._ask(client, "hops", "hops", "a worker did not say what it is sending", hops=named)

    def _sessions(self, client: Answerable, wanted: object) -> None:
        """Has every worker tell of its open sessions, or end them."""
        if not isinstance(wanted, dict):
            client.answer(ok=False, error="wanted: an object is needed")
            return
        self._ask(client, "sessions", "sessions", "a worker did not say who is connected", wanted=wanted)

    def _hand_over(self, client: Client, request: dict[str, Any]) -> None:
        """Has a worker do what an administrator asks for, and answer; where none can, whoever asks does it himself."""
        try:
            asked = msgspec.convert(request, Wanted)
        except msgspec.ValidationError as error:
            client.answer(ok=False, error=f"act: {error}", kind="usage")
            return
        ready = [w for w in self.pool.current if w.serves] if not self.pool.stopping else []
        who = {**client.who, "sudo_user": asked.sudo_user if client.uid == 0 else None}
        self.acts += 1
        for n in range(len(ready)):
            worker = ready[(self.acts + n) % len(ready)]
            if worker.channel.send("act", [client.socket.fileno()], who=who, act=asked.act, request=asked.request):
                os.close(client.release())
                return
        client.answer(ok=False, error="no worker is ready", alone=True)

    def _ask(self, client: Answerable, do: str, field: str, problem: str, **given: Any) -> None:
        """Has every worker, those of older generations too, answer one question."""
        self.questions_made = number = self.questions_made + 1
        workers = [w for w in self.pool.workers if w.channel.send(do, number=number, **given)]
        self.questions[number] = Asked(client, workers, time.monotonic() + WITHDRAW_S, field, problem)


def raise_descriptor_limit() -> None:
    """Lifts the soft limit of open files to the hard one; workers inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _mail_server() -> Build:
    """What workers run, imported when the addresses are known to be ours: this takes a while."""
    gc.disable()  # what is loaded stays, and looking through it for garbage would take a fifth of the time
    try:
        from fastmta.supervisor.build import build
    finally:
        gc.enable()
    return build


def serve(config_path: str | Path, *, build: Build | None = None) -> int:
    """Runs the server in the foreground until it is stopped; the exit code. `build` makes what a worker runs, where
    that is not the mail server.
    """
    log = get_logger()
    take_library_records(log)
    try:
        config = load(config_path)
        log.set_level(config.log_level)
        for found in start_problems(config):
            raise ConfigError(str(found))
        user = workers_user(config)
        raise_descriptor_limit()
        directory = Path(config.data_directory)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for problem in give(directory, user) if user else ():
            log.warning("supervisor.not_given", problem=problem)
        with acting_as_workers(user):
            lock_fd = lock_directory(
                directory,
                wait_s=LOCK_WAIT_S,
                waiting=lambda holder: log.warning("supervisor.waiting", data_directory=str(directory), held_by=holder),
            )
        if os.geteuid() == 0 and user is None:
            log.warning("supervisor.workers_are_root", because=MAY_BE_ROOT)
        return Supervisor(str(config_path), config, user, lock_fd, build).run()
    except (AddressInUse, DirectoryBusy) as error:
        print(f"fastmta: {error}", file=sys.stderr)
        return EX_TEMPFAIL
    except ConfigError as error:
        print(f"fastmta: {error}", file=sys.stderr)
        return EX_CONFIG
    except OSError as error:
        print(f"fastmta: {error.filename or 'the server could not start'}: {error.strerror}", file=sys.stderr)
        return EX_TEMPFAIL


if __name__ == "__main__":
    raise SystemExit(serve(sys.argv[1]))
