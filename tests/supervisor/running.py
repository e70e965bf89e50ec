"""Starts a server in a process of its own, waits for it by its control socket, and ends it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastmta.admin.control import NotRunning, request

DEADLINE_S = 60.0


class Directory:
    """What `request` needs of a configuration."""

    def __init__(self, data_directory: Path) -> None:
        self.data_directory = str(data_directory)


def eventually(check: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Polls until `check` gives something true, and returns it; fails with `what` after the deadline."""
    end = time.monotonic() + deadline_s
    pause = socket.socketpair()
    pause[0].settimeout(0.01)
    try:
        while True:
            result = check()
            if result:
                return result
            if time.monotonic() > end:
                raise AssertionError(f"not within {deadline_s:g} s: {what}")
            try:
                pause[0].recv(1)
            except TimeoutError:
                continue
    finally:
        for end_of_pair in pause:
            end_of_pair.close()


class Server:
    """A running server with its configuration file and data directory under `root`."""

    def __init__(self, root: Path, text: str, command: list[str], **environment: str) -> None:
        self.root = root
        self.data = root / "data"
        self.config_path = root / "fastmta.toml"
        self.config_path.write_text(text)
        self.log_path = root / "server.log"
        self.command = command
        self.environment = environment
        self.process: subprocess.Popen[bytes] | None = None
        self.started_in_s = 0.0  # what a start takes here and now, once one was waited for

    def start(self, *, ready: bool = True) -> "Server":
        began = time.monotonic()
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, str(self.config_path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )
        if ready:
            eventually(lambda: self.status().get("ready"), f"ready\n{self.log}")
            self.started_in_s = time.monotonic() - began
        return self

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    def ask(self, do: str) -> dict[str, Any]:
        return request(Directory(self.data), {"do": do})

    def status(self) -> dict[str, Any]:
        try:
            return self.ask("status")
        except NotRunning:
            assert self.process is not None
            assert self.process.poll() is None, f"the server left with {self.process.returncode}\n{self.log}"
            return {}

    @property
    def pids(self) -> list[int]:
        return [worker["pid"] for worker in self.status()["workers"]]

    def address(self, service: str, number: int = 0) -> tuple[str, int]:
        found = [entry["address"] for entry in self.status()["listeners"] if entry["service"] == service][number]
        host, _, port = found.rpartition(":")
        return host, int(port)

    def connect(self, service: str = "smtp") -> socket.socket:
        return socket.create_connection(self.address(service), timeout=DEADLINE_S)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ends the server and everything that it started; its exit code."""
        process = self.process
        assert process is not None
        if process.poll() is None:
            process.send_signal(number)
        try:
            return process.wait(DEADLINE_S)
        finally:
            self.kill()

    def kill(self) -> None:
        """Ends what is left of the server's session."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait(DEADLINE_S)


def python(*arguments: str) -> list[str]:
    return [sys.executable, *arguments]
