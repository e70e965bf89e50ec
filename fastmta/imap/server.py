"""The IMAP service of one worker: makes connections, and ends them when the worker leaves."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fastmta.imap.connection import ImapConnection
from fastmta.model.open_session import OpenSession

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from fastmta.imap.seams import Services


class ImapServer:
    """All IMAP connections of a worker."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.draining = False
        self._connections: dict[ImapConnection, tuple[int, float]] = {}  # its number, and when it came
        self._number = 0

    def factory(self, service: str) -> Callable[[], asyncio.BaseProtocol]:
        """The protocol factory of a service that speaks IMAP; the acceptor puts implicit TLS around it."""
        return lambda: ImapConnection(self, service)

    @property
    def sessions(self) -> int:
        return len(self._connections)

    def opened(self, connection: ImapConnection) -> None:
        self._number += 1
        self._connections[connection] = self._number, self.services.loop.time()
        self.services.sweep.add(connection)

    def closed(self, connection: ImapConnection) -> None:
        self._connections.pop(connection, None)
        self.services.sweep.discard(connection)

    def logged_in(self) -> list[tuple[int, bytes, Callable[[], None]]]:
        """(account, mark of the app password, what ends it with a word) of every session that has logged in."""
        return [
            (c.session.account_id, c.session.opened_by, partial(c.bye, b"This account is closed"))
            for c in self._connections
            if c.session.account_id
        ]

    def open_sessions(self) -> Iterator[OpenSession]:
        """Every session, for who asks about them."""
        now = self.services.loop.time()
        for connection, (number, since) in self._connections.items():
            session = connection.session
            yield OpenSession(
                connection.service,
                number,
                session.peer_ip,
                session.address,
                session.account_id,
                session.view.mailbox_id if session.view is not None else 0,
                session.tls,
                now - since,
                connection.transport,
                partial(_end, connection),
            )

    def drain(self) -> None:
        """`* BYE` to everyone, also to whoever comes; a command that is under way is finished first."""
        self.draining = True
        for connection in list(self._connections):
            connection.bye(b"Shutting down")

    def close_all(self, reason: str = "Shutting down") -> None:
        """`* BYE` and an end now; where a command is under way, without the word, which could fall into a literal."""
        for connection in list(self._connections):
            connection.bye(reason.encode("ascii", "replace"), now=True)

    def reload(self, services: Services) -> None:
        """Later commands of all sessions use the new services."""
        self.services = services
        for connection in self._connections:
            connection.session.services = services


def _end(connection: ImapConnection, text: str) -> None:
    connection.bye(b"Session " + text.encode("ascii", "replace"), now=True)
