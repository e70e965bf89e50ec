"""A private Postfix: own configuration, queue and data directory, ports on loopback, nothing of the system's instance.

Needs root and the package; `missing()` says what is not there.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support import processes
from tests.support.ports import free_port, wait_until_listening

_SERVICES = """\
{smtp}      inet  n       -       n       -       {smtpd_limit}    smtpd
pickup    unix  n       -       n       60      1       pickup
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
tlsmgr    unix  -       -       n       1000?   1       tlsmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
verify    unix  -       -       n       -       1       verify
flush     unix  n       -       n       1000?   0       flush
proxymap  unix  -       -       n       -       -       proxymap
proxywrite unix -       -       n       -       1       proxymap
smtp      unix  -       -       n       -       {delivery_limit}       smtp
relay     unix  -       -       n       -       {delivery_limit}       smtp
showq     unix  n       -       n       -       -       showq
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
discard   unix  -       -       n       -       -       discard
local     unix  -       n       n       -       -       local
virtual   unix  -       n       n       -       -       virtual
lmtp      unix  -       -       n       -       {delivery_limit}       lmtp
anvil     unix  -       -       n       -       1       anvil
tlsproxy  unix  -       -       n       -       0       tlsproxy
scache    unix  -       -       n       -       1       scache
postlog   unix-dgram n  -       n       -       1       postlogd
"""


def missing() -> str:
    """Why no Postfix can be started here; empty if it can."""
    if os.geteuid() != 0:
        return "postfix needs root"
    return "" if shutil.which("postfix", path=search_path()) else "postfix is not installed"


def search_path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


class Postfix:
    """`parameters` are main.cf's, over a base that accepts from loopback and listens on `host`:`port`.

    `prefix` runs it by another program. All files are below `directory`, which `stop` removes.
    """

    def __init__(
        self,
        parameters: Mapping[str, str],
        *,
        host: str = "127.0.0.1",
        smtpd_limit: int = 100,
        delivery_limit: int = 100,
        prefix: Sequence[str] = (),
    ) -> None:
        self._prefix = prefix
        self.host = host
        self.port = free_port(host)
        # Not below pytest's temporary directory: Postfix's user must get there, and every pytest run takes that away.
        self.directory = directory = Path(tempfile.mkdtemp(prefix="fastmta-postfix-"))
        self.config = directory / "postfix"
        self.queue = directory / "postfix-queue"
        self.data = directory / "postfix-data"
        self.log_path = directory / "postfix.log"
        for path in (self.config, self.queue, self.data):
            path.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)
        owner = pwd.getpwnam("postfix")
        os.chown(self.data, owner.pw_uid, owner.pw_gid)
        base = {
            "compatibility_level": "3.6",
            "queue_directory": str(self.queue),
            "data_directory": str(self.data),
            "maillog_file": str(self.log_path),
            "maillog_file_prefixes": str(directory),
            "myhostname": "postfix.example.test",
            "mydestination": "",
            "mynetworks": "127.0.0.0/8",
            "inet_interfaces": host,
            "inet_protocols": "ipv4",
            "alias_maps": "",
            "alias_database": "",
            "local_recipient_maps": "",
            "smtpd_peername_lookup": "no",
            "smtp_host_lookup": "native",
            "smtp_dns_support_level": "disabled",
            "import_environment": "MAIL_CONFIG MAIL_DEBUG MAIL_LOGTAG TZ LANG=C",
        }
        lines = [f"{key} = {value}" for key, value in {**base, **parameters}.items()]
        (self.config / "main.cf").write_text("\n".join(lines) + "\n")
        (self.config / "master.cf").write_text(
            _SERVICES.format(smtp=f"{host}:{self.port}", smtpd_limit=smtpd_limit, delivery_limit=delivery_limit)
        )
        self.pid = 0

    def _run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*self._prefix, "postfix", "-c", str(self.config), *arguments],
            env={**os.environ, "PATH": search_path()},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self) -> "Postfix":
        done = self._run("start")
        try:
            wait_until_listening(self.host, self.port)
            self.pid = int((self.queue / "pid" / "master.pid").read_text())
        except (TimeoutError, FileNotFoundError):
            said = f"postfix did not start: {done.stderr}\n{self.log_tail()}"
            self.stop()
            raise RuntimeError(said) from None
        return self

    def stop(self) -> None:
        if self.pid:
            family = processes.tree(self.pid)
            self._run("stop")
            left = processes.wait_gone(family)
            for pid in left:
                try:
                    os.kill(pid, 9)
                except ProcessLookupError:
                    continue
            self.pid = 0
        shutil.rmtree(self.directory, ignore_errors=True)

    def set(self, key: str, value: str) -> None:
        """Changes a parameter of the running Postfix."""
        with (self.config / "main.cf").open("a") as file:
            file.write(f"{key} = {value}\n")
        self._run("reload")

    def flush(self) -> None:
        """Has all that is deferred tried now."""
        self._run("flush")

    def delete(self, queue: str) -> None:
        """Deletes all messages of the queue `queue`, such as "deferred"."""
        command = [*self._prefix, "postsuper", "-c", str(self.config), "-d", "ALL", queue]
        environment = {**os.environ, "PATH": search_path()}
        subprocess.run(command, env=environment, capture_output=True, timeout=60, check=True)

    def cpu_seconds(self) -> float:
        return processes.cpu_seconds(self.pid)

    def queued(self) -> int:
        """Messages that are accepted and neither delivered nor on hold."""
        return sum(1 for name in ("maildrop", "incoming", "active", "deferred") for _ in _files(self.queue / name))

    def wait_empty(self, timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while self.queued():
            if time.monotonic() > deadline:
                raise TimeoutError(f"postfix still has {self.queued()} messages\n{self.log_tail()}")
            time.sleep(0.02)

    def log_tail(self, lines: int = 30) -> str:
        if not self.log_path.exists():
            return "(no log)"
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> "Postfix":
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()


def _files(directory: Path) -> list[str]:
    out = []
    for _, _, names in os.walk(directory):
        out.extend(names)
    return out
