"""Counters as plain 64-bit cells of a shared mapping; names, labels and places are fixed when this module is
imported.

A *cell* is one unsigned integer, a *range* the cells that one process writes. The supervisor makes the mapping, gives
each worker a range that nobody else writes, and takes it back when the worker is reaped; the range's totals stay, so
no total ever falls. Incrementing is `cells[INDEX] += 1` (60 ns) and needs no lock, because a cell has one writer.

    cells[METRICS.connections_total["smtp"]] += 1
    cells[METRICS.deliveries_total["smtp", "delivered"]] += 1
    METRICS.delivery_seconds.observe(cells, 1.25)

A histogram's cells are, from `index` on: the sum of what was observed in its unit (microseconds, or a plain count),
then one cell a bucket, not cumulative, with the inclusive upper bounds `bounds` in that unit, then the bucket of all
that is larger. Code in C may write them itself: for `commit_seconds` the bounds are 64 << i microseconds (i = 0..16),
for `commit_messages` 1 << i (i = 0..8), so that a bucket is found by counting leading zeros.

Gauges that the store knows (messages in the queue, their age) are read when somebody asks and have no cell.
"""

import mmap
import os
import zlib
from bisect import bisect_left
from collections.abc import Iterator
from itertools import product
from typing import Final

from fastmta.model.mechanisms import MECHANISMS
from fastmta.model.routes import TRANSPORTS
from fastmta.model.services import NAMES, SERVICES, Tls

Cells = memoryview  # of format "Q": one process's range
RANGE_BYTES: Final = 4096  # a page a process, so two processes never share a cache line
CELLS: Final = RANGE_BYTES // 8
HEARTBEAT: Final = CELLS - 1  # no metric: when this process's loop last turned, in monotonic milliseconds

REJECT_REASONS: Final = (
    "relay_denied",
    "unknown_user",
    "sender",
    "syntax",
    "bare_newline",
    "size",
    "recipients",
    "quota",
    "storage",
    "loop",
    "policy",
    "other",
)
TABLES: Final = (  # of the store, in the order of _store.TABLE_NAMES
    "root",
    "blob",
    "queue",
    "schedule",
    "hop",
    "hop_state",
    "queue_by_sender",
    "queue_by_domain",
    "queue_by_age",
    "counter",
    "mailbox",
    "mailbox_name",
    "message",
    "envelope",
    "change",
    "account",
    "account_name",
    "subscription",
    "usage",
    "alias",
    "pending",
    "trash",
    "meta",
    "dkim_key",
    "annotation",
    "credential",
    "queue_by_error",
    "queue_count",
    "acl",
    "acl_index",
    "retained",
    "queue_by_tenant",
    "uidl",
    "other",
)
CHECK_STAGES: Final = ("connect", "helo", "auth", "mail", "rcpt", "data", "end")
VERDICTS: Final = ("none", "accept", "reject", "defer", "discard", "hold", "quarantine", "redirect", "late")
TRANSPORT_LABELS: Final = tuple(dict.fromkeys(transport.label for transport in TRANSPORTS))
DELIVERY_RESULTS: Final = ("delivered", "deferred", "bounced")
ACT_FAMILIES: Final = (
    "user",
    "app-password",
    "session",
    "alias",
    "mailbox",
    "queue",
    "dkim",
    "store",
    "ban",
    "quarantine",
    "verified",
    "dmarc",
    "tlsrpt",
    "index",
    "other",
)
ADMIN_RESULTS: Final = ("held", "released", "flushed", "requeued", "deleted")
AUTH_MECHANISMS: Final = (*MECHANISMS, "USER", "other")  # USER: IMAP LOGIN, POP3 USER and PASS
LOGIN_MECHANISMS: Final = (
    "PLAIN",
    "LOGIN",
    "CRAM-MD5",
    "SCRAM-SHA-1",
    "SCRAM-SHA-256",
    "XOAUTH2",
    "OAUTHBEARER",
    "none",
)
AUTH_RESULTS: Final = ("success", "failure", "temporary", "other")
LIMITS: Final = (
    "connections",
    "connection_rate",
    "message_rate",
    "recipient_rate",
    "auth_rate",
    "tls_rate",
    "unauthenticated",
    "user_connections",
    "login_delay",
    "one_time_codes",
    "uploads",
    "upload_bytes",
    "banned",
)
TLS_VERSIONS: Final = ("TLSv1.2", "TLSv1.3", "other")
REPLY_CLASSES: Final = (
    "rate-limited",
    "greylisted",
    "blocked",
    "mailbox-full",
    "unknown-user",
    "policy",
    "content",
    "tls",
    "dns",
    "connection",
    "other",
)
TLS_SERVICES: Final = (*(service.name for service in SERVICES if service.tls is not Tls.NONE), "delivery")


class Family:
    """One metric name with its label values, each combination at a fixed cell. `counter` is false for a gauge."""

    __slots__ = ("counter", "documentation", "labels", "name", "places", "scale", "values")

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: dict[str, tuple[str, ...]],
        counter: bool,
        first: int,
        scale: int = 1,
    ) -> None:
        self.scale = scale  # units of a cell in one of what is exported
        self.name = name
        self.documentation = documentation
        self.labels = tuple(labels)
        self.values = tuple(labels.values())
        self.counter = counter
        self.places = {values: first + n for n, values in enumerate(product(*self.values))}

    def __getitem__(self, values: str | tuple[str, ...]) -> int:
        """The cell of these label values; an unlisted one is "other" where there is such, else KeyError."""
        key = (values,) if isinstance(values, str) else values
        place = self.places.get(key)
        if place is None:  # the set of labels is closed: what a peer sends can never make a new one
            place = self.places[tuple(v if v in known else "other" for v, known in zip(key, self.values, strict=True))]
        return place


class Histogram:
    """A distribution in consecutive cells; the module's text gives their order."""

    __slots__ = ("bounds", "documentation", "index", "name", "scale")

    def __init__(self, name: str, documentation: str, bounds: tuple[int, ...], scale: int, index: int) -> None:
        self.name = name
        self.documentation = documentation
        self.bounds = bounds
        self.scale = (
            scale  # units in one of what the metric is exported as: 1,000,000 for microseconds kept, seconds shown
        )
        self.index = index

    def observe(self, cells: Cells, value: float) -> None:
        """Counts one observation in exported units (seconds, or a count); less than zero counts as zero."""
        units = max(0, int(value * self.scale))
        cells[self.index] += units
        cells[self.index + 1 + bisect_left(self.bounds, units)] += 1


class Metrics:
    """Every family of the server, under its name without `fastmta_`."""

    def __init__(self) -> None:
        self._next = 0
        self.families: list[Family] = []
        self.histograms: list[Histogram] = []
        self.connections_total = self._family("connections_total", "Connections accepted", service=NAMES)
        self.connections = self._family("connections", "Connections open now", gauge=True, service=NAMES)
        self.messages_received_total = self._single("messages_received_total", "Messages taken in and committed")
        self.received_bytes_total = self._single("received_bytes_total", "Bytes of the messages taken in")
        self.messages_rejected_total = self._family(
            "messages_rejected_total", "Senders, recipients and messages refused", reason=REJECT_REASONS
        )
        self.check_verdicts_total = self._family(
            "check_verdicts_total", "What checks have said", stage=CHECK_STAGES, verdict=VERDICTS
        )
        self.deliveries_total = self._family(
            "deliveries_total", "Attempts for one recipient", transport=TRANSPORT_LABELS, result=DELIVERY_RESULTS
        )
        self.auth_total = self._family("auth_total", "Logins tried", mechanism=AUTH_MECHANISMS, result=AUTH_RESULTS)
        self.limited_total = self._family(
            "limited_total", "Connections and commands refused for a limit of their address or account", limit=LIMITS
        )
        self.tls_connections_total = self._family(
            "tls_connections_total", "TLS handshakes completed", service=TLS_SERVICES, version=TLS_VERSIONS
        )
        self.delivery_logins_total = self._family(
            "delivery_logins_total",
            "Logins at next hops",
            mechanism=LOGIN_MECHANISMS,
            result=("success", "failure"),
        )
        self.delivery_tls_total = self._family(
            "delivery_tls_total",
            "TLS sessions with next hops, by level and by what the server's certificate was verified",
            level=("may", "encrypt", "verify", "secure", "fingerprint", "dane", "mta-sts"),
            verified=("none", "hostname", "nexthop", "dot-nexthop", "fingerprint", "dane-ee", "dane-ta", "other"),
        )
        self.delivery_replies_total = self._family(
            "delivery_replies_total",
            "Negative replies for one recipient, by what they mean",
            meaning=REPLY_CLASSES,
        )
        self.delivery_tls_sessions_total = self._family(
            "delivery_tls_sessions_total",
            "TLS sessions with next hops, by whether one of before was resumed",
            session=("new", "resumed"),
        )
        self.bounces_dropped_total = self._family(
            "bounces_dropped_total",
            "Notifications that nobody could be sent: of a notification itself, or to a sender that does not exist",
            reason=("double_bounce", "sender_refused"),
        )
        self.admin_acts_total = self._family(
            "admin_acts_total", "Acts of administrators that changed something", family=ACT_FAMILIES
        )
        self.admin_recipients_total = self._family(
            "admin_recipients_total", "Queued recipients that an administrator changed", result=ADMIN_RESULTS
        )
        self.internal_errors_total = self._family(
            "internal_errors_total",
            "Failures that no code expected, each with a traceback in the log",
            service=(*NAMES, "delivery", "worker"),
        )
        self.bus_datagrams_total = self._family(
            "bus_datagrams_total", "Datagrams between workers", result=("sent", "received", "blocked", "failed")
        )
        self.store_damaged_total = self._family(
            "store_damaged_total", "Reads and commits that met a damaged place of the store", table=TABLES
        )
        self.store_reopened_total = self._single("store_reopened_total", "Times the store was opened anew in place")
        self.index_messages_total = self._single("index_messages_total", "Messages brought into full-text indexes")
        self.index_damaged_total = self._single("index_damaged_total", "Full-text indexes thrown away for damage")
        self.log_dropped_total = self._single("log_dropped_total", "Log lines that standard error did not take")
        self.trace_dropped_total = self._single(
            "trace_dropped_total", "Events that the message trace did not keep: no room on the disk, or too slow a one"
        )
        self.process_cpu = self._single("process_cpu_seconds_total", "Processor time of all workers", scale=1_000_000)
        self.process_memory = self._single("process_resident_memory_bytes", "Memory of all workers", gauge=True)
        self.process_descriptors = self._single("process_open_fds", "Descriptors of all workers", gauge=True)
        self.process_descriptors_limit = self._single(
            "process_max_fds", "Descriptors that all workers together may have", gauge=True
        )
        self.delivery_seconds = self._histogram(
            "delivery_seconds",
            "From acceptance to final delivery",
            tuple(int(s * 1e6) for s in (0.005, 0.02, 0.1, 0.5, 2, 10, 30, 60, 300, 1800, 7200, 43200, 172800, 432000)),
            1_000_000,
        )
        self.commit_seconds = self._histogram(
            "store_commit_seconds", "One commit of the store", tuple(64 << i for i in range(17)), 1_000_000
        )
        self.commit_messages = self._histogram(
            "store_commit_messages", "Units that one commit carried", tuple(1 << i for i in range(9)), 1
        )
        if self._next > HEARTBEAT:
            raise RuntimeError(f"{self._next} metric cells do not fit in a range of {CELLS}")
        places = [(f.name, sorted(f.places.items())) for f in self.families]
        shapes = [(h.name, h.index, h.bounds) for h in self.histograms]
        self.layout: int = zlib.crc32(repr((places, shapes)).encode())
        """A number that differs where a program of another version would put a cell elsewhere."""

    def _family(
        self, name: str, documentation: str, *, gauge: bool = False, scale: int = 1, **labels: tuple[str, ...]
    ) -> Family:
        family = Family(f"fastmta_{name}", documentation, labels, not gauge, self._next, scale)
        self._next += len(family.places)
        self.families.append(family)
        return family

    def _single(self, name: str, documentation: str, *, gauge: bool = False, scale: int = 1) -> int:
        return self._family(name, documentation, gauge=gauge, scale=scale).places[()]

    def _histogram(self, name: str, documentation: str, bounds: tuple[int, ...], scale: int) -> Histogram:
        histogram = Histogram(f"fastmta_{name}", documentation, bounds, scale, self._next)
        self._next += len(bounds) + 2
        self.histograms.append(histogram)
        return histogram

    def gauges(self) -> Iterator[int]:
        """The cells that describe now and not the past: zeroed when their process is gone."""
        for family in self.families:
            if not family.counter:
                yield from family.places.values()


METRICS: Final = Metrics()


def index_of(name: str, **labels: str) -> int:
    """The cell of a metric by its full name; KeyError for an unknown name or a value of no known label."""
    for family in METRICS.families:
        if family.name == name:
            return family[tuple(labels[label] for label in family.labels)] if family.labels else family.places[()]
    for histogram in METRICS.histograms:
        if histogram.name == name:
            return histogram.index
    raise KeyError(name)


def local_cells() -> Cells:
    """A range of this process alone, for tests and commands; nobody collects it."""
    return memoryview(bytearray(RANGE_BYTES)).cast("Q")


def reset_gauges(cells: Cells) -> None:
    """Forgets what a process that is gone had open."""
    for index in METRICS.gauges():
        cells[index] = 0


class SharedCells:
    """The mapping with every process's range, behind a file descriptor that workers inherit."""

    def __init__(self, fd: int, ranges: int) -> None:
        self.fd = fd
        self.ranges = ranges
        self._view = memoryview(mmap.mmap(fd, ranges * RANGE_BYTES))

    @classmethod
    def create(cls, ranges: int) -> "SharedCells":
        """A new mapping, all zero; untouched ranges cost no memory."""
        fd = os.memfd_create("fastmta-cells", os.MFD_CLOEXEC)
        os.ftruncate(fd, ranges * RANGE_BYTES)
        return cls(fd, ranges)

    def range(self, number: int) -> Cells:
        """The cells of one process; writing them is for their owner only."""
        if not 0 <= number < self.ranges:
            raise IndexError(f"no range {number} of {self.ranges}")
        return self._view[number * RANGE_BYTES : (number + 1) * RANGE_BYTES].cast("Q")
