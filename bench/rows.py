"""The rows of the benchmark: which peers meet, how one sample is taken, and what it means.

A sample is taken on peers that are all up; only the measured one has load. Rates are operations a second as the client
sees them; CPU is that of all the peer's processes for 1,000 operations, and is the figure to trust where the client
limits the rate.
"""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench import access, load, native
from bench.peers import (
    ACCESS_USERS,
    DESTINATIONS,
    HOLD_DOMAIN,
    LOCAL_USER,
    MANY_DOMAIN,
    PASSWORD,
    RELAY_DOMAIN,
    FastMTAPeer,
    NextHops,
    Peer,
    settle,
)

DRAIN_TIMEOUT_S = 120.0


class Sample(NamedTuple):
    per_second: float
    cpu_s_per_1000: float
    extra: dict[str, float]


class Context(NamedTuple):
    """What a sample needs beside its peer: the next hops of both relays, and the scale of the run."""

    hops: NextHops
    scale: float  # 1.0 for a full run, less for --quick
    directory: Path

    def count(self, full: int) -> int:
        return max(20, int(full * self.scale))


class Row(NamedTuple):
    key: str
    title: str
    peers: tuple[str, ...]  # the first is the one that the ratio is taken against
    measure: Callable[[Peer, Context], Sample]
    unit: str = "msg/s"
    prepare: Callable[[Peer, Context], None] | None = None  # once a row and peer, untimed
    refresh: Callable[[Peer, Context], None] | None = None  # before each sample, untimed
    goal: float = 0.0  # of the ratio of rates; 0: none is set


def _sampled(peer: Peer, operations: int, work: Callable[[], float | None], extra: dict[str, float]) -> Sample:
    """Times `work` (which may give its own elapsed seconds) and charges the peer for its CPU until it is quiet."""
    settle(peer)
    cpu = peer.cpu_seconds()
    started = time.monotonic()
    elapsed = work()
    if elapsed is None:
        elapsed = time.monotonic() - started
    settle(peer)
    spent = peer.cpu_seconds() - cpu
    return Sample(operations / elapsed, spent * 1000 / operations, extra)


# The same number for every peer of a row: a server that is given more has more company in its commits.
_RELAY_PEERS = ("postfix", "sink", "fastmta")
_MANY, _ONE, _RELAYED, _LOCAL = 8_000, 4_000, 4_000, 4_000


def accept(
    sessions: int, many: bool = True, size: int = 4096, pipelined: bool = False
) -> Callable[[Peer, Context], Sample]:
    """Load into a peer that keeps the mail on hold: acceptance with its durable commit alone."""

    def measure(peer: Peer, context: Context) -> Sample:
        full = _MANY if many else _ONE
        messages = context.count(full if size <= 4096 else full // 4)

        def work() -> float:
            return native.smtp_load(
                peer.port("smtp"),
                sessions=sessions,
                messages=messages,
                size=size,
                one_each=not many,
                pipelined=pipelined,
                to=f"h@{HOLD_DOMAIN}",
            ).elapsed_s

        return _sampled(peer, messages, work, {})

    return measure


def relay(
    sessions: int, many: bool = True, size: int = 4096, domain: str = RELAY_DOMAIN, destinations: int = 0
) -> Callable[[Peer, Context], Sample]:
    """Load into a relay, until the last message has reached the sink of `domain` behind it, or was told there to wait.

    With `destinations` as many domains below `domain` have the mail in turn. Into a sink, the load is all there is.
    """

    def measure(peer: Peer, context: Context) -> Sample:
        messages = max(destinations, context.count(_RELAYED if size <= 4096 else _RELAYED // 4))
        sink = context.hops.of(domain)
        received, refused = sink.received(), sink.refused()
        accepted_s = 0.0

        def work() -> None:
            nonlocal accepted_s
            accepted_s = native.smtp_load(
                peer.port("smtp"),
                sessions=sessions,
                messages=messages,
                size=size,
                one_each=not many,
                to=f"r@{domain}",
                domains=destinations,
            ).elapsed_s
            if peer.name == "sink":
                return
            deadline = time.monotonic() + DRAIN_TIMEOUT_S
            while (missing := messages - (sink.received() - received) - (sink.refused() - refused)) > 0:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{peer.name}: {missing} messages have not reached the next hop")
                time.sleep(0.005)

        sample = _sampled(peer, messages, work, {})
        deferred = {"deferred": float(sink.refused() - refused)} if sink.refused() else {}
        return sample._replace(extra={"accepted_per_second": messages / accepted_s, **deferred})

    return measure


def local(sessions: int) -> Callable[[Peer, Context], Sample]:
    """Load into a local mailbox, until nothing is queued."""

    def measure(peer: Peer, context: Context) -> Sample:
        messages = context.count(_LOCAL)

        def work() -> None:
            native.smtp_load(peer.port("smtp"), sessions=sessions, messages=messages, size=4096, to=LOCAL_USER)
            deadline = time.monotonic() + DRAIN_TIMEOUT_S
            while peer.name == "postfix" and peer.pending():
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{peer.name} has not delivered after {DRAIN_TIMEOUT_S} s")
                time.sleep(0.01)

        return _sampled(peer, messages, work, {})

    return measure


def latency(sessions: int) -> Callable[[Peer, Context], Sample]:
    """A healthy prober's final 250 beside saturating connections."""

    def measure(peer: Peer, context: Context) -> Sample:
        seconds = max(1.5, 5.0 * context.scale)
        result: dict[str, dict[str, float]] = {}
        cpu = peer.cpu_seconds()
        result = load.beside(
            "127.0.0.1", peer.port("smtp"), sessions=sessions, seconds=seconds, interval_s=0.005, size=4096
        )
        settle(peer)
        spent = peer.cpu_seconds() - cpu
        for who, figures in result.items():
            if figures["failed"]:
                raise RuntimeError(f"{peer.name}: the {who} had failures: {figures['failures']}")
        messages = result["load"]["messages"] + result["probe"]["messages"]
        return Sample(
            result["load"]["per_second"],
            spent * 1000 / messages,
            {
                "probe_p50_ms": result["probe"]["p50_ms"],
                "probe_p99_ms": result["probe"]["p99_ms"],
                "probe_max_ms": result["probe"]["max_ms"],
                "load_p50_ms": result["load"]["p50_ms"],
                "load_p99_ms": result["load"]["p99_ms"],
            },
        )

    return measure


# --- reading mail ---

_ACCOUNTS = [access.Account(user.encode(), PASSWORD.encode()) for user in ACCESS_USERS]


def _mailbox_messages(context: Context) -> int:
    return context.count(1_000)


def _run_all(peer: Peer, service: str, script: Callable[[access.Account], access.Script]) -> access.Outcome:
    return access.run(("127.0.0.1", peer.port(service)), [functools.partial(script, account) for account in _ACCOUNTS])


def _fill(peer: Peer, context: Context) -> None:
    """The same number of messages in every mailbox, whatever an earlier row left."""
    count = _mailbox_messages(context)
    _run_all(peer, "imap", lambda account: access.imap_fill(account, 1))  # so that emptying finds something
    _run_all(peer, "imap", access.imap_empty)
    _run_all(peer, "imap", lambda account: access.imap_fill(account, count))


def _fill_words(peer: Peer, context: Context) -> None:
    """Mailboxes to be searched, indexed where the peer has an index."""
    count = _mailbox_messages(context)
    _run_all(peer, "imap", lambda account: access.imap_fill(account, 1))
    _run_all(peer, "imap", access.imap_empty)
    _run_all(peer, "imap", lambda account: access.imap_fill_words(account, count))
    if peer.name in ("fastmta", "beside") and isinstance(peer, FastMTAPeer):
        peer.server.cli("index", "rebuild", check=peer.name == "fastmta")


def reading(
    service: str,
    operations: Callable[[Context], int],
    script: Callable[[access.Account, Context], access.Script],
    least_bytes: int = 0,
) -> Callable[[Peer, Context], Sample]:
    """Ten clients, a mailbox each, run `script`; `operations` is what one of them does.

    An operation must have brought `least_bytes`, lest an answer of nothing but OK be taken for speed.
    """

    def measure(peer: Peer, context: Context) -> Sample:
        total = operations(context) * len(_ACCOUNTS)
        megabytes = 0.0

        def work() -> float:
            nonlocal megabytes
            outcome = _run_all(peer, service, lambda account: script(account, context))
            if outcome.received_bytes < total * least_bytes:
                raise RuntimeError(f"{peer.name}: {outcome.received_bytes} bytes are too few for {total} operations")
            megabytes = outcome.received_bytes / 1e6 / outcome.elapsed_s
            return outcome.elapsed_s

        sample = _sampled(peer, total, work, {})
        return sample._replace(extra={"megabytes_per_second": megabytes})

    return measure


def logins() -> Callable[[Peer, Context], Sample]:
    def measure(peer: Peer, context: Context) -> Sample:
        rounds = context.count(100)

        def work() -> float:
            return sum(_run_all(peer, "imap", access.imap_login).elapsed_s for _ in range(rounds))

        return _sampled(peer, rounds * len(_ACCOUNTS), work, {})

    return measure


# Enough for a sample of some tenths of a second of the faster peer's CPU: /proc counts in ticks of 10 ms.
_FETCHES = 60
_BODY_FETCHES = 10
_ACCESS_PEERS = ("dovecot", "fastmta")

ROWS: tuple[Row, ...] = (
    Row("accept-20-many", "accept 4 KB, 20 sessions, lockstep", ("sink", "fastmta"), accept(20)),
    Row("accept-20-pipelined", "accept 4 KB, 20 sessions, pipelined", ("sink", "fastmta"), accept(20, pipelined=True)),
    Row("accept-20-one", "accept 4 KB, 20 sessions, one a connection", ("sink", "fastmta"), accept(20, False)),
    Row("accept-100-many", "accept 4 KB, 100 sessions, lockstep", ("sink", "fastmta"), accept(100)),
    Row("accept-1", "accept 4 KB, a lone client", ("postfix", "fastmta"), accept(1)),
    Row("accept-postfix", "accept 4 KB, 20 sessions, lockstep", ("postfix", "fastmta"), accept(20)),
    Row("accept-50k", "accept 50 KB, 20 sessions, lockstep", ("postfix", "fastmta"), accept(20, size=51_200)),
    Row("relay-20-many", "relay 4 KB, 20 sessions, many a connection", _RELAY_PEERS, relay(20), goal=10),
    Row("relay-50k", "relay 50 KB, 20 sessions, many a connection", _RELAY_PEERS, relay(20, size=51_200), goal=6),
    Row("relay-100k", "relay 100 KB, 20 sessions, many a connection", _RELAY_PEERS, relay(20, size=102_400)),
    Row("relay-20-one", "relay 4 KB, 20 sessions, one a connection", _RELAY_PEERS, relay(20, False), goal=10),
    Row(
        "relay-20-one-each",
        "relay 4 KB, one a connection here and at the next hop",
        _RELAY_PEERS,
        relay(20, False, domain="one-each.example"),
        goal=10,
    ),
    Row(
        "relay-50-destinations",
        "relay 4 KB to 50 destinations",
        _RELAY_PEERS,
        relay(20, domain=MANY_DOMAIN, destinations=50),
        goal=10,
    ),
    Row(
        "relay-5000-destinations",
        "relay 4 KB to 5,000 destinations",
        _RELAY_PEERS,
        relay(20, domain=MANY_DOMAIN, destinations=DESTINATIONS),
        goal=10,
    ),
    Row(
        "relay-deferred",
        "relay 4 KB, every tenth recipient is deferred",
        _RELAY_PEERS,
        relay(20, domain="deferring.example"),
        goal=10,
    ),
    Row("relay-tls", "relay 4 KB over TLS, kept", ("postfix", "fastmta"), relay(20, domain="tls.example"), goal=6),
    Row(
        "relay-tls-one-each",
        "relay 4 KB over TLS, each connection resumed",
        ("postfix", "fastmta"),
        relay(20, domain="tls-one-each.example"),
        goal=6,
    ),
    Row("local-20-many", "local delivery 4 KB, 20 sessions", ("postfix", "fastmta"), local(20)),
    Row("latency-64", "prober's final 250 beside 64 saturating", ("sink", "fastmta"), latency(64)),
    Row("imap-login", "IMAP login and logout, 10 clients", _ACCESS_PEERS, logins(), "logins/s"),
    Row(
        "imap-envelopes",
        "IMAP ENVELOPE of all messages, 10 clients",
        _ACCESS_PEERS,
        reading(
            "imap",
            lambda context: _mailbox_messages(context) * _FETCHES,
            lambda account, context: access.imap_fetch(account, b"FLAGS ENVELOPE", _FETCHES),
            least_bytes=100,
        ),
        prepare=_fill,
    ),
    Row(
        "imap-bodies",
        "IMAP BODY.PEEK[] of all messages, 10 clients",
        _ACCESS_PEERS,
        reading(
            "imap",
            lambda context: _mailbox_messages(context) * _BODY_FETCHES,
            lambda account, context: access.imap_fetch(account, b"BODY.PEEK[]", _BODY_FETCHES),
            least_bytes=access.MESSAGE_BYTES,
        ),
        prepare=_fill,
    ),
    Row(
        "imap-search-text",
        "IMAP SEARCH TEXT of a rare word, 10 clients",
        ("dovecot", "scan", "fastmta"),
        reading(
            "imap",
            lambda context: context.count(40),
            lambda account, context: access.imap_search(account, _mailbox_messages(context), context.count(40)),
        ),
        "ops/s",
        prepare=_fill_words,
    ),
    Row(
        "imap-store",
        "IMAP STORE of one flag, 10 clients",
        _ACCESS_PEERS,
        reading(
            "imap",
            lambda context: _mailbox_messages(context),
            lambda account, context: access.imap_store(account, _mailbox_messages(context)),
        ),
        "ops/s",
        prepare=_fill,
    ),
    Row(
        "imap-append",
        "IMAP APPEND of 4 KB, 10 clients",
        _ACCESS_PEERS,
        reading(
            "imap",
            lambda context: context.count(300),
            lambda account, context: access.imap_fill(account, context.count(300)),
        ),
    ),
    Row(
        "pop3-drain",
        "POP3 RETR and DELE of all, 10 clients",
        _ACCESS_PEERS,
        reading(
            "pop3",
            _mailbox_messages,
            lambda account, context: access.pop3_drain(account, _mailbox_messages(context)),
            least_bytes=access.MESSAGE_BYTES,
        ),
        refresh=_fill,
    ),
)
