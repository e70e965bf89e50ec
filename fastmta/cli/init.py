"""`fastmta init`: a configuration, a certificate, a data directory and, if asked, the first account.

Everything lies under the given directory; only as root and for /etc/fastmta the data go to /var/lib/fastmta, and the
system user that the workers run as is made where it is missing. Nothing that exists is replaced, and the
configuration is written last, so that what failed half-way can be run again.
"""

import os
import secrets
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import click

from fastmta.cli.failures import EX_CANTCREAT, EX_DATAERR, CommandFailed
from fastmta.cli.publish import records
from fastmta.config.default import Ports, default_text
from fastmta.config.load import parse
from fastmta.config.location import DEFAULT_FILE
from fastmta.config.schema import Config
from fastmta.config.values import parse_domain
from fastmta.model.errors import ConfigError
from fastmta.pickup.spool import make_spool
from fastmta.runtime.identity import WorkersUser, acting_as_workers, useradd, useradd_command, workers_user

FILE_NAME: Final = "fastmta.toml"
SYSTEM_DIRECTORY: Final = Path(DEFAULT_FILE).parent
SYSTEM_DATA: Final = "/var/lib/fastmta"
PASSWORD_TEXT_BYTES: Final = 15  # 120 bits, 20 characters


@click.command(
    epilog="\b\nExamples:\n  fastmta init /etc/fastmta --domain example.org --user bill\n  fastmta init ./mail"
)
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--domain", help="The domain whose mailboxes are here; default: this host's, else example.test.")
@click.option("--hostname", help="This server's name; default: mx.DOMAIN.")
@click.option("--user", "user_name", help="The first account, which also gets mail for postmaster and abuse.")
@click.option("--password-stdin", is_flag=True, help="Its password is the first line of standard input.")
@click.option("--data-directory", type=click.Path(path_type=Path), help="Where mail is kept; default: under DIRECTORY.")
def init(
    directory: Path,
    domain: str | None,
    hostname: str | None,
    user_name: str | None,
    password_stdin: bool,
    data_directory: Path | None,
) -> None:
    """Write a commented fastmta.toml, a self-signed certificate and the data directory under DIRECTORY.

    With --user also the first account. Its password is asked for at a terminal, else one is made and shown.
    As root, and for /etc/fastmta, mail is kept in /var/lib/fastmta and the user fastmta is made if it is missing.
    """
    if domain is None and user_name and "@" in user_name:
        domain = user_name.rpartition("@")[2]
    if user_name is None and domain is not None and sys.stdin.isatty():
        question = "First account, which also gets mail for postmaster and abuse (empty: none yet)"
        user_name = click.prompt(question, default="", show_default=False) or None
    made = Made(directory, domain or _own_domain(), hostname, data=_data(directory, data_directory))
    path = made.write(user_name, password_stdin)
    for line in made.told:
        print(line)
    print(_next_steps(made, path, user_name))


def initialise(
    directory: Path,
    *,
    domain: str,
    hostname: str | None = None,
    ports: Ports | None = None,
    workers_may_be_root: bool = False,
) -> Path:
    """What `init` does without an account; gives the path of the configuration. CommandFailed if there is one."""
    return Made(directory, domain, hostname, ports=ports, workers_may_be_root=workers_may_be_root).write()


class Made:
    """One run of `init`; `told` is what was made, a line each."""

    def __init__(
        self,
        directory: Path,
        domain: str,
        hostname: str | None = None,
        *,
        ports: Ports | None = None,
        data: str = "data",
        workers_may_be_root: bool = False,
    ) -> None:
        try:
            self.domain = parse_domain(domain)
            self.hostname = parse_domain(hostname or f"mx.{self.domain}")
        except ValueError as error:
            raise CommandFailed(f"{hostname or domain}: expected {error}", EX_DATAERR) from error
        self.directory = directory
        self.told: list[str] = []
        self._text = default_text(
            hostname=self.hostname,
            domain=self.domain,
            ports=ports or Ports(ipv6=_has_ipv6()),
            data=data,
            workers_may_be_root=workers_may_be_root,
            userip_connections=10 if ports is None else 0,  # the demo on loopback is what load generators try
        )
        self.config = parse(self._text, base=directory)
        self.workers: WorkersUser | None = None

    def write(self, user_name: str | None = None, password_stdin: bool = False) -> Path:
        """Makes everything; gives the path of the configuration."""
        path = self.directory / FILE_NAME
        if path.exists():
            raise CommandFailed(f"{path} exists already", EX_CANTCREAT)
        account = _account(user_name, self.domain, self.config) if user_name else ""
        password = _password(account, password_stdin) if account else None
        self.workers = self._workers()
        if not self.directory.is_dir():
            self.directory.mkdir(parents=True)
            self.directory.chmod(0o755)  # the configuration is for `sendmail` of every user; what is secret is not here
        self._certificate()
        self._data_directory()
        if account and password is not None:
            self._first_account(account, *password)
        mode = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with open(os.open(path, mode, 0o644), "w", encoding="utf-8") as file:
            file.write(self._text)
        os.chmod(path, 0o644)
        data = self.config.data_directory
        self.told.insert(0, f"wrote {path}, a self-signed certificate beside it, and {data} for the mail")
        return path

    def _workers(self) -> WorkersUser | None:
        """Whom the workers run as; for the system's own configuration that user is made."""
        try:
            return workers_user(self.config)
        except ConfigError:
            name = self.config.default_user
            if not _is_system(self.directory):
                self.told.append(f"there is no user {name} for the workers yet: `{useradd_command(name)}` makes it")
                return None
            try:
                done = subprocess.run(useradd(name), capture_output=True, text=True, check=False)
            except OSError as error:
                raise CommandFailed(f"`{useradd_command(name)}`: {error.strerror}", EX_CANTCREAT) from error
            if done.returncode:
                raise CommandFailed(f"`{useradd_command(name)}`: {done.stderr.strip()}", EX_CANTCREAT) from None
            self.told.append(f"made the system user {name}")
            return workers_user(self.config)

    def _certificate(self) -> None:
        from fastmta.tls.certificate import write_self_signed

        cert, key = Path(self.config.tls.cert_file), Path(self.config.tls.key_file)
        if cert.exists():
            return
        write_self_signed(cert, key, [self.hostname, self.domain, "localhost", "127.0.0.1"])
        cert.chmod(0o644)
        if self.workers is not None:
            os.chown(key, 0, self.workers.gid)
            key.chmod(0o640)

    def _data_directory(self) -> None:
        data = Path(self.config.data_directory)
        if not data.is_dir():
            data.mkdir(mode=0o700, parents=True)
        elif self.workers is not None and data.stat().st_uid not in (0, self.workers.uid):
            raise CommandFailed(f"{data} belongs to another user", EX_CANTCREAT)
        elif self.workers is not None and data.stat().st_uid == 0 and any(data.iterdir()):
            raise CommandFailed(f"{data} is root's and not empty: choose another --data-directory", EX_CANTCREAT)
        if self.workers is not None:
            os.chown(data, self.workers.uid, self.workers.gid)
        with suppress(OSError), acting_as_workers(self.workers):  # else the first start makes it
            os.close(make_spool(str(data)))

    def _first_account(self, address: str, password: str, shown: bool) -> None:
        from fastmta.cli.opened import run_with
        from fastmta.cli.performing import desk
        from fastmta.operations import aliases, users
        from fastmta.operations.carrying import carry_out
        from fastmta.operations.desk import no_progress
        from fastmta.store import MailStore

        roles = [f"{role}@{self.domain}" for role in ("postmaster", "abuse")]

        async def nobody(rows: list[Any]) -> None:
            return

        async def work(config: Config, store: MailStore) -> bool:
            for role in roles:
                if role != address and store.accounts.lookup(role) is None and store.aliases.lookup(role) is None:
                    leads = aliases.AddAlias(role, (address,))
                    await carry_out(aliases.add, desk(lambda: config, store, no_progress), leads, nobody)
            if store.accounts.lookup(address) is not None:
                return False
            await carry_out(
                users.add, desk(lambda: config, store, no_progress), users.AddUser(address, password), nobody
            )
            return True

        if run_with(self.config, work):
            self.told.append(f"account {address}" + (f", password {password}" if shown else ""))
        else:
            self.told.append(f"account {address} was there already; its password is as it was")
        self.told.append(f"mail for {' and '.join(role for role in roles if role != address)} goes to it")


def _data(directory: Path, given: Path | None) -> str:
    """The data directory as the configuration names it."""
    if given is not None:
        return str(given.absolute())
    return SYSTEM_DATA if os.geteuid() == 0 and _is_system(directory) else "data"


def _is_system(directory: Path) -> bool:
    return Path(os.path.abspath(directory)) == SYSTEM_DIRECTORY


def _account(user_name: str, domain: str, config: Config) -> str:
    from fastmta.operations.values import account_address

    address = account_address(user_name if "@" in user_name else f"{user_name}@{domain}", config)
    if address.rpartition("@")[2] != domain:
        raise CommandFailed(f"--user {user_name} is not in --domain {domain}", EX_DATAERR)
    return address


def _password(account: str, from_stdin: bool) -> tuple[str, bool]:
    """The first account's password, and whether it was made here and must be shown."""
    from fastmta.cli.user import read_password

    if from_stdin:
        return read_password(True), False
    if sys.stdin.isatty():
        question = f"Password for {account} (empty: one is made)"
        typed = click.prompt(question, default="", show_default=False, hide_input=True, confirmation_prompt=True)
        if typed:
            return typed, False
    return secrets.token_urlsafe(PASSWORD_TEXT_BYTES), True


def _next_steps(made: Made, path: Path, user_name: str | None) -> str:
    option = "" if str(path.absolute()) == DEFAULT_FILE else f" -c {path}"
    lines = []
    if user_name:
        lines += ["", f"Publish in the DNS of {made.domain}:", *(f"  {line}" for line in records(made.config))]
    lines += ["", "Next:", f"  fastmta check{option}"]
    if not user_name:
        lines.append(f"  fastmta user add NAME{option}")
        lines.append(f"  fastmta alias add postmaster NAME{option}")
    lines.append(f"  fastmta serve{option}")
    if _is_system(made.directory):
        lines[-1] = "  systemctl enable --now fastmta    # the unit: deploy/systemd/fastmta.service"
    lines.append(f"  put a real certificate in [tls] of {path}, then: fastmta reload{option}")
    return "\n".join(lines)


def _own_domain() -> str:
    """The domain of this host's name, where it has one."""
    return socket.gethostname().partition(".")[2] or "example.test"


def _has_ipv6() -> bool:
    """Whether the kernel has IPv6 at all; without it nothing can listen on [::]."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.bind(("::", 0))
    except OSError:
        return False
    return True
