"""The logins of one hop: who logs in for a message, what came of it, and which login waits because it was refused.

A refused login is a mistake of ours and not of the mail: it defers, whatever the server said. One line says so, and
all that needs this login waits for minimal_backoff_time, so that a wrong password does not lock an account. Where the
sender decides about the login, only his mail waits; else the whole hop does (its owner sees to that).
"""

from typing import TYPE_CHECKING

import msgspec

from fastmta.auth.relay_logins import RelayCredentials
from fastmta.delivery.job import Job
from fastmta.dns.mx import Address
from fastmta.model.envelope import RecipientState
from fastmta.model.errors import TemporaryFailure
from fastmta.model.limits import LOGINS_PAUSED
from fastmta.model.reply import Reply
from fastmta.runtime.metrics import METRICS
from fastmta.smtp.client_connection import Connection

if TYPE_CHECKING:
    from fastmta.delivery.service import DeliveryService


class _Pause(msgspec.Struct):
    until: float  # monotonic
    since_ms: int  # by the wall clock, as the schedule counts
    reply: Reply


class HopLogins:
    """One hop's. `login` is a sender's own entry of the map, "" or None where the host decides."""

    __slots__ = ("_hop", "_paused", "_service")

    def __init__(self, service: "DeliveryService", hop: bytes) -> None:
        self._service = service
        self._hop = hop
        self._paused: dict[str, _Pause] = {}

    async def credentials(self, login: str | None, address: Address) -> RelayCredentials | None:
        """Who logs in at an address; None: nobody. TemporaryFailure: the map or the token cannot be had."""
        if not address.port:
            return None
        logins = self._service.logins
        entry = login or logins.of_host(address.host, address.next_hop)
        if not entry:
            return None
        return await logins.credentials(entry, address.host, address.port)

    def may_begin(self, job: Job) -> bool:
        """Whether a job may be begun by its sender's login, which is looked up here; if not, `failure` says why."""
        if job.login is None:
            try:
                job.login = self._service.logins.of_sender(job.envelope.reverse_path)
            except TemporaryFailure as error:
                job.failure = error.reply
                return False
        pause = self._paused.get(job.login) if job.login else None
        if pause is None:
            return True
        if self._service.clock.monotonic() >= pause.until or _is_wanted(job, pause.since_ms):
            del self._paused[job.login]
            return True
        enhanced = pause.reply.enhanced or "4.7.0"
        job.failure = Reply(454, enhanced, f"delivery temporarily suspended: {pause.reply.text}")
        return False

    def paused_until(self, job: Job) -> float:
        """The wall clock's time at which the job's login is tried again; 0: it does not wait."""
        pause = self._paused.get(job.login) if job.login else None
        if pause is None:
            return 0.0
        clock = self._service.clock
        return clock.now() + pause.until - clock.monotonic()

    def succeeded(self, connection: Connection) -> None:
        """The server has taken the login."""
        service, login = self._service, connection.client.login
        assert login is not None
        service.cells[METRICS.delivery_logins_total[login.mechanism, "success"]] += 1
        service.log.info(
            "delivery.login",
            next_hop=self._hop,
            relay=connection.client.peer,
            user=_user(connection),
            mechanism=login.mechanism,
        )

    def refused(self, connection: Connection, job: Job, reply: Reply) -> None:
        """The server has not, or none may be tried."""
        service, client = self._service, connection.client
        mechanism = client.login.mechanism if client.login is not None else "none"
        service.cells[METRICS.delivery_logins_total[mechanism, "failure"]] += 1
        if isinstance(client.credentials, RelayCredentials):
            service.logins.refused(client.credentials)
        key = job.login or ""
        now = service.clock.monotonic()
        pause = self._paused.get(key)
        if pause is not None and now < pause.until:
            return  # connections that were made at the same time
        backoff_s = service.config.delivery.minimal_backoff_time
        while len(self._paused) >= LOGINS_PAUSED:
            del self._paused[next(iter(self._paused))]
        self._paused[key] = _Pause(now + backoff_s, service.now_ms(), reply)
        service.log.warning(
            "delivery.login_failed",
            next_hop=self._hop,
            relay=client.peer,
            user=_user(connection),
            mechanism=mechanism,
            seconds=backoff_s,
            reply=str(reply),
        )


def _is_wanted(job: Job, since_ms: int) -> bool:
    """Whether an administrator has made the job due since: then his wish is granted."""
    return any(row.state == RecipientState.ACTIVE and row.last_reply and row.due_ms >= since_ms for row in job.rows)


def _user(connection: Connection) -> str:
    credentials = connection.client.credentials
    return credentials.user if credentials is not None else ""
