"""The supervisor with workers that speak a toy protocol: restarts, reloads, stops, counters."""

import os
import pwd
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.supervisor.running import Server, eventually, python

STUB = str(Path(__file__).with_name("stub_server.py"))
PATHS = os.pathsep.join([os.getcwd(), os.environ.get("PYTHONPATH", "")])
AS_ROOT = "workers_may_be_root = true\n"  # counts only where the tests run as root
Start = Callable[..., Server]


def config(workers: int = 1, listen: str = 'smtp = ["127.0.0.1:0"]', name: str = "one.test") -> str:
    return f'myhostname = "{name}"\ndata_directory = "data"\nworkers = {workers}\n{AS_ROOT}[listen]\n{listen}\n'


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    servers: list[Server] = []

    def begin(text: str = "", *, ready: bool = True, **environment: str) -> Server:
        server = Server(tmp_path, text or config(), python(STUB), PYTHONPATH=PATHS, **environment)
        servers.append(server)
        return server.start(ready=ready)

    yield begin
    for server in servers:
        server.kill()


def line(sock: socket.socket, word: str = "") -> str:
    if word:
        sock.sendall(word.encode() + b"\r\n")
    data = b""
    while not data.endswith(b"\n"):
        part = sock.recv(1)
        if not part:
            break
        data += part
    return data.decode().strip()


def totals(server: Server) -> dict[str, Any]:
    return server.status()["totals"]  # type: ignore[no-any-return]


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_every_slot_has_one_ready_worker(start: Start, workers: int) -> None:
    server = start(config(workers))
    found = server.status()["workers"]
    assert [w["slot"] for w in found] == list(range(workers))
    assert all(w["state"] == "ready" for w in found)
    with server.connect() as sock:
        assert line(sock).startswith("220 ")
    assert server.stop() == 0
    assert "Traceback" not in server.log


def test_a_killed_worker_is_replaced_at_once_and_totals_stay(start: Start) -> None:
    server = start()
    with server.connect() as sock:
        line(sock)
        for _ in range(3):
            line(sock, "COUNT")
        assert totals(server)["messages_received"] == 3
        assert server.status()["connections"] == {"smtp": 1}
        before = server.pids
        sock.sendall(b"DIE\r\n")
        assert line(sock) == ""
    eventually(lambda: server.status()["ready"] and server.pids != before, "a new worker")
    assert totals(server)["messages_received"] == 3
    assert server.status()["connections"] == {}
    assert server.status()["restarts"] == 1
    with server.connect() as sock:
        line(sock)
        line(sock, "COUNT")
    assert totals(server)["messages_received"] == 4
    assert '"signal":"SIGKILL"' in server.log


def test_connections_that_wait_in_the_backlog_survive_the_workers_death(start: Start) -> None:
    server = start()
    where = server.address("smtp")
    pid = server.pids[0]
    os.kill(pid, signal.SIGSTOP)
    waiting = [socket.create_connection(where, timeout=60) for _ in range(20)]
    os.kill(pid, signal.SIGKILL)
    for sock in waiting:
        assert line(sock).startswith("220 ")
        sock.close()


def test_a_worker_that_keeps_dying_waits_while_a_sibling_accepts_for_it(start: Start) -> None:
    server = start(config(2))
    for deaths in range(1, 4):
        eventually(lambda: server.status()["ready"], "ready")
        os.kill(next(w["pid"] for w in server.status()["workers"] if w["slot"] == 0), signal.SIGKILL)
        eventually(lambda count=deaths: server.log.count('"worker.died"') == count, "seen dead")
    assert "worker.restart_delayed" in server.log
    for _ in range(16):
        with server.connect() as sock:
            assert line(sock).startswith("220 ")
    eventually(lambda: server.status()["ready"], "back after its wait")
    for _ in range(16):
        with server.connect() as sock:
            assert line(sock).startswith("220 ")


def test_the_only_worker_is_replaced_at_once_however_often_it_dies(start: Start) -> None:
    server = start()
    where = server.address("smtp")
    for _ in range(6):
        with socket.create_connection(where, timeout=60) as sock:
            pid = int(line(sock).split()[2])
            os.kill(pid, signal.SIGKILL)
            began = time.monotonic()
            with socket.create_connection(where, timeout=60) as other:
                assert int(line(other).split()[2]) != pid
            assert time.monotonic() - began < 1.0 + 2 * server.started_in_s  # a start, as long as that takes here
    assert "worker.restart_delayed" not in server.log


def test_a_slot_that_waits_is_served_though_its_sibling_dies_too(start: Start) -> None:
    server = start(config(2))
    for deaths in range(1, 4):
        eventually(lambda: server.status()["ready"], "ready")
        os.kill(next(w["pid"] for w in server.status()["workers"] if w["slot"] == 0), signal.SIGKILL)
        eventually(lambda count=deaths: server.log.count('"worker.died"') == count, "seen dead")
    eventually(lambda: '"listener.adopted"' in server.log, "adopted")
    os.kill(next(w["pid"] for w in server.status()["workers"] if w["slot"] == 1), signal.SIGKILL)
    for _ in range(16):
        with server.connect() as sock:
            sock.settimeout(1.0 + 2 * server.started_in_s)
            assert line(sock).startswith("220 ")


def test_hup_rereads_in_place_without_touching_a_connection(start: Start) -> None:
    server = start()
    before = server.pids
    with server.connect() as sock:
        line(sock)
        assert line(sock, "NAME") == "one.test"
        server.config_path.write_text(config(name="two.test"))
        assert server.ask("reload") == {"ok": True, "replaced": False}
        assert line(sock, "NAME") == "two.test"
    assert server.pids == before


def test_a_storm_of_hups_is_a_reread_a_second_and_the_last_one_counts(start: Start) -> None:
    server = start(config(2))
    before = server.pids
    assert server.process is not None
    began = time.monotonic()
    with server.connect() as sock:
        line(sock)
        sock.settimeout(0.02)
        for _ in range(100):
            server.process.send_signal(signal.SIGHUP)
            with pytest.raises(TimeoutError):
                sock.recv(1)
        server.config_path.write_text(config(2, name="two.test"))
        server.process.send_signal(signal.SIGHUP)
        sock.settimeout(15)
        eventually(lambda: line(sock, "NAME") == "two.test", "the last one is honoured")
    assert server.log.count('"config.reloaded"') <= time.monotonic() - began + 2
    assert server.pids == before


def test_reloads_asked_for_together_are_all_answered(start: Start) -> None:
    server = start()
    with ThreadPoolExecutor(8) as crowd:
        answers = list(crowd.map(server.ask, ["reload"] * 16))
    assert answers == [{"ok": True, "replaced": False}] * 16
    assert server.log.count('"config.reloaded"') <= 4


def test_a_storm_of_hups_to_a_worker_is_a_reread_a_second(start: Start) -> None:
    server = start()
    with server.connect() as sock:
        line(sock)
        for number in range(50):
            server.config_path.write_text(config(name=f"n{number}.test"))
            os.kill(server.pids[0], signal.SIGHUP)
            assert line(sock, "PING") == "OK"
        eventually(lambda: line(sock, "NAME") == "n49.test", "the last one is honoured")


def test_a_wrong_configuration_changes_nothing(start: Start) -> None:
    server = start()
    server.config_path.write_text(config() + "nonsense = 1\n")
    answer = server.ask("reload")
    assert not answer["ok"]
    assert "nonsense" in answer["error"]
    server.config_path.write_text(config(name="broken.test"))
    assert server.ask("reload") == {"ok": False, "error": "this configuration cannot be used"}
    with server.connect() as sock:
        line(sock)
        assert line(sock, "NAME") == "one.test"


def test_more_workers_and_ports_replace_processes_and_old_sessions_go_on(start: Start) -> None:
    server = start()
    old_pid = server.pids[0]
    with server.connect() as sock:
        line(sock)
        server.config_path.write_text(config(3, 'smtp = ["127.0.0.1:0"]\nimap = ["127.0.0.1:0"]'))
        port = server.address("smtp")
        server.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
        eventually(lambda: len(server.status()["workers"]) == 4 and server.status()["ready"], "the new generation")
        eventually(lambda: server.status()["workers"][0]["state"] == "draining", "the old one drains")
        assert server.address("smtp") == port
        with server.connect("imap") as other:
            assert line(other).endswith("imap")
        assert line(sock, "PING") == "OK"
        assert line(sock, "OWN") == "no"
        with server.connect() as fresh:
            assert int(line(fresh).split()[2]) != old_pid
            eventually(lambda: line(fresh, "OWN") == "yes", "the new one owns")
    eventually(lambda: old_pid not in server.pids, "the old one leaves with its last session")


@pytest.mark.parametrize("how", ["released", "killed"])
def test_hops_have_no_second_owner_before_the_old_generation_has_let_go(start: Start, how: str) -> None:
    """Dealt out anew, a hop of the one old worker belongs to either of two: neither may walk it early."""
    server = start()
    old = server.pids[0]
    with server.connect() as sock:
        line(sock)
        eventually(lambda: line(sock, "OWN") == "yes", "the first owns")
        line(sock, "KEEP")
        server.config_path.write_text(config(2))
        assert server.ask("reload")["ok"]
        eventually(
            lambda: server.status()["ready"] and any(w["state"] == "draining" for w in server.status()["workers"]),
            "the new generation serves, and the old one was told to let go",
        )
        assert server.ask("reload")["ok"], "whatever the new ones were told before this, they have done"
        assert line(sock, "OWN") == "yes"
        assert owners_among(server, 2) == {"no"}
        if how == "released":
            line(sock, "LET")
        else:
            os.kill(old, signal.SIGKILL)
        eventually(lambda: owners_among(server, 2) == {"yes"}, "both own")
        if how == "released":
            assert line(sock, "OWN") == "no"


def owners_among(server: Server, workers: int) -> set[str]:
    """What each of the workers that accept answers to OWN."""
    answers: dict[str, str] = {}
    while len(answers) < workers:
        with server.connect() as sock:
            slot = line(sock).split()[1]
            answers[slot] = line(sock, "OWN")
    return set(answers.values())


def test_two_changes_end_no_session_and_a_third_ends_the_oldest(start: Start) -> None:
    server = start()
    sessions = []
    for workers in (2, 1, 2):
        sock = server.connect()
        assert line(sock).startswith("220 ")
        sessions.append(sock)
        server.config_path.write_text(config(workers))
        answer = server.ask("reload")
        assert answer["ok"]
        assert answer.get("postponed", False) == (len(sessions) == 3)
        generation = len(sessions) + 1
        eventually(
            lambda wanted=generation, count=workers: (
                server.status()["ready"] and sum(w["generation"] == wanted for w in server.status()["workers"]) == count
            ),
            "the new generation",
        )
    assert line(sessions[0]) == "421 bye"
    for sock in sessions[1:]:
        assert line(sock, "PING") == "OK"
    for sock in sessions:
        sock.close()
    assert server.stop() == 0


def test_connections_during_a_replacement_are_all_greeted(start: Start) -> None:
    server = start(config(2))
    where = server.address("smtp")
    for workers in (1, 3):
        server.config_path.write_text(config(workers))
        server.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
        done = 0
        while done < 20 or not (server.status()["ready"] and len(server.pids) == workers):
            with socket.create_connection(where, timeout=60) as sock:
                assert line(sock).startswith("220 ")
            done += 1


def test_term_finishes_the_transaction_then_says_goodbye(start: Start) -> None:
    server = start()
    with server.connect() as busy, server.connect() as idle:
        line(busy)
        line(idle)
        line(busy, "HOLD")
        server.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
        assert line(idle) == "421 bye"
        assert line(busy, "PING") == "OK"
        assert line(busy, "DONE") == "OK"
        assert line(busy) == "421 bye"
    assert server.stop() == 0


def test_however_often_it_is_told_to_stop_it_ends_well(start: Start) -> None:
    server = start()
    process = server.process
    assert process is not None
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
    assert process.returncode == 0, server.log


def test_a_failed_store_replaces_all_workers(start: Start) -> None:
    server = start(config(2))
    before = server.pids
    with server.connect() as sock:
        line(sock)
        line(sock, "FAIL")
        eventually(lambda: server.status()["ready"] and not set(server.pids) & set(before), "fresh workers")
    assert "store.failed" in server.log


def test_a_new_supervisor_serves_at_once_while_the_dead_ones_worker_finishes(start: Start, tmp_path: Path) -> None:
    server = start()
    where = server.address("smtp")
    text = config(listen=f'smtp = ["{where[0]}:{where[1]}"]')
    with server.connect() as sock:
        line(sock)
        line(sock, "HOLD")
        eventually(lambda: line(sock, "OWN") == "yes", "the first owns")
        server.process.kill()  # type: ignore[union-attr]
        server.process.wait()  # type: ignore[union-attr]
        second = Server(tmp_path, text, python(STUB), PYTHONPATH=PATHS).start(ready=False)
        try:
            eventually(lambda: second.log.count('"supervisor.ready"') == 2, "the second serves")
            with second.connect() as fresh:
                assert line(fresh).startswith("220 ")
                assert line(sock, "PING") == "OK"
                line(sock, "DONE")
                eventually(lambda: line(fresh, "OWN") == "yes", "and owns when the first has let go")
            assert second.stop() == 0
        finally:
            second.kill()


def test_hops_have_no_second_owner_while_a_dead_supervisors_worker_lives(start: Start, tmp_path: Path) -> None:
    server = start()
    old = server.pids[0]
    os.kill(old, signal.SIGSTOP)
    server.process.kill()  # type: ignore[union-attr]
    server.process.wait()  # type: ignore[union-attr]
    second = Server(tmp_path, config(), python(STUB), PYTHONPATH=PATHS).start()
    try:
        with second.connect() as sock:
            line(sock)
            assert line(sock, "OWN") == "no"
            os.kill(old, signal.SIGKILL)
            eventually(lambda: line(sock, "OWN") == "yes", "it owns")
    finally:
        second.kill()


def test_a_crash_point_is_not_inherited_by_the_successor(start: Start) -> None:
    server = start(config(), FASTMTA_CRASH_AT="before_250")
    pid = server.pids[0]
    with server.connect() as sock:
        line(sock)
        assert line(sock, "CRASH_AT") == "before_250"
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: server.status()["ready"] and server.pids != [pid], "a successor")
    with server.connect() as sock:
        line(sock)
        assert line(sock, "CRASH_AT") == "nothing"


def test_a_configuration_that_no_worker_can_use_ends_the_server(start: Start) -> None:
    server = start(config(name="broken.test"), ready=False)
    assert server.process.wait(15) == 78  # type: ignore[union-attr]
    assert "this configuration cannot be used" in server.log


@pytest.mark.skipif(os.geteuid() != 0, reason="for others default_user means nothing")
@pytest.mark.parametrize("user", ["no-such-user", "root"])
def test_root_without_a_user_for_its_workers_refuses_to_serve(start: Start, user: str) -> None:
    server = start(config().replace(AS_ROOT, f'default_user = "{user}"\n'), ready=False)
    assert server.process.wait(15) == 78  # type: ignore[union-attr]
    assert server.log.startswith("fastmta: default_user: ")
    assert server.log.count("\n") == 1
    assert not server.data.exists()


def test_readiness_reload_and_stop_are_told_to_systemd(start: Start, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        path = f"/proc/self/fd/{os.open(tmp_path, os.O_RDONLY)}/notify"
        manager.bind(path)
        manager.settimeout(15)
        server = start(config(), NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert manager.recv(500).startswith(b"READY=1")
        server.ask("reload")
        assert manager.recv(500).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
        assert manager.recv(500).startswith(b"READY=1")
        server.ask("stop")
        assert manager.recv(500).startswith(b"STOPPING=1")
    assert server.stop() == 0


def test_the_control_socket_answers_ping_and_refuses_nonsense(start: Start) -> None:
    server = start()
    assert server.ask("ping")["ok"]
    assert "unknown command" in server.ask("dance")["error"]
    status = server.ask("status")
    assert status["queue"] == {"active": 3, "deferred": 0, "held": 0}


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\n",
        b'{"do":"\xa9"}\n',
        b'{"\xff":1}\n',
        b"[" * 5000 + b"\n",
        b"[1]\n",
        b"\n",
        b'{"do":["x"]}\n',
        b"\0\n",
    ],
)
def test_no_octets_at_the_control_socket_end_the_server(start: Start, raw: bytes) -> None:
    server = start()
    with socket.socket(socket.AF_UNIX) as sock:
        directory = os.open(server.data, os.O_RDONLY)
        sock.connect(f"/proc/self/fd/{directory}/control.sock")
        os.close(directory)
        sock.settimeout(15)
        sock.sendall(raw)
        assert b'"ok":false' in sock.recv(4096)
    assert server.ask("ping")["ok"]


def test_a_unix_socket_is_shared_by_all_workers(start: Start, tmp_path: Path) -> None:
    server = start(config(2, 'lmtp = ["unix:lmtp.sock"]'))
    path = server.status()["listeners"][0]["address"].removeprefix("unix:")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(15)
        sock.connect(path)
        assert line(sock).endswith("lmtp")
    assert server.stop() == 0
    assert not Path(path).exists()


@pytest.mark.parametrize("few", [24, 40])
def test_a_limit_of_open_files_that_is_too_small_is_refused_in_one_line(tmp_path: Path, few: int) -> None:
    command = ["prlimit", f"--nofile={few}:{few}", *python(STUB)]
    server = Server(tmp_path, config(1), command, PYTHONPATH=PATHS).start(ready=False)
    assert server.process is not None
    assert server.process.wait(15) == 78
    assert server.log.startswith(f"fastmta: the limit of open files is {few}, and this configuration needs at least ")
    assert server.log.count("\n") == 1


def test_a_change_that_needs_too_many_descriptors_changes_nothing(tmp_path: Path) -> None:
    command = ["prlimit", "--nofile=64:64", *python(STUB)]
    server = Server(tmp_path, config(), command, PYTHONPATH=PATHS).start()
    try:
        server.config_path.write_text(config(60))
        assert "the limit of open files is 64" in server.ask("reload")["error"]
        assert len(server.pids) == 1
    finally:
        server.kill()


def test_short_descriptors_pause_accepting_without_a_spin_and_it_resumes(tmp_path: Path) -> None:
    command = ["prlimit", "--nofile=64:64", *python(STUB)]
    server = Server(tmp_path, config(), command, PYTHONPATH=PATHS).start()
    try:
        where, pid = server.address("smtp"), server.pids[0]
        clients = [socket.create_connection(where, timeout=60) for _ in range(200)]
        greeted = 0
        while greeted < 20:
            line(clients[greeted])
            greeted += 1
        eventually(lambda: "listener.paused" in server.log, "the pause")
        busy = cpu_ticks(pid)
        server.status()
        for sock in clients[:greeted]:
            sock.close()
        for sock in clients[greeted:]:
            assert line(sock).startswith("220 ")
            sock.close()
        assert cpu_ticks(pid) - busy < 300
        eventually(lambda: "listener.resumed" in server.log, "the end of the shortage")
        assert server.log.count("listener.paused") == 1
        assert server.stop() == 0
    finally:
        server.kill()


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def nobody_can_run_python() -> bool:
    try:
        return (
            subprocess.run([sys.executable, "-c", ""], user="nobody", check=False, capture_output=True).returncode == 0
        )
    except OSError:
        return False


@pytest.mark.skipif(not nobody_can_run_python(), reason="needs root, and an interpreter that nobody may run")
def test_workers_drop_to_default_user_and_still_get_the_private_key(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        (root / "key.pem").write_text("only root reads this")
        (root / "key.pem").chmod(0o600)
        (root / "cert.pem").write_text("anybody")
        tls = '[tls]\ncert_file = "cert.pem"\nkey_file = "key.pem"\n'
        server = Server(
            root, config().replace(AS_ROOT, 'default_user = "nobody"\n') + tls, python(STUB), PYTHONPATH=PATHS
        ).start()
        try:
            nobody = pwd.getpwnam("nobody").pw_uid
            assert os.stat(f"/proc/{server.pids[0]}").st_uid == nobody
            assert server.data.stat().st_uid == nobody
            with server.connect() as sock:
                line(sock)
                assert line(sock, "PRIVATE") == "only root reads this"
                (root / "key.pem").write_text("a new key")
                server.ask("reload")
                assert line(sock, "PRIVATE") == "a new key"
            assert server.stop() == 0
        finally:
            server.kill()
