"""What of a configuration and this machine would stop `serve`: the supervisor asks before it binds, `check` tells it.

Each problem is the key and one plain line. Nothing is changed or made here. As root, files are judged with the rights
of the workers' user where a worker opens them.
"""

import errno
import fcntl
import grp
import os
import pwd
import socket
import sys
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from fastmta.config.map_types import FILE_TYPES
from fastmta.config.schema import Config, leaves
from fastmta.config.values import parse_endpoint
from fastmta.directory.maps import compiled_path
from fastmta.directory.srs import require_secrets
from fastmta.model.errors import ConfigError
from fastmta.model.services import NAMES
from fastmta.runtime import descriptors
from fastmta.runtime.identity import (
    WorkersUser,
    acting_as_workers,
    command_user_problem,
    unreadable_program,
    workers_user,
)
from fastmta.tls.contexts import client_context, own_certificate, server_context


class Problem(NamedTuple):
    key: str  # dotted; "" where none can be named
    text: str

    def __str__(self) -> str:
        return f"{self.key}: {self.text}" if self.key else self.text


def start_problems(config: Config) -> list[Problem]:
    """Everything but the ports, which the supervisor finds out when it binds them."""
    out: list[Problem] = []
    few = descriptors.problem(config)
    if few:
        out.append(Problem("", few))
    user: WorkersUser | None = None
    try:
        user = workers_user(config)
    except ConfigError as error:
        out.append(_split(error))
    out += _tls_problems(config)
    out += _directory_problems(Path(config.data_directory), user)
    out += _map_problems(config, user)
    out += _secrets_problems(config, user)
    out += _program_problems(config, user)
    out += _pipe_problems(config, user)
    out += _reply_class_problems(config, user)
    return out


def _reply_class_problems(config: Config, user: WorkersUser | None) -> Iterator[Problem]:
    name = config.delivery.reply_class_file
    if not name:
        return
    from fastmta.queue.replies import ReplyClasses

    try:
        with acting_as_workers(user):
            ReplyClasses.of(name)
    except OSError as error:
        yield Problem("delivery.reply_class_file", f"{name}: {error.strerror}")
    except ValueError as error:
        yield Problem("delivery.reply_class_file", str(error))


def _secrets_problems(config: Config, user: WorkersUser | None) -> Iterator[Problem]:
    try:
        with acting_as_workers(user):
            require_secrets(config)
    except ConfigError as error:
        yield _split(error)


def _pipe_problems(config: Config, user: WorkersUser | None) -> Iterator[Problem]:
    for name, pipe in config.pipe.items():
        problem = command_user_problem(pipe.user, user)
        if problem:
            yield Problem(f"pipe.{name}.user", problem)
        if not Path(pipe.argv[0]).is_file():
            yield Problem(f"pipe.{name}.argv", f"there is no program {pipe.argv[0]}")
        if pipe.directory and not Path(pipe.directory).is_dir():
            yield Problem(f"pipe.{name}.directory", f"there is no directory {pipe.directory}")


def route_problems(config: Config) -> list[Problem]:
    """What the router finds, which each worker builds as it starts: no work for the supervisor."""
    from fastmta.delivery.routing import Router

    try:
        Router(config)
    except ConfigError as error:
        return [_split(error)]
    return []


def listen_problems(config: Config) -> list[Problem]:
    """Addresses that this host does not have, and ports that somebody else has. A running server's own are no problem:
    while its data directory is locked, nobody is asked for ports.
    """
    out: list[Problem] = []
    in_use_counts = not _is_locked(Path(config.data_directory))
    for service in NAMES:
        for text in config.listen.of(service):
            problem = _listen_problem(text, in_use_counts)
            if problem:
                out.append(Problem(f"listen.{service}", f"{text}: {problem}"))
    return out


def _split(error: ConfigError) -> Problem:
    """An error's "key: text" taken apart."""
    key, colon, text = str(error).partition(": ")
    return Problem(key, text) if colon and " " not in key else Problem("", str(error))


def _tls_problems(config: Config) -> Iterator[Problem]:
    try:
        if config.tls.cert_file:
            server_context(config.tls, asks=config.tls.asks_clients)
            if config.tls.ssl_verify_client_cert:
                server_context(config.tls, asks=True, for_logins=True)
    except ConfigError as error:
        yield _split(error)
    try:
        own_certificate(config.tls)
        if config.tls.smtp_tls_CAfile or config.tls.smtp_tls_CApath:
            client_context("verify", config.tls.smtp_tls_CAfile, config.tls.smtp_tls_CApath)
    except ConfigError as error:
        yield _split(error)


def _directory_problems(directory: Path, user: WorkersUser | None) -> Iterator[Problem]:
    key = "data_directory"
    whom = f"the user {user.name}" if user else "this user"
    existing = directory
    while not os.path.exists(existing) and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        yield Problem(key, f"{existing} is not a directory")
        return
    with acting_as_workers(user):
        closed = _closed_ancestor(existing if existing == directory else existing / directory.name)
    if closed:
        yield Problem(key, f"{directory}: {whom} may not enter {closed}")
    elif existing != directory and not _may(existing, os.W_OK | os.X_OK):
        yield Problem(key, f"{directory} is missing, and this user may not make it in {existing}")
    elif existing == directory and not _may(directory, os.R_OK | os.W_OK | os.X_OK):
        yield Problem(key, f"{directory}: this user may not write there, or it is mounted read-only")


def _closed_ancestor(path: Path) -> Path | None:
    for each in reversed(path.parents):
        if not _may(each, os.X_OK):
            return each
    return None


def _map_problems(config: Config, user: WorkersUser | None) -> Iterator[Problem]:
    with acting_as_workers(user):
        for key in (leaf.dotted for leaf in leaves() if leaf.key.kind == "maps"):
            for name in attrgetter(key)(config):
                if name.partition(":")[0] not in FILE_TYPES:
                    continue  # its contents stand in its name
                path = Path(name.partition(":")[2])
                if name.startswith("hash:") and _may(compiled_path(path), os.R_OK) and not path.exists():
                    continue  # the compiled form alone serves
                try:
                    os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
                except OSError as error:
                    who = f" (as the user {user.name})" if user and error.errno == errno.EACCES else ""
                    yield Problem(key, f"{path}: {error.strerror}{who}")


def _program_problems(config: Config, user: WorkersUser | None) -> Iterator[Problem]:
    if user is None:
        return
    package = Path(__file__).parent / "startable.py"
    with acting_as_workers(user):
        if not _may(Path(sys.executable), os.X_OK):
            yield Problem("default_user", f"{user.name} may not run {sys.executable}: install it where everybody may")
        elif not _may(package, os.R_OK):
            yield _split(ConfigError(unreadable_program(user, package.parents[1])))
        if config.config_file and not _may(Path(config.config_file), os.R_OK):
            yield Problem("default_user", f"{user.name} may not read {config.config_file}")


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=True)


def _listen_problem(text: str, in_use_counts: bool) -> str:
    endpoint = parse_endpoint(text)
    if endpoint.path:
        for name, known in ((endpoint.user, pwd.getpwnam), (endpoint.group, grp.getgrnam)):
            try:
                if name:
                    known(name)
            except KeyError as error:
                return str(error.args[0])
        directory = Path(endpoint.path).parent
        if not directory.is_dir():
            return f"there is no directory {directory}"
        return "" if _may(directory, os.W_OK | os.X_OK) else f"this user may not make a socket in {directory}"
    try:
        flags = socket.AI_PASSIVE | socket.AI_NUMERICSERV
        family, kind, _, _, where = socket.getaddrinfo(
            endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=flags
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        return str(getattr(error, "strerror", error))
    try:
        with socket.socket(family, kind) as sock:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((where[0], 0, *where[2:]))
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            return f"this host does not have the address {where[0]}"
        return error.strerror or str(error)
    if not in_use_counts or not endpoint.port:
        return ""
    try:
        with socket.socket(family, kind) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(where)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return "another process listens there"
        if error.errno == errno.EACCES:
            return "this user may not listen on a port below 1024"
        return error.strerror or str(error)
    return ""


def _is_locked(directory: Path) -> bool:
    """Whether a server, or what is left of one, has the data directory (runtime/lock.py)."""
    try:
        fd = os.open(directory / "lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
