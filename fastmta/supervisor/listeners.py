"""Listening sockets: one SO_REUSEPORT socket an address and slot, kept open by the supervisor for as long as the
address is listed.

A worker inherits its slot's sockets with whatever waits in their backlog; closing one of two listeners would lose it.
For the same reason a socket outlives its slot: after `workers` shrinks, the sockets of the slots that are gone are
dealt out among those that stay. A unix socket, and one that systemd passed, is single and shared by all workers.
"""

import errno
import fcntl
import grp
import os
import pwd
import socket
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from fastmta.config import values
from fastmta.config.tables import Listen
from fastmta.model.errors import ConfigError
from fastmta.model.services import NAMES
from fastmta.runtime.giving import open_directory
from fastmta.supervisor.holders import described, eldest, listening, parent_of, processes_of, server_of, user_described

BACKLOG: Final = 1024  # connections the kernel holds a socket; net.core.somaxconn may lower it


@dataclass(frozen=True, slots=True)
class Address:
    """Where one service listens: a path, or a host and a port."""

    service: str
    text: str  # as configured

    @property
    def path(self) -> str:
        return self.text.removeprefix("unix:").partition(";")[0] if self.text.startswith("unix:") else ""

    @property
    def host_port(self) -> tuple[str, int]:
        """ConfigError where the text is neither "host:port" nor "[v6]:port"."""
        try:
            endpoint = values.parse_endpoint(self.text)
        except ValueError as error:
            raise ConfigError(f"listen.{self.service}: {self.text!r} is not {error}") from None
        return endpoint.host, endpoint.port


@dataclass(slots=True)
class Endpoint:
    """One address and its sockets; `shared` has one socket for all slots."""

    address: Address
    sockets: list[socket.socket] = field(default_factory=list)
    shared: bool = False

    @property
    def bound(self) -> str:
        """The address with the port that the kernel chose, where 0 was asked for."""
        if self.address.path:
            return f"unix:{self.address.path}"
        host, port = self.sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def of_slot(self, slot: int, slots: int) -> list[socket.socket]:
        """The sockets that the worker of `slot` accepts from."""
        return self.sockets if self.shared else [s for n, s in enumerate(self.sockets) if n % slots == slot]


def addresses(listen: Listen) -> list[Address]:
    """Every address of a [listen] table, checked."""
    out = []
    for service in NAMES:
        for text in listen.of(service):
            address = Address(service, text)
            if not address.path:
                _ = address.host_port
            out.append(address)
    return out


class AddressInUse(ConfigError):
    """Another process, ours or not, listens there."""


def _bind(address: Address, beside: socket.socket | None) -> socket.socket:
    """A socket that listens on an address; `beside` is our first one there, for the sockets of further slots.

    The first one is bound and listens before it gets SO_REUSEPORT, so it is refused where anybody else listens,
    another server of our kind too; from then on the kernel spreads connections over it and those bound beside it.
    """
    if address.path:
        return _bind_unix(address)
    host, port = address.host_port
    if beside is not None:
        port = beside.getsockname()[1]
    try:
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
    except socket.gaierror as error:
        raise ConfigError(f"listen.{address.service}: {address.text}: {error.strerror}") from None
    family, kind, protocol, _, where = found[0]
    sock = _listening(address, family, kind, protocol, where, sibling=beside is not None)
    sock.setblocking(False)
    return sock


def _listening(address: Address, family: int, kind: int, protocol: int, where: Any, *, sibling: bool) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, sibling)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(where)
        sock.listen(BACKLOG)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError as error:
        sock.close()
        if error.errno != errno.EADDRINUSE:
            raise ConfigError(f"listen.{address.service}: cannot listen on {address.text}: {error.strerror}") from error
        holders = _holders(family, where)
        if not sibling and holders.ours:  # the wildcard beside one address of it, or one that we are just giving up
            return _listening(address, family, kind, protocol, where, sibling=True)
        raise AddressInUse(
            f"listen.{address.service}: cannot listen on {address.text}: address already in use{holders.told}"
        ) from error
    return sock


class _Holders(NamedTuple):
    ours: bool  # nobody but this process and its workers
    told: str  # " by ...", or "" where nothing is known


def _holders(family: int, where: Any) -> _Holders:
    sockets = listening(family, where[0], where[1])
    pids = processes_of(set(sockets))
    us = os.getpid()
    if pids and all(us in (pid, parent_of(pid)) for pid in pids):
        return _Holders(True, " by ourselves")
    if pids:
        return _Holders(False, f" by {described(eldest(pids))}")
    users = sorted(set(sockets.values()))
    return _Holders(False, f" by {user_described(users[0])}" if users else "")


def _bind_unix(address: Address) -> socket.socket:
    """Through a descriptor of the directory, since the workers' user may own it and change what a path means."""
    path = Path(address.path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        folder = open_directory(path.parent)
    except ConfigError as error:
        sock.close()
        raise ConfigError(f"listen.{address.service}: {error}") from None
    try:
        settings = values.parse_endpoint(address.text)
        owner = _ids(settings)
    except (ValueError, KeyError) as error:
        sock.close()
        os.close(folder)
        raise ConfigError(f"listen.{address.service}: {address.text}: {error.args[0]}") from None
    before = os.umask(0o777 & ~settings.mode)  # from its first instant on
    name = f"/proc/self/fd/{folder}/{path.name}"
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # or another server's, bound and not yet listening, would look left behind
        holder = _who_answers(name)
        if holder is not None:
            raise AddressInUse(
                f"listen.{address.service}: cannot listen on {address.text}: address already in use"
                f"{f' by {described(server_of(holder))}' if holder else ''}"
            )
        _unlink_socket(path.name, folder)
        sock.bind(name)
        if owner != (-1, -1):
            os.chown(path.name, *owner, dir_fd=folder, follow_symlinks=False)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigError(f"listen.{address.service}: cannot listen on {address.text}: {error.strerror}") from error
    except ConfigError:
        sock.close()
        raise
    finally:
        os.umask(before)
        os.close(folder)
    sock.setblocking(False)
    return sock


def _ids(settings: values.Endpoint) -> tuple[int, int]:
    """The numbers of the socket's user and group; -1: whoever makes it. KeyError names one that does not exist."""
    uid = pwd.getpwnam(settings.user).pw_uid if settings.user else -1
    return uid, grp.getgrnam(settings.group).gr_gid if settings.group else -1


def _who_answers(path: str) -> int | None:
    """The process that listens on a unix socket, 0 where its number is not told; None where nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.connect(path)
        except BlockingIOError:  # its backlog is full: somebody is there
            return 0
        except OSError as error:
            return None if error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.ENOTSOCK) else 0
        pid, _, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return int(pid)


def _unlink_socket(name: str, folder_fd: int) -> None:
    """Removes a socket, and nothing else, from a directory."""
    try:
        if stat.S_ISSOCK(os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=folder_fd)
    except FileNotFoundError:
        return


class Listeners:
    """All listening sockets of the server."""

    def __init__(self, inherited: Iterable[tuple[str, socket.socket]] = ()) -> None:
        self.endpoints: dict[Address, Endpoint] = {}
        self._inherited = list(inherited)

    def change(self, wanted: list[Address], slots: int) -> tuple[list[Endpoint], list[Endpoint]]:
        """Binds what is new for `slots` workers, and returns the endpoints bound and those no longer wanted, still
        open.

        ConfigError where an address cannot be bound; then nothing has changed.
        """
        fresh: dict[Address, Endpoint] = {}
        added: list[tuple[Endpoint, socket.socket]] = []
        try:
            for address in wanted:
                endpoint = self.endpoints.get(address) or fresh.get(address)
                if endpoint is None:
                    endpoint = fresh[address] = self._adopt(address) or Endpoint(address, shared=bool(address.path))
                while len(endpoint.sockets) < (1 if endpoint.shared else slots):
                    sock = _bind(address, endpoint.sockets[0] if endpoint.sockets else None)
                    endpoint.sockets.append(sock)
                    added.append((endpoint, sock))
        except ConfigError:
            for endpoint, sock in added:
                endpoint.sockets.remove(sock)
                sock.close()
            raise
        self.endpoints.update(fresh)
        gone = [self.endpoints.pop(address) for address in list(self.endpoints) if address not in set(wanted)]
        return list(fresh.values()), gone

    def _adopt(self, address: Address) -> Endpoint | None:
        """The socket that systemd passed for this service and port, if it did."""
        for name, sock in self._inherited:
            where = sock.getsockname()
            if sock.family == socket.AF_UNIX:
                same = where == address.path
            else:
                same = not address.path and where[1] == address.host_port[1]
            if same and name in (address.service, "unknown", ""):
                self._inherited.remove((name, sock))
                sock.setblocking(False)
                return Endpoint(address, [sock], shared=True)
        return None

    def of_slot(self, slot: int, slots: int) -> list[tuple[Endpoint, socket.socket]]:
        """What the worker of `slot` accepts from."""
        return [(e, s) for e in self.endpoints.values() for s in e.of_slot(slot, slots)]

    def close(self) -> None:
        """Closes everything and removes the paths of unix sockets."""
        for endpoint in self.endpoints.values():
            close_endpoint(endpoint)
        self.endpoints.clear()


def close_endpoint(endpoint: Endpoint) -> None:
    """Gives an address back."""
    for sock in endpoint.sockets:
        sock.close()
    if endpoint.address.path:
        path = Path(endpoint.address.path)
        try:
            folder = open_directory(path.parent)
        except ConfigError:
            return
        try:
            _unlink_socket(path.name, folder)
        except OSError:
            return
        finally:
            os.close(folder)


def inherited_sockets() -> list[tuple[str, socket.socket]]:
    """What sd_listen_fds(3) gives: descriptors from 3 on, with their names; the variables are consumed."""
    count = os.environ.pop("LISTEN_FDS", "")
    pid = os.environ.pop("LISTEN_PID", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if not count.isdigit() or pid != str(os.getpid()):
        return []
    out = []
    for n in range(int(count)):
        sock = socket.socket(fileno=3 + n)
        sock.set_inheritable(False)
        out.append((names[n] if n < len(names) else "", sock))
    return out
