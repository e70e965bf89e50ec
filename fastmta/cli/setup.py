"""`fastmta init` and `fastmta check`: before the server runs."""

import os
import socket
import sys
from pathlib import Path

import click

from fastmta.cli.failures import EX_CANTCREAT, EX_CONFIG, EX_DATAERR, CommandFailed
from fastmta.cli.output import config_option, json_option, print_json
from fastmta.config.default import Ports, default_text
from fastmta.config.load import default_path, parse, read
from fastmta.config.schema import Config, leaves
from fastmta.config.values import parse_domain
from fastmta.model.errors import ConfigError
from fastmta.runtime.identity import workers_user

FILE_NAME = "fastmta.toml"


@click.command(epilog="\b\nExamples:\n  fastmta init /etc/fastmta --domain example.org\n  fastmta init ./mail")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@click.option("--domain", help="The domain whose mailboxes are here; default: this host's, else example.test.")
@click.option("--hostname", help="This server's name; default: mx.DOMAIN.")
def init(directory: Path, domain: str | None, hostname: str | None) -> None:
    """Write a commented fastmta.toml, a self-signed certificate and the data directory under DIRECTORY."""
    path = initialise(directory, domain=domain or _own_domain(), hostname=hostname)
    print(f"wrote {path}, a self-signed certificate and {directory / 'data'}")
    print(f"next: fastmta user add NAME -c {path}; fastmta serve -c {path}")


def initialise(
    directory: Path,
    *,
    domain: str,
    hostname: str | None = None,
    ports: Ports | None = None,
    workers_may_be_root: bool = False,
) -> Path:
    """What `init` does; gives the path of the configuration. Replaces nothing: CommandFailed if there is one."""
    from fastmta.tls.certificate import write_self_signed

    try:
        domain = parse_domain(domain)
        host = parse_domain(hostname or f"mx.{domain}")
    except ValueError as error:
        raise CommandFailed(f"{hostname or domain}: expected {error}", EX_DATAERR) from error
    path = directory / FILE_NAME
    if path.exists():
        raise CommandFailed(f"{path} exists already", EX_CANTCREAT)
    text = default_text(hostname=host, domain=domain, ports=ports, workers_may_be_root=workers_may_be_root)
    config = parse(text, base=directory)
    directory.mkdir(parents=True, exist_ok=True)
    cert, key = Path(config.tls.cert_file), Path(config.tls.key_file)
    if not cert.exists():
        write_self_signed(cert, key, [host, domain, "localhost", "127.0.0.1"])
    data = Path(config.data_directory)
    data.mkdir(mode=0o700, exist_ok=True)
    try:
        user = workers_user(config)
    except ConfigError:
        user = None  # no such user yet: the server's start gives it the directory
    if user is not None:
        os.chown(data, user.uid, user.gid)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), "w", encoding="utf-8") as file:
        file.write(text)
    return path


@click.command(epilog="\b\nExamples:\n  fastmta check\n  fastmta check --all | grep smtpd_")
@click.option("--all", "show_all", is_flag=True, help="Print every key with its value, as postconf does.")
@json_option
@config_option
def check(show_all: bool, as_json: bool, config_path: str | None) -> int:
    """Read the configuration and name everything that is wrong with it."""
    where = config_path or str(default_path())
    config, problems = read(where)
    lines = [str(problem) for problem in problems]
    if config is not None:
        lines += [f"{where}: {text}" for text in file_problems(config)]
    if as_json:
        found = [{"line": p.line, "key": p.key, "text": p.text} for p in problems]
        found += [{"line": 0, "key": "", "text": line} for line in lines[len(problems) :]]
        print_json({"file": where, "ok": not lines, "problems": found})
    else:
        for line in lines:
            print(f"fastmta: {line}", file=sys.stderr)
        if config is not None and show_all:
            for leaf in leaves():
                table = getattr(config, leaf.table) if leaf.table else config
                print(f"{leaf.dotted} = {_shown(getattr(table, leaf.name))}")
        elif not lines:
            print(f"{where}: no problem found")
    return EX_CONFIG if lines else 0


def file_problems(config: Config) -> list[str]:
    """What the files that a configuration names are not good for; one line each."""
    from fastmta.local.maps import Table, alias_tables
    from fastmta.tls.contexts import client_context, server_context

    out: list[str] = []
    try:
        if config.tls.cert_file:
            server_context(config.tls)
        if config.tls.smtp_tls_CAfile:
            client_context("verify", config.tls.smtp_tls_CAfile)
    except ConfigError as error:
        out.append(str(error))
    for key in ("virtual_alias_maps", "smtpd_sender_login_maps"):
        out += [f"{key}: {t.problem}" for t in map(Table, getattr(config, key)) if t.problem]
    aliases = alias_tables(config.alias_maps)
    out += [f"alias_maps: {problem}" for problem in aliases.problems()]
    out += _alias_problems(config)
    data = Path(config.data_directory)
    if data.exists() and not data.is_dir():
        out.append(f"data_directory: {data} is not a directory")
    try:
        workers_user(config)
    except ConfigError as error:
        out.append(str(error))
    return out


def _alias_problems(config: Config) -> list[str]:
    """Entries of aliases(5) that we cannot deliver to."""
    from fastmta.local.aliases import TargetKind, parse_targets
    from fastmta.local.source import parse_aliases

    out: list[str] = []
    for name in config.alias_maps:
        path = Path(name.partition(":")[2])
        try:
            entries = list(parse_aliases(path.read_text("utf-8", "surrogateescape"), str(path)))
        except (OSError, ConfigError):
            continue  # told already
        for entry in entries:
            for target in parse_targets(entry.value):
                if target.kind is TargetKind.COMMAND or (target.kind is TargetKind.FILE and target.text != "/dev/null"):
                    place = f"{path}:{entry.line}: {entry.key}"
                    out.append(f"alias_maps: {place}: FastMTA does not deliver to {target.kind.value}s")
    return out


def _own_domain() -> str:
    """The domain of this host's name, where it has one."""
    return socket.gethostname().partition(".")[2] or "example.test"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ", ".join(value)
    return f"{value:g}s" if isinstance(value, float) else str(value)
