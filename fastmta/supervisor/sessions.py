"""The open sessions of one worker, for `fastmta session`: found by who they are, and ended.

A worker tells of a few at a time, since its answer is one message; the asker names the last one that it has seen.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from heapq import nsmallest
from typing import Any, Final

import msgspec

from fastmta.model.actor import Actor
from fastmta.model.open_session import OpenSession
from fastmta.policy.networks import Networks
from fastmta.store import MailStore

TOLD: Final = 60  # sessions, of all workers together, in one answer
_GRACE_S: Final = 1.0  # for a client that is ended to read the last words
_LOGIN_CHARACTERS: Final = 254
_MAILBOX_CHARACTERS: Final = 100
_BYTES: Final = struct.Struct("=QQ")  # of Linux's tcp_info: acknowledged by the client, received from it
_BYTES_AT: Final = 120


class Wanted(msgspec.Struct):
    """Which sessions: those that fit all that is given. `after`: (service, number) behind which they come."""

    id: str = ""
    login: str = ""
    address: str = ""
    protocol: str = ""
    after: tuple[str, int] = ("", 0)
    kill: bool = False


class Sessions:
    """What a worker's servers have open."""

    def __init__(
        self,
        store: MailStore,
        now: Callable[[], float],
        servers: Sequence[Callable[[], Iterable[OpenSession]]],
        slots: int,
    ) -> None:
        """`servers` give the sessions of a protocol each; `now` is wall-clock time."""
        self._store = store
        self._now = now
        self._servers = servers
        self._told = max(1, TOLD // slots)

    def find(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        """Rows of the first sessions that are wanted; "more" in the last one where there are further ones."""
        wanted = msgspec.convert(asked, Wanted)
        networks = Networks((wanted.address,)) if wanted.address else None
        fitting = (each for server in self._servers for each in server() if _fits(each, wanted, networks))
        found = nsmallest(self._told + 1, fitting, key=lambda each: (each.service, each.number))
        rows = [self._row(each) for each in found[: self._told]]
        if len(found) > self._told:
            rows[-1]["more"] = True
        if wanted.kill:
            for each in found[: self._told]:
                each.end("ended by the administrator")
                asyncio.get_running_loop().call_later(_GRACE_S, _cut_off, each.transport)
        return rows

    def _row(self, session: OpenSession) -> dict[str, Any]:
        received, sent = _octets(session.transport)
        return {
            "id": _id(session),
            "protocol": session.service,
            "number": session.number,
            "login": session.login[:_LOGIN_CHARACTERS],
            "address": session.client,
            "since": self._now() - session.age_s,
            "mailbox": self._mailbox(session),
            "tls": session.tls,
            "received_bytes": received,
            "sent_bytes": sent,
        }

    def _mailbox(self, session: OpenSession) -> str:
        """Its name as the session knows it: somebody else's INBOX is not INBOX."""
        which = session.mailbox
        if isinstance(which, str):
            return which
        box = self._store.access.by_id(Actor(session.account_id), which) if which else None
        return box.name[:_MAILBOX_CHARACTERS] if box is not None else ""


def _id(session: OpenSession) -> str:
    return f"{os.getpid()}-{session.service}-{session.number}"


def _fits(session: OpenSession, wanted: Wanted, networks: Networks | None) -> bool:
    return (
        (session.service, session.number) > wanted.after
        and (not wanted.protocol or session.service.startswith(wanted.protocol))
        and (not wanted.login or session.login.lower() == wanted.login)
        and (networks is None or session.client in networks)
        and (not wanted.id or _id(session) == wanted.id)
    )


def _cut_off(transport: Any) -> None:
    """Ends a connection that has been closed and whose client does not read what was written before."""
    if transport is not None and transport.get_write_buffer_size():
        transport.abort()


def _octets(transport: Any) -> tuple[int, int]:
    """Octets received and sent on the wire, as the kernel counts them; 0 of what is no TCP connection."""
    try:
        sock = transport.get_extra_info("socket")
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_AT + _BYTES.size)
        sent, received = _BYTES.unpack_from(info, _BYTES_AT)
    except (AttributeError, OSError, struct.error):
        return 0, 0
    return received, sent
