"""A private Exim that takes mail and keeps it in its spool: own configuration, on a loopback port.

Needs root and the program; `missing()` says what is not there.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support import processes
from tests.support.ports import free_port, wait_until_listening
from tests.support.postfix import search_path

_OWNER = "Debian-exim"
_CONFIGURATION = """\
spool_directory = {directory}/spool
log_file_path = {directory}/log/%slog
pid_file_path = {directory}/spool/pid
primary_hostname = exim.example.test
local_interfaces = 127.0.0.1
daemon_smtp_ports = {port}
acl_smtp_rcpt = rcpt
chunking_advertise_hosts = *
queue_only = true
host_lookup =
rfc1413_hosts =
begin acl
rcpt:
  deny message = unknown user
       local_parts = nobody
  accept
begin routers
all:
  driver = accept
  transport = none
begin transports
none:
  driver = appendfile
  file = /dev/null
"""


def missing() -> str:
    """Why no Exim can be started here; empty if it can."""
    if os.geteuid() != 0:
        return "exim needs root"
    try:
        pwd.getpwnam(_OWNER)
    except KeyError:
        return f"there is no user {_OWNER}"
    return "" if shutil.which("exim4", path=search_path()) else "exim4 is not installed"


class Exim:
    """Takes mail for everybody but local part "nobody" and keeps it."""

    def __init__(self) -> None:
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="fastmta-exim-"))
        self.directory.chmod(0o755)
        owner = pwd.getpwnam(_OWNER)
        for name in ("spool", "log"):
            (self.directory / name).mkdir()
            os.chown(self.directory / name, owner.pw_uid, owner.pw_gid)
        self.config = self.directory / "exim.conf"
        self.config.write_text(_CONFIGURATION.format(directory=self.directory, port=self.port))
        program = shutil.which("exim4", path=search_path())
        assert program is not None
        self._process = subprocess.Popen(
            [program, "-C", str(self.config), "-bdf"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until_listening("127.0.0.1", self.port)

    def messages(self) -> list[bytes]:
        """The bodies that it has, with LF as it keeps them."""
        found = sorted((self.directory / "spool" / "input").rglob("*-D"))
        return [path.read_bytes().partition(b"\n")[2] for path in found]

    def __enter__(self) -> "Exim":
        return self

    def __exit__(self, *exc: object) -> None:
        family = processes.tree(self._process.pid)
        self._process.terminate()
        self._process.wait(30)
        for pid in processes.wait_gone(family):
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
        shutil.rmtree(self.directory, ignore_errors=True)
