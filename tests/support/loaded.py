"""`fastmta` from a process that has loaded it: a fork costs a tenth of an interpreter that imports all of it, and the
tests start hundreds.

    process = Loaded(["serve", "-c", "fastmta.toml"], env=environment(), output=log)
    done = run(["queue", "list"], env=environment())

Not for tests of what happens while a program starts, nor with environment variables that an interpreter reads. Password
hashes cost next to nothing there. The loaded process is a child of ours without threads, and goes when we do.
"""

import atexit
import contextlib
import gc
import importlib
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

REPOSITORY = Path(__file__).resolve().parents[2]
REQUEST_BYTES = 1 << 18
#: Command lines with these in their environment are for an interpreter of their own.
READ_EARLY = ("PYTHONPATH", "LD_PRELOAD", "FASTMTA_CRASH_AT", "FASTMTA_TEST_LOOP_PROBE")


class Loaded:
    """A process, as subprocess.Popen has it."""

    def __init__(
        self, words: Sequence[str], *, env: Mapping[str, str], output: int, errors: int | None = None, stdin: int = -1
    ) -> None:
        """`words`: what stands behind `fastmta`; `errors`: as output unless given."""
        self.args = ["fastmta", *words]
        self.returncode: int | None = None
        self.stdin = self.stdout = self.stderr = None
        self._source = _source()
        with open(os.devnull, "rb") as null:
            streams = [stdin if stdin >= 0 else null.fileno(), output, output if errors is None else errors]
            request = {"words": list(words), "env": dict(env), "directory": os.getcwd()}
            self.pid: int = self._source.ask(request, streams)
        self._end = os.pidfd_open(self.pid)

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._end], [], [], 0)[0]:
            self.returncode = self._source.ask({"ended": self.pid}, [])
            os.close(self._end)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None and not select.select([self._end], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(
    words: Sequence[str], *, env: Mapping[str, str], stdin: str = "", timeout: float | None = None
) -> "subprocess.CompletedProcess[str]":
    """As subprocess.run with captured text."""
    with contextlib.ExitStack() as files:
        given, out, err = (files.enter_context(open(os.memfd_create("stream"), "r+b")) for _ in range(3))
        given.write(stdin.encode())
        given.seek(0)
        process = Loaded(words, env=env, output=out.fileno(), errors=err.fileno(), stdin=given.fileno())
        try:
            code = process.wait(timeout)
        except BaseException:
            process.kill()
            process.wait()
            raise
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return subprocess.CompletedProcess(process.args, code, *texts)


class _Source:
    """The process that has loaded the program, as we see it."""

    def __init__(self) -> None:
        self.of = os.getpid()
        self._lock = threading.Lock()
        self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.loaded", "fastmta", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )
        theirs.close()
        atexit.register(self.close)

    def ask(self, request: dict[str, Any], streams: list[int]) -> int:
        with self._lock:
            socket.send_fds(self._link, [json.dumps(request).encode()], streams)
            answer = self._link.recv(REQUEST_BYTES)
        assert answer, "the process that has loaded the program has ended"
        return int(answer)

    def close(self) -> None:
        if self.of == os.getpid():
            self._link.close()
            self._process.wait()


_sources: list[_Source] = []


def _source() -> _Source:
    """That of this process, which may have been forked."""
    if not _sources or _sources[-1].of != os.getpid():
        _sources.append(_Source())
    return _sources[-1]


def _serve(link: socket.socket) -> None:
    """Forks what is asked for, until nobody asks any more."""
    from fastmta.cli.main import COMMANDS

    for name in ("fastmta.supervisor.main", "fastmta.supervisor.build", *(each[0] for each in COMMANDS.values())):
        importlib.import_module(name)
    _cheapen_passwords()
    gc.collect()
    gc.freeze()
    while True:
        data, streams, _, _ = socket.recv_fds(link, REQUEST_BYTES, 3)
        if not data:
            return
        request = json.loads(data)
        if "ended" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["ended"], 0)[1])
        else:
            answer = os.fork()
            if not answer:
                link.close()
                _become(request, streams)
            for fd in streams:
                os.close(fd)
        link.send(str(answer).encode())


def _cheapen_passwords() -> None:
    """A hash is made and checked in no time, and whose password is unknown costs as much as whose is wrong."""
    from fastmta.auth import passwords

    passwords.MEMORY_KIB = 8  # type: ignore[misc]
    passwords.PASSES = 1  # type: ignore[misc]
    passwords._NOBODY = passwords.hash_password(os.urandom(16).hex())  # type: ignore[misc]


def _text(buffer: Any, like: Any) -> io.TextIOWrapper:
    return io.TextIOWrapper(buffer, encoding=like.encoding, errors=like.errors, write_through=True)


def _become(request: dict[str, Any], streams: list[int]) -> NoReturn:
    code = 70
    try:
        os.setsid()
        for number, fd in enumerate(streams):
            os.dup2(fd, number)
            os.close(fd)
        sys.stdin = _text(io.BufferedReader(io.FileIO(0, closefd=False)), sys.stdin)
        sys.stdout = _text(io.FileIO(1, "w", closefd=False), sys.stdout)
        sys.stderr = _text(io.FileIO(2, "w", closefd=False), sys.stderr)
        os.environ.clear()
        os.environ.update(request["env"])
        time.tzset()
        os.chdir(request["directory"])
        words = request["words"]
        sys.argv = ["fastmta", *words]
        if words[:2] == ["serve", "-c"]:
            from fastmta.supervisor.main import serve

            code = serve(words[2])
        else:
            from fastmta.cli.program import main

            code = main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[2])))
