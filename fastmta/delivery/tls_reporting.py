"""What sessions with next hops came to under DANE, MTA-STS or no policy, noted for TLS reports (RFC 8460).

A session is noted once: with its success, or with what it failed by. Nothing is asked in DNS while mail leaves: every
few seconds `flush` asks whether the domains that were met want reports (a TXT record at _smtp._tls), and gives the
rows of those that do to the store; the resolver's cache makes that a question a domain and TTL. Not noted are next hops
that a route names as a host, local policies' verdicts, resumed sessions (smtp_tlsrpt_skip_reused_handshakes), and the
delivery of reports themselves.
"""

import asyncio
import time
from typing import TYPE_CHECKING, Final

from fastmta.delivery.tls_policy import ReportedPolicy, TlsPolicy
from fastmta.dns.mx import Address
from fastmta.dns.resolver import LookupTrouble, NotFound
from fastmta.model.limits import REPORT_DOMAINS, REPORT_ROWS, TLS_REPORT_ASK_S
from fastmta.smtp.client_connection import Connection
from fastmta.store.tls_rows import TlsRow
from fastmta.tls.report_record import report_uris

if TYPE_CHECKING:
    from fastmta.config.delivery_keys import DeliveryConfig
    from fastmta.delivery.seams import TlsCounts
    from fastmta.dns.resolver import Resolver
    from fastmta.runtime.clock import Clock

QUESTIONS: Final = 20  # that `flush` has under way at one time
_REASON: Final = 200  # characters of a reason


class TlsReporting:
    """The sessions of one worker."""

    def __init__(
        self, settings: "DeliveryConfig", rows: "TlsCounts", resolver: "Resolver", clock: "Clock", *, email: str
    ) -> None:
        self._rows = rows
        self._resolver = resolver
        self._clock = clock
        self._skips_resumed = settings.smtp_tlsrpt_skip_reused_handshakes
        self._email = email.encode()
        self._seen: dict[tuple[str, str], dict[TlsRow, int]] = {}  # by day and domain
        self._flushed_at = clock.monotonic()

    def take_over(self, other: "TlsReporting") -> None:
        """What was noted before the configuration was reread."""
        self._seen, other._seen = other._seen, {}

    def is_report(self, sender: bytes) -> bool:
        """Whether a message is a report of ours, whose own session is not told."""
        return sender == self._email

    def ready(self, connection: Connection) -> None:
        """The session is ready for mail."""
        policy = connection.policy
        assert isinstance(policy, TlsPolicy)
        if connection.client.tls:
            if not (self._skips_resumed and connection.is_resumed):
                self._note(connection.address, policy.reported, policy.problem, connection=connection)
        elif policy.level != "none":
            self._note(connection.address, policy.reported, "starttls-not-supported", connection=connection)

    def failed(self, connection: Connection) -> None:
        """The session ended before it was ready: noted where it did so for TLS."""
        assert isinstance(connection.policy, TlsPolicy)
        if connection.policy.is_trial:
            return  # the session that follows tells what was wrong
        result = connection.tls_problem
        failure = connection.client.failure
        if not result and failure is not None and failure.enhanced == "4.7.4":
            result = "starttls-not-supported"
        if result:
            reason = failure.text if failure is not None else ""
            self._note(connection.address, connection.policy.reported, result, reason, connection)

    def refused(self, address: Address, reported: ReportedPolicy, result: str, reason: str) -> None:
        """No session was begun: the policy does not admit the server, or cannot be known."""
        self._note(address, reported, result, reason)

    def _note(
        self,
        address: Address,
        reported: ReportedPolicy,
        result: str,
        reason: str = "",
        connection: Connection | None = None,
    ) -> None:
        domain = address.domain or address.host
        if address.next_hop.startswith("[") or reported.kind == "local":
            return
        row = TlsRow(
            reported.kind,
            reported.domain or domain,
            reported.strings,
            reported.hosts,
            result,
            connection.own_ip if connection is not None and result else "",
            address.host if result else "",
            address.ip if result else "",
            reason[:_REASON] if result else "",
        )
        key = (time.strftime("%Y%m%d", time.gmtime(self._clock.now())), domain.lower().rstrip("."))
        rows = self._seen.get(key)
        if rows is None:
            if len(self._seen) >= REPORT_DOMAINS:
                return
            rows = self._seen[key] = {}
        if row in rows or len(rows) < REPORT_ROWS:
            rows[row] = rows.get(row, 0) + 1

    @property
    def is_due(self) -> bool:
        """Whether `flush` has something to do; for once a second."""
        return bool(self._seen) and self._clock.monotonic() - self._flushed_at >= TLS_REPORT_ASK_S

    async def flush(self) -> None:
        """Gives what was noted of domains that ask for reports to the store."""
        self._flushed_at = self._clock.monotonic()
        seen, self._seen = self._seen, {}
        keys = list(seen)
        for start in range(0, len(keys), QUESTIONS):
            part = keys[start : start + QUESTIONS]
            wanted = await asyncio.gather(*(self._is_wanted(domain) for _, domain in part))
            for key, is_wanted in zip(part, wanted, strict=True):
                if is_wanted:
                    for row, count in seen[key].items():
                        self._rows.note(*key, "", row, count)

    async def _is_wanted(self, domain: str) -> bool:
        try:
            return bool(report_uris(await self._resolver.txt(f"_smtp._tls.{domain}")))
        except NotFound:
            return False
        except LookupTrouble:
            return True  # asked again when the report is due
