"""One local message into the store: recipients resolved, header completed, and the posting that holds it all.

Nobody waits for an answer here, so nothing is refused any more: a recipient that nobody has becomes a queued recipient
that bounces, in the same unit. Every local user may send anywhere, and networks are not asked.
"""

import asyncio
import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from fastmta._canonical import Field
from fastmta._intake import Body, Posting, Recipient
from fastmta._mime import Structure
from fastmta._parser import DataReceiver, HeaderScan
from fastmta.config.schema import Config
from fastmta.model.envelope import NOTIFY_NEVER, NOTIFY_SUCCESS, Envelope, LocalTarget, QueuedTarget, Resolution
from fastmta.model.ids import queue_id_text
from fastmta.model.limits import POSTED_AT_ONCE, SMTP_PATH_BYTES
from fastmta.model.reply import Reply
from fastmta.model.verdict import Outcome
from fastmta.pickup import long_posting
from fastmta.pickup.letter import Letter
from fastmta.pickup.seams import Services
from fastmta.pickup.spool import Drop
from fastmta.policy.judge import Judge
from fastmta.runtime.events import teller

if TYPE_CHECKING:
    from fastmta._unit import Blob

_RESOLVED_AT_ONCE: Final = 50  # recipients, about 1 ms
_LOCAL_HOP: Final = b"local:"
_TOO_BIG: Final = Reply(552, "5.3.4", "Message size exceeds fixed limit")
_TOO_MANY_HOPS: Final = Reply(554, "5.4.6", "Error: too many hops")
_BAD_ADDRESS: Final = Reply(553, "5.1.3", "bad address syntax")
_ATOMS: Final = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")

Target = LocalTarget | QueuedTarget


class Handed(NamedTuple):
    """What is handed in. `reverse_path` is ready for the envelope; `client` is who, for the trace and the log."""

    reverse_path: bytes
    recipients: list[Drop]
    client: str
    full_name: str = ""
    envid: bytes = b""
    ret: str = ""


async def post(services: Services, judge: Judge, handed: Handed, letter: Letter, name: str = "") -> int:
    """Commits the message and gives its queue id; it is in the log and in the counters then. 0: checks have dropped it.

    Reads the letter in the loop's default threads. StorageFailure, Refused or TemporaryFailure: try again later. A
    message of many recipients is several units; after a failure between two of them the next call with the same `name`
    goes on where this one has ended (long_posting.py), and before the first nothing is left behind.
    """
    config, store = services.config, services.store
    handed = handed._replace(reverse_path=services.directory.sender_of(handed.reverse_path))
    refusal = _TOO_MANY_HOPS if letter.count(b"received") > config.hopcount_limit else None
    recipients = await resolve(services, handed.recipients, refusal)
    known = store.posting_notes.find(name) if len(recipients) > POSTED_AT_ONCE else None
    if known is not None:
        handed = _from_whom(services, handed, known.outcome)
        recipients = _judged(services, handed.recipients, recipients, known.outcome)
        recipients = _adjusted(services, handed, recipients, known.outcome)
        await long_posting.go_on(services, name, known, recipients)
        return known.queue_id
    queue_id = store.new_id()
    now = services.clock.now()
    receiver = DataReceiver(False, False)
    blob = store.new_blob()
    try:
        trace = _trace(config, handed, queue_id, now)
        receiver.feed(trace)
        header = _header(config, handed, letter, queue_id, now)
        structure = Structure()
        if await _fill(services, blob, receiver, structure, header, letter):
            paths = [each.forward_path for each in recipients]
            outcome = await judge.judge(Message(blob), queue_id, handed.client, handed.reverse_path, paths)
        else:
            outcome = Outcome(_TOO_BIG)
        handed = _from_whom(services, handed, outcome)
        recipients = _judged(services, handed.recipients, recipients, outcome)
        recipients = _adjusted(services, handed, recipients, outcome)
        bits = receiver.bits
        if outcome.body is not None:
            blob.abandon()
            blob, structure, bits = outcome.body.blob, outcome.body.structure, outcome.body.bits
        blob.head = head = outcome.head + trace
        for start, octets in outcome.cuts:
            blob.cut(start, start + octets)
        blob.bits = bits
        if outcome.discard:
            blob.abandon()
            return 0
        local = any(each.has_local for each in recipients)
        parts = _structure(structure, head, header, outcome.cuts) if local else b""
        body = Body(blob, parts, _delivered_to(letter))
        envelope = _envelope(
            handed, recipients, blob, now, services.directory.tenants.of_sender("", handed.reverse_path)
        )
        posting = Posting(teller(services.log, services.clock, services.cells), queue_id, envelope, body)
        posting.event = "pickup.received"
        posting.message_id = _message_id(header)
        if len(recipients) > POSTED_AT_ONCE:
            await long_posting.begin(services, name, posting, recipients, outcome)
            return queue_id
        unit = store.new_unit()
        posting.to(recipients).write(unit)
        await store.commit(unit)
    except BaseException:
        blob.abandon()
        raise
    posting.committed(unit)
    return queue_id


class Message:
    """The message as checks read it: completed, without our trace field."""

    def __init__(self, blob: "Blob") -> None:
        self._blob = blob
        self.size = int(blob.body_size)
        self.fields: tuple[Field, ...] | None = None

    async def read(self, offset: int, octets: int) -> bytes:
        return self._blob.read(offset, octets)


def _structure(parser: Structure, head: bytes, header: bytes, cuts: tuple[tuple[int, int], ...]) -> bytes:
    if not cuts:
        return parser.finish(head=head)
    shown, at = [head], 0
    for start, octets in sorted(cuts):
        shown.append(header[at:start])
        at = start + octets
    shown.append(header[at:-2])
    return parser.finish(head=head, cut=sum(octets for _, octets in cuts), header=b"".join(shown))


def _from_whom(services: Services, handed: Handed, outcome: Outcome) -> Handed:
    """The same with the reverse path that a filter has put in."""
    if outcome.sender is None:
        return handed
    return handed._replace(reverse_path=services.directory.sender_of(outcome.sender))


def _judged(services: Services, drops: list[Drop], recipients: list[Recipient], outcome: Outcome) -> list[Recipient]:
    """Where the message goes after its checks. Whom they refuse, its sender gets a report of."""
    if outcome.redirect:
        to = outcome.redirect
        resolution = services.directory.resolve(to, may_relay=True)
        return [Recipient(to, resolution if resolution.refusal is None else _refused(to, resolution.refusal))]
    if outcome.reply is None and not (outcome.refused or outcome.hold or outcome.quarantine or outcome.removed):
        return recipients
    out = []
    for number, (drop, each) in enumerate(zip(drops, recipients, strict=True)):
        reply = outcome.reply or outcome.refused.get(number)
        path, resolution, notify = each.forward_path, each.resolution, drop.notify
        if reply is None and number in outcome.removed:
            resolution = Resolution()
        elif reply is not None:
            resolution = _refused(path, reply)
        elif outcome.hold:
            resolution = Resolution(targets=tuple(QueuedTarget(to.address, to.hop, True) for to in each.targets))
        elif outcome.quarantine:  # without a report of success: it would tell whoever is suspected
            notify &= ~NOTIFY_SUCCESS
            resolution = Resolution(targets=tuple(_suspected(services, to) for to in resolution.targets))
        else:  # refused are others
            out.append(each)
            continue
        out.append(Recipient(path, resolution, notify, drop.orcpt.encode("utf-8", "surrogateescape")))
    return out


def _adjusted(services: Services, handed: Handed, recipients: list[Recipient], outcome: Outcome) -> list[Recipient]:
    """The same with copies and routes by sender; of mail that is held copies are held too."""
    through = outcome.filter_over(services.config.filter_for("pickup"))
    if outcome.reply is not None or not (services.directory.adjusts or outcome.copies or through):
        return recipients
    found = services.directory.adjusted(handed.reverse_path, recipients, more=outcome.copies, through=through)
    if not outcome.hold:
        return found
    copies = found[len(recipients) :]
    return found[: len(recipients)] + [
        Recipient(
            each.forward_path,
            Resolution(targets=tuple(QueuedTarget(to.address, to.hop, True) for to in each.targets)),
            NOTIFY_NEVER,
        )
        for each in copies
    ]


def _suspected(services: Services, target: Target) -> Target:
    if isinstance(target, QueuedTarget):
        return target
    mailboxes = services.store.mailboxes
    junk = mailboxes.quarantine_of(target.account_id, services.config.quarantine_mailbox)
    junk = junk or mailboxes.junk_of(target.account_id)
    return LocalTarget(target.account_id, junk or target.mailbox_id, target.address, target.mailbox)


def _delivered_to(letter: Letter) -> frozenset[bytes] | None:
    """Where the message says that it has been, lower case."""
    found = [
        each.value.lower().encode("utf-8", "surrogateescape") for each in letter.fields if each.name == b"delivered-to"
    ]
    return frozenset(found) or None


async def resolve(services: Services, drops: list[Drop], refusal: Reply | None = None) -> list[Recipient]:
    """What becomes of each; `refusal` is what all get instead."""
    out = []
    for number, drop in enumerate(drops):
        if number % _RESOLVED_AT_ONCE == _RESOLVED_AT_ONCE - 1:
            await asyncio.sleep(0)
        raw, resolution = _resolution(services, drop, refusal)
        out.append(Recipient(raw, resolution, drop.notify, drop.orcpt.encode("utf-8", "surrogateescape")))
    return out


def _resolution(services: Services, drop: Drop, refusal: Reply | None) -> tuple[bytes, Resolution]:
    """(recipient as a path, what it stands for); what cannot be delivered is a target that bounces or is put off."""
    try:
        raw = services.directory.qualify(drop.address).raw
    except ValueError:
        raw = drop.address.encode("utf-8", "surrogateescape")[:SMTP_PATH_BYTES]
        return raw, _refused(raw, refusal or _BAD_ADDRESS)
    if len(raw) > SMTP_PATH_BYTES:
        raw = raw[:SMTP_PATH_BYTES]
        return raw, _refused(raw, refusal or Reply(553, "5.1.3", "address too long"))
    if refusal is not None:
        return raw, _refused(raw, refusal)
    resolution = services.directory.resolve(raw, may_relay=True)
    return raw, resolution if resolution.refusal is None else _refused(raw, resolution.refusal)


def _refused(raw: bytes, reply: Reply) -> Resolution:
    """The queued recipient that a refusal becomes: a permanent one bounces, a temporary one asks again later."""
    if reply.is_temporary:
        return Resolution(targets=(QueuedTarget(raw, _LOCAL_HOP),))
    hop = f"error:{reply.enhanced} {reply.text}"[:200].encode("ascii", "replace")
    return Resolution(targets=(QueuedTarget(raw, hop),))


def _envelope(handed: Handed, recipients: list[Recipient], blob: "Blob", now: float, tenant: str) -> Envelope:
    paths = [handed.reverse_path, *(each.forward_path for each in recipients)]
    return Envelope(
        handed.reverse_path,
        int(now * 1000),
        blob.size,
        blob.bits,
        handed.client,
        "",
        handed.envid,
        handed.ret,
        not all(path.isascii() for path in paths),
        "local",
        tenant=tenant,
    )


def _trace(config: Config, handed: Handed, queue_id: int, now: float) -> bytes:
    """Our trace field (RFC 5321 §4.4), as Postfix's pickup writes it."""
    by = f"Received: by {config.myhostname} (FastMTA, {handed.client})"
    return f"{by}\r\n\tid {queue_id_text(queue_id)}; {date_text(now)}\r\n".encode("utf-8", "replace")


def _header(config: Config, handed: Handed, letter: Letter, queue_id: int, now: float) -> bytes:
    """The completed header."""
    name = queue_id_text(queue_id)
    if handed.reverse_path:
        sender = handed.reverse_path.decode("utf-8", "surrogateescape")
        full_name = handed.full_name
    else:
        sender, full_name = f"MAILER-DAEMON@{config.myorigin}", "Mail Delivery System"
    stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(now))
    missing = (
        (b"Message-ID", f"<{stamp}.{name}@{config.myhostname}>".encode()),
        (b"Date", date_text(now).encode()),
        (b"From", _from_value(full_name, sender)),
    )
    return letter.header(missing, config.myorigin)


def _message_id(header: bytes) -> bytes:
    scan = HeaderScan()
    scan.feed(header)
    return scan.message_id()


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
