import socket
import subprocess
import sys

from tests.faults.one_owner import OneOwner, owners


def connected(port: int) -> "subprocess.Popen[bytes]":
    code = (
        f"import socket, sys; s = socket.create_connection(('127.0.0.1', {port})); print(flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    return child


def test_two_processes_on_one_hop_are_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        first = connected(port)
        assert owners(port) == {first.pid}
        with OneOwner(port) as watch:
            second = connected(port)
            for _ in range(100):
                if watch.twice or watch._stop.wait(0.1):
                    break
        for child in (first, second):
            child.communicate(b"")
        assert watch.twice
        assert watch.seen == {first.pid, second.pid}
