"""The launcher: a process that stays root and starts the commands of [pipe.NAME] as the users that the file names.

The supervisor forks it where a pipe is configured, and again for a changed configuration or when it has died. It reads
nothing but the workers' requests (runtime/launching.py): the name of a pipe and the values of macros. Templates, user,
directory and time limit are the configuration file's, so a worker that has been taken over can run nothing else. Each
request is served by a child of its own, which waits for the command, reads what it says, and ends it when its time is
over or its worker has gone.

Without root, commands run as who runs the server; `check` allows no other user then.
"""

import os
import resource
import select
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from fastmta.config.schema import Config
from fastmta.config.tables import PipeConfig
from fastmta.delivery.pipe_command import Unsafe, expand
from fastmta.model.limits import PIPE_OUTPUT_BYTES, PIPE_REQUEST_BYTES
from fastmta.runtime.identity import CommandUser, command_user
from fastmta.runtime.launching import Ended, Request
from fastmta.runtime.log import Log
from fastmta.supervisor.process import Process, close_others

RESTART_S: Final = 1.0
_NAME: Final = "fastmta-launch"
_PATH: Final = "/usr/bin:/bin"  # glibc's _PATH_DEFPATH, as in pipe(8)
_KEPT: Final = ("TZ", "LANG")  # Postfix's export_environment


class Prepared(NamedTuple):
    """A pipe with its user looked up."""

    pipe: PipeConfig
    whom: CommandUser | None


class LauncherProcess:
    """The supervisor's side: keeps one launcher for the present configuration."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._theirs, self._ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process: Process | None = None
        self._pipes: Mapping[str, PipeConfig] = {}
        self._start_at = 0.0

    @property
    def client_fd(self) -> int:
        """The end for workers, the same for as long as we live."""
        return self._ours.fileno()

    def configure(self, config: Config) -> None:
        """Starts, replaces or ends the launcher; commands under way go on."""
        if config.pipe == self._pipes:
            return
        self._pipes = config.pipe
        self._start_at = 0.0
        self._end()
        self.look()

    def look(self) -> None:
        """Starts a launcher where there should be one and is none."""
        if self._process is not None and self._process.poll() is not None:
            self._log.error("launcher.died", status=self._process.returncode)
            self._process = None
            self._start_at = time.monotonic() + RESTART_S
        if self._process is None and self._pipes and time.monotonic() >= self._start_at:
            try:
                self._process = self._fork()
            except OSError as error:
                self._log.error("launcher.not_started", error=error)
                self._start_at = time.monotonic() + RESTART_S
            except ValueError as error:  # of a user: only another configuration helps
                self._log.error("launcher.not_started", error=error)
                self._start_at = float("inf")

    def next_deadline(self) -> float:
        """When to look again, in monotonic seconds."""
        return self._start_at if self._process is None and self._pipes else float("inf")

    def close(self) -> None:
        self._end()
        self._theirs.close()
        self._ours.close()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()  # it serves requests in children, which stay
            os.waitpid(self._process.pid, 0)
            self._process = None

    def _fork(self) -> Process:
        prepared = {
            name: Prepared(pipe, command_user(pipe.user) if os.geteuid() == 0 else None)
            for name, pipe in self._pipes.items()
        }
        pid = os.fork()
        if pid == 0:
            try:
                signal.set_wakeup_fd(-1)
                for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.SIG_IGN)  # it ends when all that may ask have gone
                signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children that serve a request are nobody's to wait for
                signal.pthread_sigmask(signal.SIG_SETMASK, ())
                Path("/proc/self/comm").write_text(_NAME)
                (fd,) = close_others([self._theirs.fileno()])
                serve(socket.socket(fileno=fd), prepared)
            finally:
                os._exit(0)
        return Process(pid)


def serve(requests: socket.socket, pipes: Mapping[str, Prepared]) -> None:
    """Takes requests until everybody who may ask has gone."""
    while True:
        raw, fds, _, _ = socket.recv_fds(requests, PIPE_REQUEST_BYTES, 2)
        if not raw:
            return
        try:
            if len(fds) == 2 and os.fork() == 0:
                try:
                    requests.close()
                    _serve_one(raw, fds[0], fds[1], pipes)
                finally:
                    os._exit(0)
        except OSError:  # no room for a process: whoever asked sees the pipe closed, and defers
            pass
        finally:
            for fd in fds:
                os.close(fd)


def _serve_one(raw: bytes, mail_fd: int, end_fd: int, pipes: Mapping[str, Prepared]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        request = msgspec.msgpack.decode(raw, type=Request)
        prepared = pipes[request.pipe]
        ended = _run(prepared, expand(prepared.pipe.argv, request.common, request.recipients), mail_fd, end_fd)
    except Unsafe as error:
        ended = Ended(unsafe=str(error))
    except KeyError as error:
        ended = Ended(error=f"there is no pipe or macro {error}")
    except (OSError, msgspec.MsgspecError, UnicodeError) as error:
        ended = Ended(error=str(error))
    os.write(end_fd, msgspec.msgpack.encode(ended))


def _run(prepared: Prepared, arguments: list[str], mail_fd: int, end_fd: int) -> Ended:
    said_read, said_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    failed_read, failed_write = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(said_write, True)
    pid = os.fork()
    if pid == 0:
        try:
            _become(prepared, arguments, mail_fd, said_write, failed_write)
        except BaseException as error:
            os.write(failed_write, str(getattr(error, "strerror", None) or error).encode()[:200])
        finally:
            os._exit(71)
    os.close(said_write)
    os.close(failed_write)
    os.close(mail_fd)
    why = os.read(failed_read, 200)  # closed by execve
    if why:
        os.waitpid(pid, 0)
        return Ended(error=f"{arguments[0]}: {why.decode(errors='replace')}")
    return _await(pid, said_read, end_fd, prepared.pipe.time_limit)


def _become(prepared: Prepared, arguments: list[str], mail_fd: int, said_fd: int, failed_fd: int) -> None:
    """The rest of the child: another user, a session of its own, no descriptor but the three, and the program."""
    os.setsid()
    os.dup2(mail_fd, 0)
    os.dup2(said_fd, 1)
    os.dup2(said_fd, 2)
    os.closerange(3, failed_fd)
    os.closerange(failed_fd + 1, os.sysconf("SC_OPEN_MAX"))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if prepared.whom is not None:
        os.setgroups(prepared.whom.groups)
        os.setresgid(prepared.whom.gid, prepared.whom.gid, prepared.whom.gid)
        os.setresuid(prepared.whom.uid, prepared.whom.uid, prepared.whom.uid)
    os.umask(0o077)
    os.chdir(prepared.pipe.directory or "/")
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    raw = [argument.encode("utf-8", "surrogateescape") for argument in arguments]
    os.execve(raw[0], raw, {"PATH": _PATH, **kept})


def _await(pid: int, said_fd: int, end_fd: int, limit_s: float) -> Ended:
    """Waits for the command's end, its time, or its worker's end, and reads what it says."""
    deadline = time.monotonic() + limit_s
    process = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(process, select.POLLIN)
    poll.register(said_fd, select.POLLIN)
    poll.register(end_fd, 0)  # POLLERR: nobody reads what we would tell
    said, late = bytearray(), False
    while True:
        left_s = deadline - time.monotonic()
        events: dict[int, Any] = dict(poll.poll(max(0, int(left_s * 1000)) + 1)) if left_s > 0 else {}
        if left_s <= 0 or end_fd in events:
            late = end_fd not in events
            os.killpg(pid, signal.SIGKILL)
            break
        if said_fd in events and not _hear(said_fd, said):
            poll.unregister(said_fd)
        if process in events:
            break
    _, status = os.waitpid(pid, 0)
    while _hear(said_fd, said) and len(said) < PIPE_OUTPUT_BYTES:
        continue
    return Ended(os.waitstatus_to_exitcode(status), late, bytes(said))


def _hear(fd: int, said: bytearray) -> bool:
    """Reads what is there and keeps the beginning; False where there is no more."""
    try:
        piece = os.read(fd, 65_536)
    except BlockingIOError:
        return False
    said += piece[: PIPE_OUTPUT_BYTES - len(said)]
    return bool(piece)
