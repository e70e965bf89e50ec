"""A whole FastMTA server as a subprocess: own directory, own ports, a configuration file, accounts made by the CLI.

    with Server(tmp_path) as server:
        server.add_user("bill@example.test", "secret")
        server.port("imap")

The server is up when /readyz says so. Whatever it leaves behind is ended by `stop`. `kill` is SIGKILL, and `start` may
follow it: the ports and the data stay.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import loaded, processes
from tests.support.ports import free_ports

REPOSITORY = Path(__file__).resolve().parents[2]
SERVICES = ("smtp", "submission", "submissions", "lmtp", "imap", "imaps", "pop3", "pop3s", "http")
START_TIMEOUT_S = 90.0
# An older tree, which a benchmark has beside this one (bench/trees.py), has the entry point of before.
_PROGRAM = """\
import sys
try:
    from fastmta.cli.program import main
except ModuleNotFoundError as missing:
    if missing.name != "fastmta.cli.program":
        raise
    from fastmta.cli.main import main
sys.exit(main())
"""


def command(*arguments: str) -> list[str]:
    """The command line that runs `fastmta` from this source tree, installed or not."""
    return [sys.executable, "-c", _PROGRAM, *arguments]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    out = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1"}
    out.pop("FASTMTA_CONFIG", None)
    out.pop("FASTMTA_TEST_ENGINE", None)  # a server is several processes: its store lies on disk
    out.update(extra or {})
    return out


def _toml_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Path | str):
        return json.dumps(str(value), ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Iterable):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    raise TypeError(f"no TOML form for {value!r}")


def encode_toml(settings: Mapping[str, Any]) -> str:
    """TOML of top-level leaves and tables of leaves: all that a configuration has."""
    lines = [f"{key} = {_toml_value(value)}" for key, value in settings.items() if not isinstance(value, Mapping)]
    for table, leaves in settings.items():
        if isinstance(leaves, Mapping):
            lines += ["", f"[{table}]"]
            lines += [f"{json.dumps(key)} = {_toml_value(value)}" for key, value in leaves.items()]
    return "\n".join(lines) + "\n"


def merge(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`settings` with `changes` laid over it, tables leaf by leaf."""
    out = dict(settings)
    for key, value in changes.items():
        known = out.get(key)
        out[key] = merge(known, value) if isinstance(known, Mapping) and isinstance(value, Mapping) else value
    return out


class Server:
    """One server. `settings` is laid over the defaults below; `services` says which listeners it gets."""

    def __init__(
        self,
        directory: Path,
        *,
        host: str = "127.0.0.1",
        hostname: str = "mx.example.test",
        domains: Iterable[str] = ("example.test",),
        services: Iterable[str] = SERVICES,
        ports: Mapping[str, int] | None = None,
        workers: int = 1,
        settings: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        with_tls: bool = True,
        wrapper: Iterable[str] = (),
        afresh: bool | None = None,
    ) -> None:
        """`afresh`: by interpreters of their own, as an administrator starts it; else, and in tests unless told so, by
        a fork of a process that has loaded all (tests/support/loaded.py).
        """
        self.directory = directory
        self.host = host
        self.hostname = hostname
        self.domains = tuple(domains)
        self.env = dict(env or {})
        self.wrapper = tuple(wrapper)  # a command before the server's
        self.config_path = directory / "fastmta.toml"
        self.data_directory = Path((settings or {}).get("data_directory", directory / "data"))
        self.log_path = directory / "server.log"
        self.afresh = "PYTEST_CURRENT_TEST" not in os.environ if afresh is None else afresh
        self.process: subprocess.Popen[bytes] | loaded.Loaded | None = None
        names = tuple(dict.fromkeys((*services, "http")))
        given = dict(ports or {})
        wanted = [name for name in names if name not in given]
        self.ports: dict[str, int] = {**given, **dict(zip(wanted, free_ports(len(wanted), host), strict=True))}
        self.settings = merge(
            {
                "myhostname": hostname,
                "mydomain": self.domains[0] if self.domains else hostname,
                "mydestination": list(self.domains),
                "mynetworks": ["127.0.0.0/8"],
                "mail_max_userip_connections": 0,  # benches log in thousands of times from one address
                "data_directory": self.data_directory,
                "workers": workers,
                "workers_may_be_root": True,  # test directories belong to who runs the tests
                "listen": {name: [f"{host}:{self.ports[name]}"] for name in names},
                "tls": {},
                "auth": {"mechanisms": ["PLAIN", "LOGIN"]},
                "transport": {},
                "delivery": {"allow_loopback_mx": True},
            },
            settings or {},
        )
        directory.mkdir(parents=True, exist_ok=True)
        self.data_directory.mkdir(exist_ok=True)
        if with_tls:
            self._write_certificate()
        self.write_config()

    def _write_certificate(self) -> None:
        from fastmta.tls.certificate import write_self_signed

        cert, key = self.directory / "cert.pem", self.directory / "key.pem"
        if not cert.exists():
            write_self_signed(cert, key, [self.hostname, "localhost", self.host])
        self.settings["tls"] = {"cert_file": cert, "key_file": key, **self.settings["tls"]}

    def write_config(self, changes: Mapping[str, Any] | None = None) -> None:
        """Writes fastmta.toml, with `changes` laid over what was there; a running server sees it after `reload`."""
        self.settings = merge(self.settings, changes or {})
        self.config_path.write_text(encode_toml(self.settings))

    def port(self, service: str) -> int:
        return self.ports[service]

    @property
    def _may_be_forked(self) -> bool:
        """Whether nothing is asked for that an interpreter does when it starts."""
        return not self.afresh and not any(name in self.env for name in loaded.READ_EARLY)

    # --- commands ---

    def cli(self, *arguments: str, stdin: str = "", check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Runs `fastmta ARGUMENTS` for this server; a failure raises with what it said, unless `check` is false."""
        env = environment({**self.env, "FASTMTA_CONFIG": str(self.config_path)})
        if self._may_be_forked:
            done = loaded.run(arguments, stdin=stdin, env=env, timeout=240)
        else:
            done = subprocess.run(
                command(*arguments), input=stdin, capture_output=True, text=True, env=env, timeout=240, check=False
            )
        if check and done.returncode:
            raise RuntimeError(
                f"fastmta {' '.join(arguments)} ended with {done.returncode}: {done.stderr}{done.stdout}"
            )
        return done

    def add_user(self, address: str, password: str) -> None:
        """As `fastmta user add` does it, but in this process: an interpreter costs ten times as much as the act."""
        if "PYTHONPATH" in self.env:  # the server is another tree's
            self.cli("user", "add", address, "--password-stdin", stdin=password + "\n")
            return
        from fastmta.cli.performing import perform
        from fastmta.operations import users

        perform(str(self.config_path), users.add, users.AddUser(address, password, None))

    def queue(self) -> list[dict[str, Any]]:
        """Every queued recipient or message, as `fastmta queue list --json` has it."""
        text = self.cli("queue", "list", "--json").stdout.strip()
        if not text:
            return []
        if text.startswith("["):
            return list(json.loads(text))
        return [json.loads(line) for line in text.splitlines()]

    # --- life ---

    def start(self, *, wait: bool = True, preexec: Any = None) -> "Server":
        if self.process is not None and self.process.poll() is None:
            raise RuntimeError("the server runs already")
        if os.environ.get("FASTMTA_TEST_ENGINE") == "memory":
            pytest.skip("records in memory are one process's, and a whole server is several")
        words = ["serve", "-c", str(self.config_path)]
        with self.log_path.open("ab") as log:
            if self._may_be_forked and not self.wrapper and preexec is None:
                self.process = loaded.Loaded(words, env=environment(self.env), output=log.fileno())
            else:
                self.process = subprocess.Popen(
                    [*self.wrapper, *command(*words)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment(self.env),
                    start_new_session=True,
                    preexec_fn=preexec,
                )
        if wait:
            try:
                self.wait_ready()
            except BaseException:
                self.stop()
                raise
        return self

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.host}:{self.ports['http']}/readyz", timeout=5.0) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        deadline = time.monotonic() + timeout_s
        while not self.is_ready():
            if self.process is None or self.process.poll() is not None:
                raise RuntimeError(f"the server ended before it was ready:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the server is not ready after {timeout_s} s:\n{self.log_tail()}")
            time.sleep(0.02)

    @property
    def pid(self) -> int:
        if self.process is None:
            raise RuntimeError("the server has not been started")
        return self.process.pid

    def pids(self) -> list[int]:
        """The supervisor and everything below it."""
        return [] if self.process is None else processes.tree(self.process.pid)

    def workers(self) -> list[int]:
        return [] if self.process is None else processes.children(self.process.pid)

    def stop(self, timeout_s: float = 60.0) -> int:
        """SIGTERM, and KILL for whatever does not go; returns the exit code."""
        if self.process is None:
            return 0
        code = processes.stop(self.process, timeout_s)
        self.process = None
        return code

    def kill(self) -> None:
        """SIGKILL for all of the server at one instant, as a power cut of the process tree."""
        if self.process is None:
            return
        victims = self.pids()
        for pid in victims:
            _signal(pid, signal.SIGSTOP)
        for pid in victims:
            _signal(pid, signal.SIGKILL)
        self.process.wait()
        processes.wait_gone(victims)
        self.process = None

    def kill_supervisor(self) -> list[int]:
        """SIGKILL for the supervisor alone; returns the workers that it leaves behind."""
        orphans = self.workers()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        return orphans

    def metrics(self) -> dict[str, float]:
        """The samples of /metrics by their name with labels, as printed."""
        with urllib.request.urlopen(f"http://{self.host}:{self.ports['http']}/metrics", timeout=60.0) as answer:
            lines = answer.read().decode().splitlines()
        out = {}
        for line in lines:
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                out[name] = float(value)
        return out

    def log_tail(self, lines: int = 40) -> str:
        if not self.log_path.exists():
            return "(no log)"
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> "Server":
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


def _signal(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
