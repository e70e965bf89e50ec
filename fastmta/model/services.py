"""Every service that a port can speak: one line each, and whatever differs between them stands in that line.

To have a service on a second port with rules of its own, add a line: `[listen]`, `check`, the listeners, metrics,
limits and the servers read this table. (A service on several addresses needs no line of its own: its list in `[listen]`
has several endpoints.)
"""

from enum import Enum
from typing import Final, NamedTuple


class Tls(Enum):
    """How a connection of the service becomes encrypted."""

    NONE = 0
    STARTTLS = 1  # by a command, where there is a certificate
    IMPLICIT = 2  # from the first byte; the acceptor wraps the connection


class Login(Enum):
    """Who may log in, and who has to."""

    NEVER = 0
    OFFERED = 1  # a client that logs in may do more
    REQUIRED = 2  # who has not logged in gets nothing done


class Service(NamedTuple):
    """One service. `name` is its key in [listen] and its label in metrics and logs."""

    name: str
    protocol: str  # which server speaks: smtp, lmtp, imap, pop3, http
    port: int  # in the configuration that `fastmta init` writes; 0: off there
    demo_port: int  # in that of `make run`
    tls: Tls
    login: Login
    srv_priority: int | None = None  # of the record by which mail programs find it (RFC 6186, RFC 8314); None: none
    is_screened: bool = True  # checks and content filters look at its mail; else only mynetworks may talk to it


SERVICES: Final = (
    Service("smtp", "smtp", 25, 2525, Tls.STARTTLS, Login.OFFERED),
    Service("submission", "smtp", 587, 2587, Tls.STARTTLS, Login.REQUIRED, 10),
    Service("submissions", "smtp", 465, 2465, Tls.IMPLICIT, Login.REQUIRED, 0),
    Service("reinjection", "smtp", 0, 0, Tls.STARTTLS, Login.OFFERED, is_screened=False),  # what filters give back
    Service("lmtp", "lmtp", 0, 2424, Tls.STARTTLS, Login.OFFERED),
    Service("imap", "imap", 143, 2143, Tls.STARTTLS, Login.REQUIRED, 10),
    Service("imaps", "imap", 993, 2993, Tls.IMPLICIT, Login.REQUIRED, 0),
    Service("pop3", "pop3", 110, 2110, Tls.STARTTLS, Login.REQUIRED, 30),
    Service("pop3s", "pop3", 995, 2995, Tls.IMPLICIT, Login.REQUIRED, 20),
    Service("managesieve", "managesieve", 0, 0, Tls.STARTTLS, Login.REQUIRED),  # not built: `check` refuses it
    Service("http", "http", 8025, 8025, Tls.NONE, Login.NEVER),
)
NAMES: Final = tuple(service.name for service in SERVICES)
BY_NAME: Final = {service.name: service for service in SERVICES}


def speaking(*protocols: str) -> tuple[str, ...]:
    """The names of the services that speak one of these protocols."""
    return tuple(service.name for service in SERVICES if service.protocol in protocols)


def screened(*protocols: str) -> tuple[str, ...]:
    """The same, without those whose mail has been looked at before."""
    return tuple(name for name in speaking(*protocols) if BY_NAME[name].is_screened)


def open_to_strangers() -> tuple[str, ...]:
    """The services at which mail comes from servers that nobody knows: SMTP without a login."""
    return tuple(name for name in screened("smtp") if BY_NAME[name].login is not Login.REQUIRED)
