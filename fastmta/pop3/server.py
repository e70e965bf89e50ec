"""The POP3 service of one worker: makes connections, and ends them when the worker leaves."""

from collections.abc import Callable, Iterator
from functools import partial

from fastmta.model.open_session import OpenSession
from fastmta.pop3.connection import Pop3Connection
from fastmta.pop3.lock import MaildropLocks
from fastmta.pop3.maildrop import MaildropReader
from fastmta.pop3.seams import Services


class Pop3Server:
    """The POP3 connections of one worker."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.connections: dict[Pop3Connection, tuple[int, float]] = {}  # its number, and when it came
        self.draining = False
        self._locks: MaildropLocks | None = None
        self._serial = 0
        self.reader = MaildropReader(services.store)

    @property
    def sessions(self) -> int:
        return len(self.connections)

    @property
    def locks(self) -> MaildropLocks:
        if self._locks is None:
            self._locks = MaildropLocks(self.services.config.data_directory)
        return self._locks

    def factory(self, service: str) -> Callable[[], Pop3Connection]:
        """The protocol factory of a service that speaks POP3; the acceptor puts implicit TLS around it."""
        return lambda: Pop3Connection(self, service)

    def opened(self, connection: Pop3Connection) -> None:
        self.connections[connection] = self._serial, self.services.loop.time()

    def next_id(self) -> str:
        self._serial += 1
        return f"pop3-{self._serial}"

    def reload(self, services: Services) -> None:
        """New settings hold for new connections and new logins; none is ended."""
        self.services = services

    def logged_in(self) -> list[tuple[int, bytes, Callable[[], None]]]:
        """(account, mark of the app password, what ends it with a word) of every session that has logged in."""
        farewell = b"-ERR [AUTH] This account is closed\r\n"
        return [(c.account_id, c.opened_by, partial(c.close, farewell)) for c in self.connections if c.account_id]

    def open_sessions(self) -> Iterator[OpenSession]:
        """Every session, for who asks about them."""
        now = self.services.loop.time()
        for connection, (number, since) in self.connections.items():
            yield connection.told(number, now - since)

    def drain(self) -> None:
        """Ends each session at its next quiet moment; one with deletions may still say QUIT."""
        self.draining = True
        for connection in list(self.connections):
            connection.drain()

    def close_all(self, reason: str = "Server shutting down") -> None:
        """Says farewell and closes, now; the locks go with it."""
        self.draining = True
        for connection in list(self.connections):
            connection.close(b"-ERR [SYS/TEMP] %s\r\n" % reason.encode("ascii", "replace").translate(None, b"\r\n"))
