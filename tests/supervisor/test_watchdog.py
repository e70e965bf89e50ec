"""A worker whose loop stands still is named with what it hangs in, served for by a sibling, and replaced in time."""

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastmta.supervisor.watchdog import stack_of
from tests.supervisor.running import Server, eventually, python
from tests.supervisor.test_supervisor import PATHS, STUB, config, line

NAMED_S = 5.0
Start = Callable[..., Server]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    servers: list[Server] = []

    def begin(workers: int = 2, watchdog: str = "30s") -> Server:
        text = f'worker_watchdog = "{watchdog}"\n' + config(workers)
        servers.append(Server(tmp_path, text, python(STUB), PYTHONPATH=PATHS))
        return servers[-1].start()

    yield begin
    for server in servers:
        server.kill()


def event(server: Server, name: str) -> dict[str, Any] | None:
    lines = (json.loads(each) for each in server.log.splitlines() if f'"event":"{name}"' in each)
    return next(lines, None)


def named(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = eventually(
        lambda: event(server, "worker.stuck"), "it is named", NAMED_S + 2 * server.started_in_s
    )
    return found


def spin(server: Server) -> int:
    """Holds the loop of one worker; its process."""
    with server.connect() as sock:
        pid = int(line(sock).split()[2])
        sock.sendall(b"SPIN\r\n")
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            line(sock, "PING")
    return pid


def test_a_held_loop_is_named_with_its_python_stack(start: Start) -> None:
    server = start()
    pid = spin(server)
    found = named(server)
    assert (found["worker_pid"], found["level"]) == (pid, "error")
    assert found["stack"][0].startswith("spin at supervisor/stub_server.py:")
    assert found["stack"][1].startswith("data_received at ")


def test_a_stopped_process_is_named_by_the_kernels_word(start: Start) -> None:
    server = start()
    os.kill(server.pids[0], signal.SIGSTOP)
    found = named(server)
    assert found["process"] == "stopped by a signal"
    assert "stack" not in found


def test_a_sibling_accepts_for_a_stuck_worker_and_it_is_not_ready(start: Start) -> None:
    server = start()
    where = server.address("smtp")
    pid = spin(server)
    named(server)
    assert not server.status()["ready"]
    for _ in range(16):
        with socket.create_connection(where, timeout=20.0) as sock:
            assert int(line(sock).split()[2]) != pid


def test_a_worker_that_comes_back_is_kept(start: Start) -> None:
    server = start()
    pid = server.pids[0]
    os.kill(pid, signal.SIGSTOP)
    named(server)
    os.kill(pid, signal.SIGCONT)
    eventually(lambda: event(server, "worker.recovered"), "it is back")
    eventually(lambda: server.status()["ready"], "all are ready")
    assert pid in server.pids
    assert server.status()["restarts"] == 0


@pytest.mark.parametrize("how", ["stopped", "spinning"])
def test_a_stuck_worker_is_replaced_after_worker_watchdog(start: Start, how: str) -> None:
    server = start(1, "4s")
    where = server.address("smtp")
    pid = server.pids[0]
    if how == "stopped":
        os.kill(pid, signal.SIGSTOP)
    else:
        spin(server)
    with socket.create_connection(where, timeout=20.0) as sock:  # waits in the backlog
        assert int(line(sock).split()[2]) != pid
        eventually(lambda: line(sock, "OWN") == "yes", "its successor walks the hops")
    killed = event(server, "worker.killed")
    assert killed
    silent_s = int(killed["reason"].removeprefix("stuck for ").removesuffix(" s"))  # since its last word, not the stop
    assert 4 <= silent_s < 10
    assert server.stop() == 0


def test_zero_never_replaces(start: Start) -> None:
    server = start(2, "0")
    os.kill(server.pids[0], signal.SIGSTOP)
    assert "replaced_after_s" not in named(server)


def test_an_idle_server_is_not_stuck(start: Start) -> None:
    server = start(2)
    with server.connect() as sock:
        line(sock)
        sock.settimeout(4.0)
        with pytest.raises(TimeoutError):
            sock.recv(1)
    assert "worker.stuck" not in server.log


def test_a_stack_is_read_innermost_first() -> None:
    raw = b'Current thread 0x00 (most recent call first):\n  File "/opt/x/fastmta/imap/search.py", line 7 in walk\n'
    assert stack_of(raw) == ["walk at fastmta/imap/search.py:7"]
    assert stack_of(b"") == []
