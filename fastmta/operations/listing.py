"""The queue as it is read: the acts `queue.list`, `show`, `content`, `stats` and `shape`."""

import heapq
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from fastmta.model.envelope import RecipientState, told_terms
from fastmta.model.errors import ActFailed
from fastmta.model.ids import queue_id_text
from fastmta.operations.acts import act, rows
from fastmta.operations.desk import Desk
from fastmta.operations.queued import Recipient, record, text
from fastmta.operations.selecting import STATES, Selector, queue_id, selected, selection
from fastmta.operations.values import stamp

if TYPE_CHECKING:
    from fastmta.config.schema import Config
    from fastmta.store.queue import CountedBy, QueuedMessage

PIECE_BYTES: Final = 131_072  # of a message's content
COUNTED: Final = 10_000  # recipients that are walked unasked, in about 50 ms
SHOWN: Final = 50  # next hops, domains
HOPS_AT_ONCE: Final = 500  # read before others get their turn
NULL_SENDER: Final = "MAILER-DAEMON"


class ListQueue(Selector, forbid_unknown_fields=True):
    limit: Annotated[int, msgspec.Meta(description="At most so many recipients.", ge=1)] | None = None


@rows("queue.list", who="everybody", waits=False)
async def list_(desk: Desk, asked: ListQueue) -> AsyncIterator[Recipient]:
    """List queued recipients."""
    stopped = desk.store.suspensions.by_hop()
    left = asked.limit
    async for message, recipient in selected(desk, asked):
        yield record(message, recipient, stopped)
        if left is not None:
            left -= 1
            if not left:
                return


class OfMessage(msgspec.Struct, forbid_unknown_fields=True):
    """A message of the queue."""

    id: str


class Message(msgspec.Struct):
    """A message of the queue, with the recipients that are owed a result."""

    queue_id: str
    sender: str
    received_at: str
    size: int
    client: str
    authenticated_as: str
    protocol: str
    envid: str
    recipients: list[Recipient]
    requiretls: str | None = None
    deliver_by: str | None = None
    release_at: str | None = None
    tenant: str = ""


@act("queue.show")
async def show(desk: Desk, asked: OfMessage) -> Message:
    """Show a message: envelope and recipients."""
    message = required(desk, asked.id)
    stopped = desk.store.suspensions.by_hop()
    envelope = message.envelope
    return Message(
        queue_id_text(message.queue_id),
        text(envelope.reverse_path),
        stamp(envelope.received_at_ms / 1000),
        envelope.size_bytes,
        envelope.client,
        envelope.authenticated_as,
        envelope.protocol,
        text(envelope.envid),
        [record(message, each, stopped) for each in desk.store.queue.recipients(message.queue_id)],
        **({} if envelope.terms is None else told_terms(envelope.terms)),
        tenant=envelope.tenant,
    )


@rows("queue.content", at_once=1)
async def content(desk: Desk, asked: OfMessage) -> AsyncIterator[bytes]:
    """Give the message itself, as it lies in the queue, in pieces."""
    message = required(desk, asked.id)
    offset = 0
    waiting = desk.store.queue.need(message.blob_id, 0, message.envelope.size_bytes)
    if waiting is not None:
        await waiting
    while piece := desk.store.queue.read(message.blob_id, offset, PIECE_BYTES):
        yield piece
        offset += len(piece)
        await desk.pause()


def required(desk: Desk, id_text: str) -> "QueuedMessage":
    """The message of that id; ActFailed where it is not in the queue."""
    message = desk.store.queue.message(queue_id(id_text))
    if message is None:
        raise ActFailed(f"no message {id_text} in the queue", "invalid")
    return message


# --- counts ---


class CountQueue(msgspec.Struct, forbid_unknown_fields=True):
    exact: Annotated[
        bool, msgspec.Meta(description="Count messages, bytes and domains of a long queue too: this walks it.")
    ] = False


class HopCount(msgspec.Struct):
    next_hop: str
    recipients: int
    active: int
    deferred: int
    held: int


class DomainCount(msgspec.Struct):
    domain: str
    recipients: int
    deferred: int


class Counts(msgspec.Struct):
    """The queue in figures; `messages` and `size` are None where they were not counted."""

    recipients: dict[str, int]
    oldest_seconds: int | None
    messages: int | None
    size: int | None
    domains: list[DomainCount]
    next_hops: list[HopCount]


@act("queue.stats", waits=False)
async def stats(desk: Desk, asked: CountQueue) -> Counts:
    """Count recipients by state, next hop and domain.

    All of it is kept count of, however long the queue is: a row a hop, and a row a domain and minute of arrival.
    A store in the format before keeps counts of states and hops alone: there messages, bytes and domains are counted
    by a walk, up to COUNTED recipients, or because somebody asks for it.
    """
    queue = desk.store.queue
    counts = dict(queue.counts())
    oldest = queue.oldest_ms()
    hops: list[tuple[bytes, int, int, int]] = []
    for n, each in enumerate(queue.hop_counts(), 1):
        hops.append(each)
        if n % HOPS_AT_ONCE == 0:
            hops = _busiest(hops)
            await desk.pause()
    hops = _busiest(hops)
    found = Counts(
        counts,
        None if oldest is None else max(0, round(desk.clock.now() - oldest / 1000)),
        None,
        None,
        [],
        [HopCount(text(hop), a + d + h, a, d, h) for hop, a, d, h in hops[:SHOWN]],
    )
    if queue.has_counts:
        await _kept(desk, found)
    elif asked.exact or sum(counts.values()) <= COUNTED:
        await _walk(desk, found)
    else:
        found.domains = _by_hop(desk.config, hops)
    return found


def _busiest(hops: list[tuple[bytes, int, int, int]]) -> list[tuple[bytes, int, int, int]]:
    return heapq.nsmallest(10 * SHOWN, hops, key=lambda each: (-sum(each[1:]), each[0]))


async def _added_up(desk: Desk, pages: Iterator[dict[bytes, list[int]]]) -> dict[bytes, list[int]]:
    """Kept counts, pages of which are read with pauses."""
    out: dict[bytes, list[int]] = {}
    for page in pages:
        for domain, counts in page.items():
            before = out.get(domain)
            out[domain] = counts if before is None else [a + b for a, b in zip(before, counts, strict=True)]
        await desk.pause()
    return out


async def _kept(desk: Desk, found: Counts) -> None:
    totals = desk.store.queue.totals()
    found.messages, found.size = totals.messages, totals.size_bytes
    domains = await _added_up(desk, desk.store.queue.domain_counts())
    busiest = heapq.nsmallest(SHOWN, domains.items(), key=lambda each: (-sum(each[1]), each[0]))
    found.domains = [DomainCount(text(domain), sum(counts), counts[1]) for domain, counts in busiest]


async def _walk(desk: Desk, found: Counts) -> None:
    domains: Counter[str] = Counter()
    waiting: Counter[str] = Counter()
    messages: set[int] = set()
    size_bytes = 0
    async for message, recipient in selected(desk, Selector()):
        if message.queue_id not in messages:
            messages.add(message.queue_id)
            size_bytes += message.envelope.size_bytes
        domain = text(recipient.tail.forward_path.lower().rpartition(b"@")[2])
        domains[domain] += 1
        waiting[domain] += recipient.state == RecipientState.DEFERRED
    found.messages = len(messages)
    found.size = size_bytes
    found.domains = [DomainCount(domain, count, waiting[domain]) for domain, count in domains.most_common(SHOWN)]


def _by_hop(config: "Config", hops: list[tuple[bytes, int, int, int]]) -> list[DomainCount]:
    """The domains that are next hops of their own, by their MX, and of nobody else's by a route."""
    routed = {config.relayhost, *(route.partition(":")[2] for route in config.transport.values())}
    out = []
    for hop, active, deferred, held in hops:
        transport, _, domain = text(hop).partition(":")
        if transport == "smtp" and domain not in routed and "[" not in domain and ":" not in domain:
            out.append(DomainCount(domain, active + deferred + held, deferred))
            if len(out) == SHOWN:
                break
    return out


# --- ages ---


class ShapeQueue(Selector, forbid_unknown_fields=True):
    senders: Annotated[
        bool,
        msgspec.Meta(description="By the domain of senders; without it by that of recipients.", extra={"short": "-s"}),
    ] = False
    tenants: Annotated[
        bool, msgspec.Meta(description="By tenant; mail that is nobody's is left out.", extra={"option": "--tenants"})
    ] = False
    limit: Annotated[int, msgspec.Meta(description="So many domains.", ge=1, extra={"short": "-l"})] = 30
    first: Annotated[int, msgspec.Meta(description="Minutes.", ge=1, le=10_000, extra={"short": "-t"})] = 5
    buckets: Annotated[int, msgspec.Meta(description="Columns.", ge=2, le=20, extra={"short": "-b"})] = 10


class Ages(msgspec.Struct):
    """`ages`: how many are at most so old as each column says, and no younger; the last column has all others."""

    domain: str
    total: int
    ages: list[int]


class Shape(msgspec.Struct):
    """How old the queue is; `minutes` are the columns' bounds."""

    minutes: list[int]
    total: Ages
    domains: list[Ages]


@act("queue.shape", waits=False)
async def shape(desk: Desk, asked: ShapeQueue) -> Shape:
    """Count recipients by age and destination, as qshape does.

    Without selectors, or by state alone, kept counts are read, which know the minute of arrival. Others are walked.
    """
    bounds = [asked.first << n for n in range(asked.buckets - 1)]
    now_ms = time.time() * 1000  # what people read off a clock
    if asked.senders and asked.tenants:
        raise ActFailed("--senders or --tenants, not both", "usage")
    by: CountedBy = "tenant" if asked.tenants else "sender" if asked.senders else "recipient"
    queue = desk.store.queue
    is_kept = queue.has_tenants if asked.tenants else queue.has_counts
    if is_kept and not asked.given().keys() - {"state", "everything"}:
        return await _kept_shape(desk, asked, by, bounds, now_ms)
    from fastmta.store.queue import counted_by

    counted: Counter[tuple[str, int]] = Counter()
    async for message, recipient in selected(desk, asked):
        name = counted_by(by, message, recipient)
        if name is None:
            continue
        domain = text(name) or NULL_SENDER
        minutes = (now_ms - message.envelope.received_at_ms) / 60_000
        counted[domain, sum(minutes > bound for bound in bounds)] += 1
    return _shape(asked, bounds, ((domain, column, count) for (domain, column), count in counted.items()))


async def _kept_shape(desk: Desk, asked: ShapeQueue, by: "CountedBy", bounds: list[int], now_ms: float) -> Shape:
    _, chosen = selection(asked, desk.clock.now())
    before_ms = [int(now_ms - bound * 60_000) for bound in bounds]
    domains = await _added_up(desk, desk.store.queue.domain_counts(before_ms, by=by))
    states = [state - 1 for state in STATES.values() if chosen.state in (None, state)]
    rows = (
        (text(domain) or NULL_SENDER, column, counts[state * asked.buckets + column])
        for domain, counts in domains.items()
        for state in states
        for column in range(asked.buckets)
    )
    return _shape(asked, bounds, rows)


def _shape(asked: ShapeQueue, bounds: list[int], counted: Iterable[tuple[str, int, int]]) -> Shape:
    """Of (domain, column, recipients)."""
    total = Ages("TOTAL", 0, [0] * asked.buckets)
    found: dict[str, Ages] = {}
    for domain, column, count in counted:
        if count:
            for row in (found.setdefault(domain, Ages(domain, 0, [0] * asked.buckets)), total):
                row.total += count
                row.ages[column] += count
    order = heapq.nsmallest(asked.limit, found.values(), key=lambda each: (-each.total, each.domain))
    return Shape(bounds, total, order)
