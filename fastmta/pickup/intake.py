"""One local message into the store: recipients resolved, header completed, and one unit that holds it all.

Nobody waits for an answer here, so nothing is refused any more: a recipient that nobody has becomes a queued recipient
that bounces, in the same unit. Every local user may send anywhere, and networks are not asked.
"""

import asyncio
import re
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from fastmta._mime import Structure
from fastmta._parser import DataReceiver
from fastmta.model.envelope import (
    NOTIFY_SUCCESS,
    Envelope,
    LocalTarget,
    QueuedTarget,
    RecipientState,
    RecipientTail,
)
from fastmta.model.ids import queue_id_text
from fastmta.model.limits import LOG_RECIPIENTS, SMTP_PATH_BYTES
from fastmta.model.reply import Reply
from fastmta.pickup.letter import Letter
from fastmta.pickup.seams import Services
from fastmta.pickup.spool import Drop
from fastmta.queue.scheduler import lane_for
from fastmta.runtime.metrics import METRICS

if TYPE_CHECKING:
    from fastmta._unit import Blob

_RESOLVED_AT_ONCE: Final = 50  # recipients, about 1 ms
_LOCAL_HOP: Final = b"local:"
_TOO_BIG: Final = Reply(552, "5.3.4", "Message size exceeds fixed limit")
_TOO_MANY_HOPS: Final = Reply(554, "5.4.6", "Error: too many hops")
_LOOP: Final = Reply(554, "5.4.6", "mail forwarding loop")
_BAD_ADDRESS: Final = Reply(553, "5.1.3", "bad address syntax")
_ATOMS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_encode: Final = msgspec.msgpack.Encoder().encode

Target = LocalTarget | QueuedTarget


class Posting(NamedTuple):
    """What is handed in. `reverse_path` is ready for the envelope; `client` is who, for the trace and the log."""

    reverse_path: bytes
    recipients: list[Drop]
    client: str
    full_name: str = ""
    envid: bytes = b""
    ret: str = ""


class Resolved(NamedTuple):
    target: Target
    drop: Drop
    original: bytes  # the recipient that the target comes from


async def post(services: Services, posting: Posting, letter: Letter) -> int:
    """Commits the message and gives its queue id; it is in the log and in the counters then.

    Reads the letter in the loop's default threads. StorageFailure or Refused leave nothing behind: try again later.
    """
    config, raw = services.config, services.store.raw
    refusal = _TOO_MANY_HOPS if letter.count(b"received") > config.hopcount_limit else None
    resolved = await resolve(services, posting.recipients, refusal)
    queue_id = raw.new_id()
    now = services.clock.now()
    receiver = DataReceiver(False, False)
    structure = Structure() if any(isinstance(each.target, LocalTarget) for each in resolved) else None
    blob = raw.new_blob()
    try:
        blob.head = trace = _trace(config, posting, queue_id, now)
        receiver.feed(trace)
        header = _header(config, posting, letter, queue_id, now)
        if not await _fill(services, blob, receiver, structure, header, letter):
            resolved = await resolve(services, posting.recipients, _TOO_BIG)
        blob.bits = receiver.bits
        unit, delivered = _unit(services, posting, letter, resolved, queue_id, blob, structure, now)
        await services.store.commit(unit)
    except BaseException:
        blob.abandon()
        raise
    size = int(blob.size)
    services.cells[METRICS.messages_received_total] += 1
    services.cells[METRICS.received_bytes_total] += size
    _tell(services, posting, delivered, queue_id, size, unit.results, now)
    return queue_id


async def resolve(services: Services, drops: list[Drop], refusal: Reply | None = None) -> list[Resolved]:
    """Each mailbox and path once; `refusal` is what all recipients get instead."""
    out: dict[Target, Resolved] = {}
    mailboxes: set[int] = set()
    for number, drop in enumerate(drops):
        if number % _RESOLVED_AT_ONCE == _RESOLVED_AT_ONCE - 1:
            await asyncio.sleep(0)
        raw, targets = _targets(services, drop, refusal)
        for target in targets:
            if isinstance(target, LocalTarget):
                if target.mailbox_id in mailboxes:
                    continue
                mailboxes.add(target.mailbox_id)
                if drop.notify & NOTIFY_SUCCESS:  # the hop reports what it delivers
                    target = QueuedTarget(target.address, _LOCAL_HOP)
            out.setdefault(target, Resolved(target, drop, raw))
    return list(out.values())


def _targets(services: Services, drop: Drop, refusal: Reply | None) -> tuple[bytes, Iterable[Target]]:
    """(recipient as a path, what it stands for); what cannot be delivered is a target that bounces or is put off."""
    try:
        raw = services.directory.qualify(drop.address).raw
    except ValueError:
        raw = drop.address.encode("utf-8", "surrogateescape")[:SMTP_PATH_BYTES]
        return raw, [refused(raw, refusal or _BAD_ADDRESS)]
    if len(raw) > SMTP_PATH_BYTES:
        raw = raw[:SMTP_PATH_BYTES]
        return raw, [refused(raw, refusal or Reply(553, "5.1.3", "address too long"))]
    if refusal is not None:
        return raw, [refused(raw, refusal)]
    resolution = services.directory.resolve(raw, may_relay=True)
    if resolution.refusal is not None:
        return raw, [refused(raw, resolution.refusal)]
    return raw, resolution.targets


def refused(raw: bytes, reply: Reply) -> QueuedTarget:
    """The queued recipient that a refusal becomes: a permanent one bounces, a temporary one asks again later."""
    if reply.is_temporary:
        return QueuedTarget(raw, _LOCAL_HOP)
    return QueuedTarget(raw, f"error:{reply.enhanced} {reply.text}"[:200].encode("ascii", "replace"))


def _trace(config: Any, posting: Posting, queue_id: int, now: float) -> bytes:
    """Our trace field (RFC 5321 §4.4), as Postfix's pickup writes it."""
    by = f"Received: by {config.myhostname} (FastMTA, {posting.client})"
    return f"{by}\r\n\tid {queue_id_text(queue_id)}; {date_text(now)}\r\n".encode("utf-8", "replace")


def _header(config: Any, posting: Posting, letter: Letter, queue_id: int, now: float) -> bytes:
    """The completed header."""
    name = queue_id_text(queue_id)
    if posting.reverse_path:
        sender = posting.reverse_path.decode("utf-8", "surrogateescape")
        full_name = posting.full_name
    else:
        sender, full_name = f"MAILER-DAEMON@{config.myorigin}", "Mail Delivery System"
    stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(now))
    missing = (
        (b"Message-ID", f"<{stamp}.{name}@{config.myhostname}>".encode()),
        (b"Date", date_text(now).encode()),
        (b"From", _from_value(full_name, sender)),
    )
    return letter.header(missing, config.myorigin)


async def _fill(
    services: Services, blob: "Blob", receiver: DataReceiver, structure: Structure | None, header: bytes, letter: Letter
) -> bool:
    """Writes the message into the blob; false where it is over the limit, and then the rest is left out."""
    drained = asyncio.Event()
    blob.on_drain = drained.set
    limit = services.config.message_size_limit
    body: Iterator[bytes] = letter.body()
    piece: bytes | None = header
    while piece is not None:
        if limit and blob.body_size + len(piece) > limit + len(header):
            return False
        receiver.feed(piece)
        blob.feed(piece)
        if structure is not None:
            structure.feed(piece)
        if blob.congested:
            drained.clear()
            await drained.wait()
        piece = await services.loop.run_in_executor(None, next, body, None)
    return True


def _unit(
    services: Services,
    posting: Posting,
    letter: Letter,
    resolved: list[Resolved],
    queue_id: int,
    blob: "Blob",
    structure: Structure | None,
    now: float,
) -> tuple[Any, list[Resolved]]:
    """The unit, and what of it goes into mailboxes at once, in the order of its results."""
    now_ms = int(now * 1000)
    paths = [posting.reverse_path, *(each.original for each in resolved)]
    envelope = _encode(
        Envelope(
            posting.reverse_path,
            now_ms,
            blob.size,
            blob.bits,
            posting.client,
            "",
            posting.envid,
            posting.ret,
            not all(path.isascii() for path in paths),
            "local",
        )
    )
    seen = {f.value.lower().encode("utf-8", "surrogateescape") for f in letter.fields if f.name == b"delivered-to"}
    record = structure.finish(head=blob.head) if structure is not None else b""
    lane = int(lane_for(blob.size, len(resolved)))
    unit = services.store.raw.new_unit()
    unit.blob(blob)
    looping = [isinstance(each.target, LocalTarget) and each.target.address.lower() in seen for each in resolved]
    if any(looping) or any(isinstance(each.target, QueuedTarget) for each in resolved):
        unit.enqueue(queue_id, blob.blob_id, envelope)
    delivered = []
    minutes = (time.localtime(now).tm_gmtoff or 0) // 60
    for n, (each, loops) in enumerate(zip(resolved, looping, strict=True)):
        target = each.target
        path = target.address if isinstance(target, LocalTarget) else target.forward_path
        orcpt = each.drop.orcpt.encode("utf-8", "surrogateescape")
        tail = _encode(RecipientTail(path, orcpt, each.drop.notify, each.original if each.original != path else b""))
        if isinstance(target, LocalTarget) and not loops:
            delivered.append(each)
            prefix = b"Return-Path: <%b>\r\nDelivered-To: %b\r\n" % (posting.reverse_path, target.address)
            unit.deliver(
                target.mailbox_id, blob.blob_id, prefix, 0, b"", now_ms // 1000, minutes,
                record, queue_id, n, _LOCAL_HOP, tail, envelope,
            )  # fmt: skip
        else:
            if isinstance(target, LocalTarget):
                target = refused(path, _LOOP)
            state = RecipientState.HELD if target.held else RecipientState.ACTIVE
            unit.recipient(queue_id, n, target.hop, lane, int(state), now_ms, tail)
    return unit, delivered


def _tell(
    services: Services,
    posting: Posting,
    delivered: list[Resolved],
    queue_id: int,
    size: int,
    results: list[Any],
    now: float,
) -> None:
    """The lines and counters that the same message would have by SMTP."""
    name, log = queue_id_text(queue_id), services.log
    fields: dict[str, Any] = {
        "queue_id": name,
        "client": posting.client,
        "from": posting.reverse_path,
        "to": [each.address.encode("utf-8", "surrogateescape") for each in posting.recipients[:LOG_RECIPIENTS]],
        "recipients": len(posting.recipients),
        "size": size,
    }
    log.info("pickup.received", **fields)
    delay_s = max(0.0, services.clock.now() - now)
    for each, word in zip(delivered, results, strict=True):
        target = each.target
        assert isinstance(target, LocalTarget)
        if isinstance(word, str):
            log.info("local.refused", queue_id=name, mailbox=target.address, code=word)
            continue
        services.cells[METRICS.deliveries_total["local", "delivered"]] += 1
        METRICS.delivery_seconds.observe(services.cells, delay_s)
        log.info(
            "delivery.delivered",
            queue_id=name,
            recipient=target.address,
            original_recipient=each.original if each.original != target.address else None,
            mailbox=target.mailbox or target.address,
            next_hop="local:",
            relay="local",
            delay=round(delay_s, 3),
            dsn="2.0.0",
            reply="250 2.0.0 delivered to mailbox",
        )


def date_text(at: float) -> str:
    """An instant in local time as RFC 5322 §3.3 writes it, whatever the locale."""
    moment = time.localtime(at)
    offset = moment.tm_gmtoff or 0
    sign, minutes = ("+", offset // 60) if offset >= 0 else ("-", -offset // 60)
    day = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[moment.tm_wday]
    month = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")[moment.tm_mon - 1]
    clock = f"{moment.tm_hour:02}:{moment.tm_min:02}:{moment.tm_sec:02}"
    return f"{day}, {moment.tm_mday} {month} {moment.tm_year} {clock} {sign}{minutes // 60:02}{minutes % 60:02}"


def _from_value(name: str, address: str) -> bytes:
    """`Full Name <address>` (RFC 5322 §3.4), the name quoted where it has to be, encoded where it isn't ASCII."""
    if not name:
        return address.encode("utf-8", "surrogateescape")
    if name.isascii():
        phrase = name if _ATOMS.fullmatch(name) else '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    else:
        import base64

        raw = name.encode("utf-8", "replace")[:200].decode("utf-8", "ignore").encode()
        words = _whole_characters(raw, 45)
        phrase = "\r\n ".join(f"=?utf-8?B?{base64.b64encode(word).decode()}?=" for word in words)
    return f"{phrase} <{address}>".encode("utf-8", "surrogateescape")


def _whole_characters(raw: bytes, size: int) -> list[bytes]:
    """Pieces of at most `size` bytes that split no character (RFC 2047 §5)."""
    out = [b""]
    for character in raw.decode():
        encoded = character.encode()
        if len(out[-1]) + len(encoded) > size:
            out.append(b"")
        out[-1] += encoded
    return out
