"""A private Dovecot: IMAP and POP3 on loopback ports, Maildirs of one system user, a passwd file of its own.

Needs root and the packages; `missing()` says what is not there.
"""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.support import processes
from tests.support.ports import free_ports, wait_until_listening
from tests.support.postfix import search_path

_CONFIG = """\
base_dir = {directory}/dovecot-run
state_dir = {directory}/dovecot-run
log_path = {directory}/dovecot.log
protocols = imap pop3 lmtp
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_cache_size = 100M
auth_cache_ttl = 1 hour
auth_cache_verify_password_with_worker = no
mail_location = {format}:{mail}/%u
mail_uid = {user}
mail_gid = {group}
first_valid_uid = 1
default_vsz_limit = 1G
mmap_disable = no
mailbox_list_index = yes
namespace inbox {{
  inbox = yes
  separator = /
}}
passdb {{
  driver = passwd-file
  args = scheme={scheme} username_format=%u {directory}/dovecot.passwd
}}
userdb {{
  driver = static
  args = uid={user} gid={group} home={mail}/%u
}}
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
  service_count = 0
  client_limit = 20000
  process_limit = 4
  process_min_avail = 2
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = 0
  }}
  service_count = 0
  client_limit = 20000
  process_limit = 4
  process_min_avail = 2
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp}
  }}
}}
service imap {{
  process_limit = 12000
  process_min_avail = 4
}}
service pop3 {{
  process_limit = 1000
}}
service anvil {{
  client_limit = 40000
}}
service auth {{
  client_limit = 40000
}}
service stats {{
  client_limit = 40000
}}
protocol imap {{
  mail_max_userip_connections = 0
}}
protocol pop3 {{
  mail_max_userip_connections = 0
}}
"""


def missing() -> str:
    """Why no Dovecot can be started here; empty if it can."""
    if os.geteuid() != 0:
        return "dovecot needs root"
    if not shutil.which("dovecot", path=search_path()):
        return "dovecot is not installed"
    return "" if Path("/usr/lib/dovecot/imap").exists() else "dovecot-imapd is not installed"


class Dovecot:
    """`accounts` maps address to password, in clear or already hashed where `scheme` names a hash.

    All files are below `directory`, which `stop` removes.
    """

    def __init__(self, accounts: Mapping[str, str], *, scheme: str = "PLAIN", mail_format: str = "maildir") -> None:
        self.directory = directory = Path(tempfile.mkdtemp(prefix="fastmta-dovecot-"))
        self.host = "127.0.0.1"
        imap, pop3, lmtp = free_ports(3)
        self.ports = {"imap": imap, "pop3": pop3, "lmtp": lmtp}
        self.pid = 0
        self._process: subprocess.Popen[bytes] | None = None
        mail = directory / "dovecot-mail"
        mail.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o755)
        owner = pwd.getpwnam("nobody")
        os.chown(mail, owner.pw_uid, owner.pw_gid)
        (directory / "dovecot.passwd").write_text("".join(f"{name}:{secret}\n" for name, secret in accounts.items()))
        (directory / "dovecot.passwd").chmod(0o644)
        (directory / "dovecot.conf").write_text(
            _CONFIG.format(
                directory=directory,
                mail=mail,
                format=mail_format,
                scheme=scheme,
                user=owner.pw_uid,
                group=owner.pw_gid,
                imap=imap,
                pop3=pop3,
                lmtp=lmtp,
            )
        )

    def port(self, service: str) -> int:
        return self.ports[service]

    def start(self) -> "Dovecot":
        self._process = subprocess.Popen(
            ["dovecot", "-F", "-c", str(self.directory / "dovecot.conf")],
            env={**os.environ, "PATH": search_path()},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.pid = self._process.pid
        try:
            for port in self.ports.values():
                wait_until_listening(self.host, port)
        except TimeoutError:
            said = f"dovecot did not start:\n{self.log_tail()}"
            self.stop()
            raise RuntimeError(said) from None
        return self

    def stop(self) -> None:
        if self._process is not None:
            processes.stop(self._process)
            self._process = None
        shutil.rmtree(self.directory, ignore_errors=True)

    def cpu_seconds(self) -> float:
        return processes.cpu_seconds(self.pid)

    def log_tail(self, lines: int = 30) -> str:
        path = self.directory / "dovecot.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "(no log)"

    def __enter__(self) -> "Dovecot":
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()
