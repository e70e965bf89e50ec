"""An address that another process listens on is refused, whoever it is; whose it is by right is taken over."""

import grp
import os
import pwd
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastmta.model.errors import ConfigError
from fastmta.supervisor import listeners as module
from fastmta.supervisor.listeners import Address, AddressInUse, Listeners
from tests.supervisor.running import Server, eventually, python
from tests.supervisor.test_supervisor import PATHS, STUB, config, line
from tests.support.ports import free_port

SOON_S = 1.0 + 0.5  # the promise, and an interpreter; on a busy machine beside what a start takes there
REFUSED = 75
Begin = Callable[..., Server]


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Begin]:
    """Starts a server in a directory of its own."""
    servers: list[Server] = []

    def start(name: str, text: str, *, ready: bool = True) -> Server:
        root = tmp_path / name
        root.mkdir(exist_ok=True)
        server = Server(root, text, python(STUB), PYTHONPATH=PATHS)
        server.started_in_s = max((each.started_in_s for each in servers), default=5.0)  # 5: nobody knows
        servers.append(server)
        return server.start(ready=ready)

    yield start
    for server in servers:
        server.kill()


def refusal(server: Server) -> str:
    """The last line of a server that had to refuse within a second."""
    started = time.monotonic()
    assert server.process is not None
    assert server.process.wait(15) == REFUSED
    assert time.monotonic() - started < SOON_S + 2 * server.started_in_s
    assert "Traceback" not in server.log
    return server.log.splitlines()[-1]


@pytest.mark.parametrize("service", ["smtp", "submission", "lmtp", "imap", "pop3", "http"])
def test_two_servers_never_share_a_port(begin: Begin, service: str) -> None:
    first = begin("first", config(2, f'{service} = ["127.0.0.1:0"]'))
    host, port = first.address(service)
    second = begin("second", config(2, f'{service} = ["{host}:{port}"]'), ready=False)
    assert first.process is not None
    said = (
        f"listen.{service}: cannot listen on {host}:{port}: address already in use by fastmta pid {first.process.pid}"
    )
    assert refusal(second) == f"fastmta: {said}"
    with first.connect(service) as sock:
        assert line(sock).endswith(service)


@pytest.mark.parametrize("reuse", [False, True])
def test_a_port_of_another_program_is_refused(begin: Begin, reuse: bool) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = begin("one", config(listen=f'smtp = ["127.0.0.1:{port}"]'), ready=False)
        assert f"127.0.0.1:{port}: address already in use by python" in refusal(server)
        assert f" pid {os.getpid()}" in server.log


def test_all_addresses_and_one_of_them_are_the_same_port(begin: Begin) -> None:
    first = begin("first", config(listen='smtp = ["0.0.0.0:0"]'))
    port = first.address("smtp")[1]
    assert first.process is not None
    said = refusal(begin("second", config(listen=f'smtp = ["127.0.0.1:{port}"]'), ready=False))
    assert said.endswith(f"already in use by fastmta pid {first.process.pid}")


def test_a_unix_socket_of_another_server_stays_its_own(begin: Begin, tmp_path: Path) -> None:
    path = tmp_path / "lmtp.sock"
    first = begin("first", config(listen=f'lmtp = ["unix:{path}"]'))
    second = begin("second", config(listen=f'lmtp = ["unix:{path}"]'), ready=False)
    assert first.process is not None
    assert refusal(second).endswith(f"already in use by fastmta pid {first.process.pid}")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(15)
        sock.connect(str(path))
        assert line(sock).endswith("lmtp")


def test_a_unix_socket_left_behind_is_taken(begin: Begin, tmp_path: Path) -> None:
    path = tmp_path / "lmtp.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    begin("one", config(listen=f'lmtp = ["unix:{path}"]'))
    assert path.stat().st_mode & 0o777 == 0o666


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_a_unix_socket_has_the_mode_and_owner_that_are_wanted(tmp_path: Path, mode: int) -> None:
    group = grp.getgrgid(os.getgid()).gr_name
    user = pwd.getpwuid(os.getuid()).pw_name
    if os.getuid() == 0:
        group, user = "daemon", "nobody"
    listeners = Listeners()
    text = f"unix:{tmp_path}/lmtp.sock;mode={mode:04o};user={user};group={group}"
    bound, _ = listeners.change([Address("lmtp", text)], 1)
    made = (tmp_path / "lmtp.sock").lstat()
    assert stat.S_IMODE(made.st_mode) == mode
    assert (made.st_uid, made.st_gid) == (pwd.getpwnam(user).pw_uid, grp.getgrnam(group).gr_gid)
    assert bound[0].bound == f"unix:{tmp_path}/lmtp.sock"
    listeners.close()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("setting", ["user=no-such-user", "group=no-such-group"])
def test_a_unix_socket_for_somebody_unknown_is_refused(tmp_path: Path, setting: str) -> None:
    with pytest.raises(ConfigError, match=f"no-such-{setting.partition('=')[0]}"):
        Listeners().change([Address("lmtp", f"unix:{tmp_path}/lmtp.sock;{setting}")], 1)
    assert os.listdir(tmp_path) == []


def test_a_file_in_a_unix_sockets_place_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "lmtp.sock").write_text("somebody's")
    with pytest.raises(ConfigError):
        Listeners().change([Address("lmtp", f"unix:{tmp_path}/lmtp.sock")], 1)
    assert (tmp_path / "lmtp.sock").read_text() == "somebody's"


def test_a_second_server_on_one_data_directory_is_refused_at_once(begin: Begin) -> None:
    first = begin("same", config())
    second = begin("same", config(), ready=False)
    assert first.process is not None
    assert refusal(second).endswith(f"data is in use by fastmta pid {first.process.pid}")


def test_a_server_that_is_leaving_is_waited_for(begin: Begin) -> None:
    first = begin("same", config())
    with first.connect() as sock:
        line(sock)
        line(sock, "HOLD")
        assert first.process is not None
        first.process.send_signal(signal.SIGTERM)
        eventually(lambda: "supervisor.stopping" in first.log, "it leaves")
        second = begin("same", config(), ready=False)
        eventually(lambda: "supervisor.waiting" in second.log, "the next one waits")
        line(sock, "DONE")
    eventually(lambda: "supervisor.ready" in second.log, "the next one serves")


def test_ports_are_kept_through_reloads_and_given_back(begin: Begin) -> None:
    server = begin("one", config(2))
    port = server.address("smtp")[1]
    another = free_port()
    for workers in (3, 1, 2):
        text = config(workers, f'smtp = ["127.0.0.1:0"]\nimap = ["127.0.0.1:{another}"]')
        server.config_path.write_text(text if workers == 3 else config(workers))
        assert server.ask("reload")["ok"]
        eventually(lambda: server.status()["ready"], "ready again")
        assert server.address("smtp")[1] == port
    assert server.stop() == 0
    begin("two", config(listen=f'smtp = ["127.0.0.1:{port}"]'))


def test_the_wildcard_and_one_address_of_it_may_both_be_ours() -> None:
    listeners = Listeners()
    listeners.change([Address("smtp", "0.0.0.0:0")], 2)
    port = next(iter(listeners.endpoints.values())).sockets[0].getsockname()[1]
    listeners.change([Address("smtp", "0.0.0.0:0"), Address("smtp", f"127.0.0.1:{port}")], 2)
    assert [len(endpoint.sockets) for endpoint in listeners.endpoints.values()] == [2, 2]
    listeners.close()


def test_a_refused_change_leaves_what_was(monkeypatch: pytest.MonkeyPatch) -> None:
    listeners = Listeners()
    listeners.change([Address("smtp", "127.0.0.1:0")], 1)
    # As if it were another process, which cannot be told apart from a test's own socket otherwise.
    monkeypatch.setattr(module, "processes_of", lambda inodes: {1})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        wanted = [Address("smtp", "127.0.0.1:0"), Address("imap", f"127.0.0.1:{taken.getsockname()[1]}")]
        with pytest.raises(AddressInUse):
            listeners.change(wanted, 1)
    assert [address.service for address in listeners.endpoints] == ["smtp"]
    listeners.close()


def test_an_inherited_socket_is_served_and_not_bound_again(begin: Begin, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as passed:
        port = passed.getsockname()[1]
        wanted = Address("smtp", f"127.0.0.1:{port}")
        listeners = Listeners([("smtp", passed.dup())])
        fresh, _ = listeners.change([wanted], 2)
        assert fresh[0].shared
        assert fresh[0].sockets[0].getsockname()[1] == port
        listeners.close()
