"""Limits by address and by account, exact over all workers and protocols: connections, events in a time unit, failures.

One face for all of them, over one table that the processes share (`_limits`): `hold` takes a place until it is
released, `take` counts events in a time unit, `failed` lets a penalty grow. A client is its IPv4 address, or the /64 of
its IPv6 address, because whoever has one has all of it. What the supervisor maps for the table is `LimitMemory`; a
worker that dies leaves its places to `bury`.

Clients in `smtpd_client_event_limit_exceptions` (Postfix's default: mynetworks) are exempt from all but the limits of
an account and the penalty. A unix socket's peer is of this machine and exempt from everything.
"""

import mmap
import os
import time
from collections.abc import Callable
from typing import Final, Protocol

from fastmta._limits import HOLDINGS_BYTES, REFUSED, TABLE_BYTES, UNCOUNTED, Holdings, Table
from fastmta.model.limited import What
from fastmta.model.limits import LOGIN_GRACE_S, ONE_TIME_CODES, ONE_TIME_CODES_S
from fastmta.model.services import NAMES, SERVICES, Service
from fastmta.policy.bans import Bans
from fastmta.policy.networks import Networks, number_of
from fastmta.policy.uploads import Upload
from fastmta.runtime.metrics import METRICS, Cells
from fastmta.runtime.rates import Rate

PENALTY_STEPS: Final = (0.0, 1.0, 2.0, 4.0, 7.5)  # of auth_failure_delay: with its 2 s Dovecot's 2, 4, 8, 15
PENALTY_DECAY_S: Final = 60  # without a failure, and it is a step less
_PAGE: Final = mmap.PAGESIZE
_TABLE_SPAN: Final = -(-TABLE_BYTES // _PAGE) * _PAGE


def _counted_as(service: Service) -> str:
    """Services of this name count together: SMTP's each for itself, as in Postfix; one protocol's, as in Dovecot."""
    return service.protocol if service.protocol in ("imap", "pop3") else service.name


_NUMBERS: Final = {service.name: NAMES.index(_counted_as(service)) for service in SERVICES}


class LimitsConfig(Protocol):
    """What of the configuration is obeyed here."""

    @property
    def smtpd_client_connection_count_limit(self) -> int: ...
    @property
    def smtpd_client_connection_rate_limit(self) -> int: ...
    @property
    def smtpd_client_message_rate_limit(self) -> int: ...
    @property
    def smtpd_client_recipient_rate_limit(self) -> int: ...
    @property
    def smtpd_client_auth_rate_limit(self) -> int: ...
    @property
    def smtpd_client_new_tls_session_rate_limit(self) -> int: ...
    @property
    def smtpd_client_event_limit_exceptions(self) -> tuple[str, ...]: ...
    @property
    def anvil_rate_time_unit(self) -> float: ...
    @property
    def mail_max_userip_connections(self) -> int: ...
    @property
    def login_max_ip_connections(self) -> int: ...
    @property
    def login_max_connections(self) -> int: ...
    @property
    def http_client_connection_count_limit(self) -> int: ...


class LimitMemory:
    """The memory of the table and of every process's holdings: made by the supervisor, inherited by its workers."""

    def __init__(self, ranges: int) -> None:
        """For processes of the numbers 0 to `ranges` - 1. Pages that nobody touches cost no memory."""
        fd = os.memfd_create("fastmta-limits", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, _TABLE_SPAN + ranges * HOLDINGS_BYTES)
            self._view = memoryview(mmap.mmap(fd, _TABLE_SPAN + ranges * HOLDINGS_BYTES))
        finally:
            os.close(fd)
        self._undertaker = Table(self._view, self._holdings(0), 1, _seed())

    def table(self, number: int) -> Table:
        """The table for the process of this number, which is over 0 and no other living process's."""
        return Table(self._view, self._holdings(number), number + 1)

    def bury(self, number: int) -> None:
        """Gives back what the process of this number held, after its death."""
        self._undertaker.bury(self._holdings(number), number + 1)

    def _holdings(self, number: int) -> memoryview:
        start = _TABLE_SPAN + number * HOLDINGS_BYTES
        return self._view[start : start + HOLDINGS_BYTES]


def local_table() -> Table:
    """A table that nobody shares, for a process of its own."""
    return Table(bytearray(TABLE_BYTES), bytearray(HOLDINGS_BYTES), 1, _seed())


def _seed() -> int:
    return int.from_bytes(os.urandom(8), "little") | 1


class Limits:
    """The limits of one worker's clients."""

    def __init__(
        self, table: Table, config: LimitsConfig, cells: Cells, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._table = table
        self._cells = cells
        self._monotonic = monotonic
        self.bans: Bans | None = None  # set once there is a store to keep them in
        self._codes = Rate(table, ONE_TIME_CODES, ONE_TIME_CODES_S, monotonic)
        self._guests: dict[Seat, None] = {}  # who has not logged in here and counts, the oldest first
        self.configure(config)

    def configure(self, config: LimitsConfig) -> None:
        """New limits; places that are held stay."""
        self.exceptions = Networks(config.smtpd_client_event_limit_exceptions)
        window_s = max(1, int(config.anvil_rate_time_unit))
        self._user_limit = config.mail_max_userip_connections
        self._connections = dict.fromkeys(NAMES, config.smtpd_client_connection_count_limit)
        self._connections["http"] = config.http_client_connection_count_limit
        self._logins = (config.login_max_connections, config.login_max_ip_connections)
        rates = {
            What.CONNECTION_RATE: config.smtpd_client_connection_rate_limit,
            What.MESSAGE_RATE: config.smtpd_client_message_rate_limit,
            What.RECIPIENT_RATE: config.smtpd_client_recipient_rate_limit,
            What.AUTH_RATE: config.smtpd_client_auth_rate_limit,
            What.TLS_RATE: config.smtpd_client_new_tls_session_rate_limit,
        }
        self._rates = {what: Rate(self._table, each, window_s, self._monotonic) for what, each in rates.items()}
        # Whether MAIL or RCPT is limited: with neither, the fast path asks nobody.
        self.counts_events = bool(rates[What.MESSAGE_RATE] or rates[What.RECIPIENT_RATE])

    def exempt(self, ip: str) -> bool:
        """Whether a client is left alone."""
        return not ip or ip in self.exceptions

    # --- bans ---

    def is_banned(self, ip: str) -> bool:
        """Whether nothing is heard from an address; counts that it tried."""
        if self.bans is None or not self.bans.is_banned(ip):
            return False
        self.count(What.BANNED)
        return True

    def offended(self, ip: str, reason: str) -> None:
        """An address has failed in a way for which it may be banned."""
        if self.bans is not None:
            self.bans.failed(ip, reason)

    # --- who has waited for the greeting ---

    def has_waited(self, ip: str, ttl_s: float) -> bool:
        """Whether a client has waited for the greeting within so many seconds."""
        kind, a = _key(What.GREETED, "smtp", ip)
        return self._table.note(kind, a, 0, int(ttl_s), 0, int(self._monotonic()), False) > 0

    def waited(self, ip: str) -> None:
        """A client has."""
        kind, a = _key(What.GREETED, "smtp", ip)
        self._table.note(kind, a, 0, 0xFFFFFFFF, 0, int(self._monotonic()), True)

    # --- when mail was checked ---

    def checked_within(self, account_id: int, delay_s: int) -> bool:
        """Whether an account logged in over POP3 less than so many seconds ago, at any worker."""
        kind, a = _key(What.LOGIN_DELAY, "pop3", "")
        if self._table.note(kind, a, account_id, delay_s - 1, 0, int(self._monotonic()), False):
            self.count(What.LOGIN_DELAY)
            return True
        return False

    def mail_checked(self, account_id: int) -> None:
        """An account has logged in over POP3."""
        kind, a = _key(What.LOGIN_DELAY, "pop3", "")
        self._table.note(kind, a, account_id, 0xFFFFFFFF, 0, int(self._monotonic()), True)

    # --- places ---

    def connect(self, service: str, ip: str) -> int:
        """A place for a connection of an address to a service: to be released, or REFUSED."""
        if self.exempt(ip):
            return UNCOUNTED
        if not self.take(What.CONNECTION_RATE, service, ip):
            return REFUSED
        return self._hold(What.CONNECTIONS, service, ip, 0, self._connections[service])

    def seat(self, service: str, ip: str) -> "Seat":
        """The places of a connection that has to log in, from its first byte to its end."""
        return Seat(self, service, ip)

    def upload(self, ip: str, account_id: int) -> Upload:
        """What an unfinished message holds; it counts nothing yet."""
        return Upload(self, ip, account_id)

    def release(self, place: int, n: int = 1) -> None:
        """Gives a place back; REFUSED and UNCOUNTED are none."""
        if place > 0:
            self._table.release(place, int(self._monotonic()), n)

    def _hold(self, what: What, service: str, ip: str, other: int, limit: int) -> int:
        kind, a = _key(what, service, ip)
        place = self._table.hold(kind, a, other, limit, int(self._monotonic()))
        if place == REFUSED:
            self.count(what)
        return place

    # --- events ---

    def take(self, what: What, service: str, ip: str, n: int = 1) -> bool:
        """Whether an address may do so much more in this time unit; what it tries counts anyhow, as in anvil(8)."""
        rate = self._rates[what]
        if not rate.limit or self.exempt(ip) or not rate.take((*_key(what, service, ip), 0), n):
            return True
        self.count(what)
        return False

    # --- failed logins ---

    def failed(self, ip: str) -> float:
        """Notes a failed login and gives the penalty in units of auth_failure_delay."""
        self.offended(ip, "login failed")
        return PENALTY_STEPS[self._penalty(ip, up=True)]

    def penalty(self, ip: str) -> float:
        """The penalty as it stands, without one failure more."""
        return PENALTY_STEPS[max(1, self._penalty(ip, up=False))]

    def _penalty(self, ip: str, *, up: bool) -> int:
        kind, a = _key(What.FAILED_LOGINS, "smtp", ip)
        top = len(PENALTY_STEPS) - 1
        return self._table.grow(kind, a, 0, top, PENALTY_DECAY_S, int(self._monotonic()), up)

    def forgive(self, ip: str) -> None:
        """A login has succeeded: no penalty any more, as in Dovecot."""
        kind, a = _key(What.FAILED_LOGINS, "smtp", ip)
        self._table.forget(kind, a, 0)

    def may_try_code(self, account_id: int) -> bool:
        """Whether one more one-time code may be tried behind an account's password, which was right."""
        kind, a = _key(What.ONE_TIME_CODES, "smtp", "")
        if not self._codes.take((kind, a, account_id)):
            return True
        self.count(What.ONE_TIME_CODES)
        return False

    def code_was_right(self, account_id: int) -> None:
        """It was the account's: those that were tried before it are forgiven."""
        kind, a = _key(What.ONE_TIME_CODES, "smtp", "")
        self._table.forget(kind, a, account_id)

    def count(self, what: What) -> None:
        """Counts a refusal."""
        self._cells[METRICS.limited_total[what.name.lower()]] += 1

    # --- for uploads ---

    def holdings(self) -> Holdings:
        """What one client will hold of some keys, which `bind` names."""
        return Holdings(self._table, self._monotonic)

    def bind(self, holdings: Holdings, what: What, ip: str, account_id: int, limit: int) -> None:
        """Messages or octets of an address or of an account, as one more key."""
        kind, a = _key(what, "smtp", ip)
        holdings.bind(kind, a, account_id, limit)

    def appending(self, account_id: int) -> int:
        """How many octets the unfinished APPENDs of an account have announced, in all workers."""
        kind, a = _key(What.APPEND_BYTES, "smtp", "")
        return self._table.held(kind, a, account_id)

    # --- for seats ---

    def enter(self, service: str, ip: str) -> tuple[int, int]:
        """Places among those that have not logged in: of all, and of this address; (REFUSED, REFUSED) if either is
        full.
        """
        if self.exempt(ip):
            return UNCOUNTED, UNCOUNTED
        everyone, address = self._logins
        own = self._hold(What.UNAUTHENTICATED, service, ip, 0, address)  # first: who is over it pushes nobody out
        if own == REFUSED:
            return REFUSED, REFUSED
        kind, a = _key(What.UNAUTHENTICATED, "http", "")  # a key that no connection has itself
        of_all = self._table.hold(kind, a, 0, everyone, int(self._monotonic()))
        if of_all == REFUSED:  # somebody goes, or the refusal is counted
            self._make_room()
            of_all = self._hold(What.UNAUTHENTICATED, "http", "", 0, everyone)
        if of_all == REFUSED:
            self.release(own)
            return REFUSED, REFUSED
        return of_all, own

    def _make_room(self) -> None:
        """As Dovecot: whoever has stood here for longest without a login makes room, so that a crowd which never logs
        in locks nobody out. Who came a moment ago may be about to, and stays.
        """
        oldest = next(iter(self._guests), None)
        if oldest is not None and self._monotonic() - oldest.since >= LOGIN_GRACE_S:
            oldest.give_way()

    def settle(self, seat: "Seat", *, stays: bool) -> None:
        """A seat counts as a guest's from now on, or does no more."""
        if stays:
            self._guests[seat] = None
            seat.since = self._monotonic()
        else:
            self._guests.pop(seat, None)

    def log_in(self, service: str, ip: str, account_id: int) -> int:
        """A place of an account from an address in a service (Dovecot's mail_max_userip_connections)."""
        return self._hold(What.USER_CONNECTIONS, service, ip, account_id, self._user_limit)

    @property
    def user_limit(self) -> int:
        return self._user_limit


class Seat:
    """What one connection of IMAP, POP3 or submission holds; `leave` may be called more than once."""

    __slots__ = ("_all", "_ip", "_limits", "_make_way", "_own", "_service", "_user", "since")

    def __init__(self, limits: Limits, service: str, ip: str) -> None:
        self._limits = limits
        self._service = service
        self._ip = ip
        self._all = self._own = self._user = REFUSED
        self._make_way: Callable[[], object] | None = None
        self.since = 0.0

    def enter(self, make_way: Callable[[], object]) -> bool:
        """Before login: False where too many have not logged in. `make_way` ends the connection for a newcomer."""
        self._all, self._own = self._limits.enter(self._service, self._ip)
        if self._all > 0:
            self._make_way = make_way
            self._limits.settle(self, stays=True)
        return self._all != REFUSED

    def give_way(self) -> None:
        """The connection ends for a newcomer, who has its place at once."""
        make_way = self._make_way
        self.leave()
        if make_way is not None:
            make_way()

    def log_in(self, account_id: int) -> bool:
        """At login: False where the account has too many connections from this address already."""
        self._limits.release(self._user)  # an earlier login of this connection that came to nothing
        self._user = self._limits.log_in(self._service, self._ip, account_id)
        if self._user == REFUSED:
            return False
        self._limits.release(self._all)
        self._limits.release(self._own)
        self._all = self._own = REFUSED
        self._stand_up()
        return True

    def leave(self) -> None:
        """The connection has ended."""
        for place in (self._all, self._own, self._user):
            self._limits.release(place)
        self._all = self._own = self._user = REFUSED
        self._stand_up()

    def _stand_up(self) -> None:
        if self._make_way is not None:
            self._make_way = None
            self._limits.settle(self, stays=False)

    @property
    def refusal(self) -> str:
        """Dovecot's words for an account with too many connections."""
        limit = self._limits.user_limit
        return f"Maximum number of connections from user+IP exceeded (mail_max_userip_connections={limit})"


class Guests:
    """The seats of sessions that have to log in and have not, by session (submission; IMAP and POP3 keep their own)."""

    def __init__(self) -> None:
        self._seats: dict[object, Seat] = {}

    def take(self, session: object, seat: Seat, make_way: Callable[[], object]) -> bool:
        """As Seat.enter."""
        if not seat.enter(make_way):
            return False
        self._seats[session] = seat
        return True

    def leave(self, session: object) -> None:
        """The session has logged in, or has ended, or was none."""
        seat = self._seats.pop(session, None)
        if seat is not None:
            seat.leave()


def _key(what: What, service: str, ip: str) -> tuple[int, int]:
    """(kind, address) of the table. What is no address, as a unix socket's "", is the number 0."""
    kind = (what << 8) | (_NUMBERS[service] << 1)
    version, number = number_of(ip)
    return (kind | 1, number >> 64) if version == 6 else (kind, number)
